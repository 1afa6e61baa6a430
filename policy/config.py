"""What decides a network: its shape, and the schedule and parameterisation that it is trained with."""

from dataclasses import asdict, dataclass, fields

from ..errors import InputError

PREDICTIONS = ("epsilon", "sample", "v", "velocity")
MAY_BE_ZERO = ("n_cond_layers",)


@dataclass(frozen=True, kw_only=True)
class ChunkConfig:
    """What the networks of all families have in common."""

    action_dim: int
    observation_dim: int
    horizon: int = 16  # Tp, rows of the network
    n_obs_steps: int = 2  # To
    n_action_steps: int = 8  # Ta, rows that are executed
    width: int = 256
    layers: int = 8
    heads: int = 4
    schedule: str = "squaredcos_cap_v2"
    train_levels: int = 100
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value, least = getattr(self, item.name), 0 if item.name in MAY_BE_ZERO else 1
            if item.type is int and (type(value) is not int or value < least):
                raise InputError(f"network setting {item.name} is {value!r}, wanted a whole number from {least}")
        if self.width < 4:
            raise InputError(f"width is {self.width}, wanted at least 4: the time embedding needs two frequencies")
        if self.width % self.heads or self.width % 2:
            raise InputError(f"width {self.width} must be even and divide by {self.heads} heads")

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(ChunkConfig):
    """Shapes and training choices of a diffusion transformer; the defaults are the published ones."""

    causal: bool = True
    n_cond_layers: int = 0
    p_drop_emb: float = 0.0
    p_drop_attn: float = 0.01
    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("p_drop_emb", "p_drop_attn"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value < 1):
                raise InputError(f"network setting {name} is {value!r}, wanted a share from 0 to below 1")
        if self.prediction not in PREDICTIONS:
            raise InputError(f"unknown prediction {self.prediction!r}; known: {', '.join(PREDICTIONS)}")
        if not 1 <= self.n_action_steps <= self.horizon - self.n_obs_steps + 1:
            raise InputError(
                f"n_action_steps {self.n_action_steps} must be 1 to horizon - n_obs_steps + 1 = "
                f"{self.horizon - self.n_obs_steps + 1}"
            )
        if (self.schedule == "flow") != (self.prediction == "velocity"):
            raise InputError(
                f"schedule {self.schedule} does not go with prediction {self.prediction}: flow matching predicts the "
                "velocity, and nothing else does"
            )


@dataclass(frozen=True, kw_only=True)
class AnchoredConfig(ChunkConfig):
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
