"""What decides a network: its shape, and the schedule and parameterisation that it is trained with."""

from dataclasses import asdict, dataclass, fields

from ..errors import InputError

PREDICTIONS = ("epsilon", "sample", "v", "velocity")
MAY_BE_ZERO = ("n_cond_layers", "camera_shift", "camera_crop", "camera_lessons")


@dataclass(frozen=True, kw_only=True)
class ChunkConfig:
    """What the networks of all families have in common."""

    action_dim: int
    observation_dim: int
    horizon: int = 16  # Tp, rows of the network
    n_obs_steps: int = 2  # To
    n_action_steps: int = 8  # Ta, rows that are executed
    schedule: str = "squaredcos_cap_v2"
    train_levels: int = 100
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value, least = getattr(self, item.name), 0 if item.name in MAY_BE_ZERO else 1
            if item.type is int and (type(value) is not int or value < least):
                raise InputError(f"network setting {item.name} is {value!r}, wanted a whole number from {least}")

    def to_dict(self) -> dict:
        return asdict(self)

    @property
    def state_dim(self) -> int:
        """Numbers of an observation that are no pixels; they come first."""
        return self.observation_dim

    @property
    def lessons(self) -> int:
        """Steps before the first one of training, in which cameras are taught."""
        return 0

    @property
    def shape(self) -> str:
        """How large it is, in words."""
        raise NotImplementedError(f"{type(self).__name__} does not say how large it is")


@dataclass(frozen=True, kw_only=True)
class CameraConfig(ChunkConfig):
    """What a network sees with. An observation is `state_dim` numbers, then each camera's pixels: 3 x image_size x
    image_size, from 0 to 1, channel first, row by row.

    cameras       their names, in the observation's order; none: an observation is state alone
    camera_width  channels of the encoder's first stage; 64 is ResNet-18's
    keypoints     that an image is told by, each as x and y
    camera_shift  pixels by which training moves images, at most; with `camera_lessons`, by which those do
    camera_fine   without the encoder's max pool, for small images: its map has 1/16 of their side in the place of 1/32
    camera_crop   side of the middle of an image, which alone is looked at; 0: all of it
    camera_lessons  steps in which the encoders are made autoencoders, before training, which then leaves them as they
                    are (`camera_lessons.teach`); 0: they learn in training, by what it asks of them
    """

    cameras: tuple[str, ...] = ()
    image_size: int = 64
    camera_width: int = 64
    keypoints: int = 32
    camera_shift: int = 0
    camera_crop: int = 0
    camera_fine: bool = False
    camera_lessons: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.cameras
        if not names:
            self._check_without()
            return
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise InputError(f"cameras are {list(names)!r}, wanted names that differ")
        for name, side in (("image_size", self.image_size), ("camera_crop", self.looked_at)):
            if side <= self.pixels_a_place:
                place = f"{self.pixels_a_place} pixels are one place to the encoder"
                raise InputError(f"{name} is {side}, wanted above {self.pixels_a_place}: {place}")
        if self.camera_crop > self.image_size:
            raise InputError(f"camera_crop is {self.camera_crop}, wanted at most the image_size {self.image_size}")
        if self.feature_dim >= self.observation_dim:
            raise InputError(f"keypoints is {self.keypoints}: they would tell more numbers than an image has")
        if self.camera_width % 16:
            raise InputError(f"camera_width is {self.camera_width}, wanted a multiple of 16, the channels of a norm")
        if self.state_dim < 0:
            pixels = f"{len(names)} x 3 x {self.image_size} x {self.image_size}"
            raise InputError(f"observation_dim {self.observation_dim} is less than the cameras' {pixels} pixels")

    def _check_without(self) -> None:
        for item in fields(CameraConfig):
            if item.name in CAMERA_SETTINGS and getattr(self, item.name) != item.default:
                raise InputError(
                    f"{item.name} is {getattr(self, item.name)!r}, but no cameras are named: add `cameras`"
                )

    def to_dict(self) -> dict:
        """Without cameras as if there could be none."""
        settings = super().to_dict()
        return {name: settings[name] for name in settings if self.cameras or name not in CAMERA_SETTINGS}

    @property
    def pixels_a_place(self) -> int:
        """Side of what becomes one place of the encoder's map."""
        return 16 if self.camera_fine else 32

    @property
    def lessons(self) -> int:
        return self.camera_lessons if self.cameras else 0

    @property
    def looked_at(self) -> int:
        """Side of what the encoder sees of an image."""
        return self.camera_crop or self.image_size

    @property
    def state_dim(self) -> int:
        return self.observation_dim - len(self.cameras) * 3 * self.image_size**2

    @property
    def feature_dim(self) -> int:
        """What stands in an observation's place once the cameras are encoded: the state and their keypoints."""
        return self.state_dim + len(self.cameras) * 2 * self.keypoints


CAMERA_SETTINGS = {item.name for item in fields(CameraConfig)} - {item.name for item in fields(ChunkConfig)}


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(ChunkConfig):
    """A network of layers of one width."""

    width: int = 256
    layers: int = 8
    heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 4:
            raise InputError(f"width is {self.width}, wanted at least 4: the time embedding needs two frequencies")
        if self.width % self.heads or self.width % 2:
            raise InputError(f"width {self.width} must be even and divide by {self.heads} heads")

    @property
    def shape(self) -> str:
        return f"width {self.width}, {self.layers} layers"


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(AttentionConfig, CameraConfig):
    """Shapes and training choices of a diffusion transformer; the defaults are the published ones.

    fan_in_init  the memory's embedding and encoder and the cross-attention's inputs begin with a standard deviation of
                 1 / sqrt(inputs), in the place of the published 0.02, through which little of an observation passes
    """

    causal: bool = True
    n_cond_layers: int = 0
    fan_in_init: bool = False
    p_drop_emb: float = 0.0
    p_drop_attn: float = 0.01
    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("p_drop_emb", "p_drop_attn"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value < 1):
                raise InputError(f"network setting {name} is {value!r}, wanted a share from 0 to below 1")
        if type(self.fan_in_init) is not bool:
            raise InputError(f"fan_in_init is {self.fan_in_init!r}, wanted true or false")
        _check_published(self)


@dataclass(frozen=True, kw_only=True)
class UNetConfig(CameraConfig):
    """Shapes and training choices of a 1D U-Net; the defaults are the published ones.

    down_dims   channels of each level; a level has half the places of the one before
    step_width  of the embedding of the noise level
    film_scale  what is known scales channels besides shifting them (the published cond_predict_scale)
    """

    down_dims: tuple[int, ...] = (256, 512, 1024)
    kernel_size: int = 5
    groups: int = 8
    step_width: int = 256
    film_scale: bool = True
    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        dims = self.down_dims
        if not (isinstance(dims, tuple) and len(dims) >= 2 and all(type(dim) is int and dim > 0 for dim in dims)):
            raise InputError(f"network setting down_dims is {dims!r}, wanted two whole numbers or more")
        super().__post_init__()
        _check_published(self)
        places = 2 ** (len(dims) - 1)
        if self.horizon % places:
            raise InputError(f"horizon {self.horizon} must divide by {places}: {len(dims)} levels halve it so often")
        for level, channels in enumerate(dims):
            if channels % self.groups or channels % 2**level or dims[max(level - 1, 0)] % 2**level:
                raise InputError(
                    f"down_dims {list(dims)}: level {level} and the one above must divide by {2**level}, and all by "
                    f"{self.groups} groups"
                )
        if self.kernel_size % 2 == 0:
            raise InputError(f"kernel_size is {self.kernel_size}, wanted an odd number")
        if self.step_width < 4 or self.step_width % 2:
            raise InputError(f"step_width is {self.step_width}, wanted an even number of at least 4")
        if type(self.film_scale) is not bool:
            raise InputError(f"film_scale is {self.film_scale!r}, wanted true or false")

    @property
    def shape(self) -> str:
        return f"channels {', '.join(map(str, self.down_dims))}"


def _check_published(config: "TransformerConfig | UNetConfig") -> None:
    """What holds for networks whose rows begin at the oldest observation, and that predict what they are told to."""
    most = config.horizon - config.n_obs_steps + 1
    if config.prediction not in PREDICTIONS:
        raise InputError(f"unknown prediction {config.prediction!r}; known: {', '.join(PREDICTIONS)}")
    if not 1 <= config.n_action_steps <= most:
        raise InputError(f"n_action_steps {config.n_action_steps} must be 1 to horizon - n_obs_steps + 1 = {most}")
    if (config.schedule == "flow") != (config.prediction == "velocity"):
        raise InputError(
            f"schedule {config.schedule} does not go with prediction {config.prediction}: flow matching predicts the "
            "velocity, and nothing else does"
        )


@dataclass(frozen=True, kw_only=True)
class AnchoredConfig(AttentionConfig):
    """Shapes and training choices of an anchored decoder; schedule and truncation are DiffusionDrive's.

    anchors       K, the chunks that denoising starts from
    stages        of the cascade, each of `layers` layers
    noised_levels trained levels 0..noised_levels - 1: the truncation
    members       share of training samples whose lanes hold chunks of the anchors' clusters in the anchors' place, so
                  that the network also knows a chunk that is no anchor, such as the previous one
    """

    width: int = 128
    layers: int = 2
    schedule: str = "scaled_linear"
    train_levels: int = 1000
    anchors: int = 20
    stages: int = 2
    noised_levels: int = 50
    members: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_action_steps > self.horizon:
            raise InputError(f"n_action_steps {self.n_action_steps} must be at most the horizon, {self.horizon}")
        if self.noised_levels > self.train_levels:
            raise InputError(f"noised_levels {self.noised_levels} must be at most train_levels, {self.train_levels}")
        if self.schedule == "flow":
            raise InputError("an anchored decoder has a trained schedule, got flow matching")
        if not 0 <= self.members <= 1:
            raise InputError(f"members is {self.members}, wanted a share from 0 to 1")
