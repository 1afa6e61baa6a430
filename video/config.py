"""What decides a video network: its shape, and the schedule and parameterisation that it is trained with."""

from dataclasses import asdict, dataclass, fields

from ..errors import InputError

PREDICTIONS = ("sample", "v", "velocity")


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """A space-time transformer. Sizes in pixels; `patch` is a token's side, `frames` the length of a training window.

    prediction  sample: x0; v; velocity: of flow matching, with schedule flow
    clip        x0 is clamped to [-clip, clip] before every solver step; None: never
    """

    channels: int = 3
    size: int = 64
    patch: int = 8
    action_dim: int = 2
    frames: int = 12
    width: int = 128
    layers: int = 6
    heads: int = 4
    schedule: str = "squaredcos_cap_v2"
    train_levels: int = 1000
    prediction: str = "sample"
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value, least = getattr(self, item.name), 0 if item.name == "action_dim" else 1
            if item.type is int and (type(value) is not int or value < least):
                raise InputError(f"network setting {item.name} is {value!r}, wanted a whole number from {least}")
        if self.size % self.patch:
            raise InputError(f"frames of {self.size} px do not divide into patches of {self.patch} px")
        if self.width % self.heads or self.width // self.heads % 2 or self.width < 8:
            raise InputError(
                f"width {self.width} and {self.heads} heads: wanted heads of an even width, and 8 at least in all"
            )
        if self.prediction not in PREDICTIONS:
            raise InputError(f"unknown prediction {self.prediction!r}; known: {', '.join(PREDICTIONS)}")
        if (self.schedule == "flow") != (self.prediction == "velocity"):
            raise InputError(
                f"schedule {self.schedule} does not go with prediction {self.prediction}: flow matching predicts the "
                "velocity, and nothing else does"
            )

    @property
    def tokens(self) -> int:
        """T, of a frame."""
        return (self.size // self.patch) ** 2

    def to_dict(self) -> dict:
        return asdict(self)
