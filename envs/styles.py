"""A manner of its own for each episode of a scripted Meta-World expert: its speed, its approach, its pauses, its grasp.

The script stays as it is, and one wrapper serves all tasks. The script is shown a hand that is a little beside its true
place, so that it brings the true hand to the other side; and its action is slowed, or held back for a pause.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from .tasks import Expert

# The ranges. docs/experts.md has the share of episodes that still succeed with them.
SPEED_SHARE = (0.4, 1.0)
TIMED_SPEED_SHARE = (0.65, 1.0)
LIFT_M = (0.0, 0.10)
GRASP_OFFSET_M = (-0.01, 0.01)
MAX_PAUSES = 3
PAUSE_START_STEPS = 150  # a pause starts within that many steps
PAUSE_STEPS = (5, 25)

# Scripts that switch the gripper on the way down and count on how far the hand gets while the fingers close, or that
# insert or sweep with momentum: slowed throughout, they failed clearly more often than they do plainly.
TIMED = frozenset(
    f"{name}-v3"
    for name in (
        "assembly",
        "basketball",
        "box-close",
        "coffee-pull",
        "peg-insert-side",
        "shelf-place",
        "stick-pull",
        "stick-push",
        "sweep",
        "sweep-into",
    )
)
# Here the hand pulls the plate from behind without coming near its middle, and a lift would not end.
NOT_LIFTED = frozenset({"plate-slide-back-v3"})
HANDLING_STEPS = 30  # timed scripts have their own speed from the arrival, and from each switch of the gripper
NEAR_M = 0.05  # horizontally, to the object: the approach is over
LIFTED_M = 0.01  # a lift is complete this far below its height
LIFT_STEPS = 40  # a lift that the workspace does not allow is given up
ASIDE_SHARE = 0.2  # of the script's horizontal motion, while the hand rises
MOVED_M = 0.01  # an object that has moved this far has been reached


@dataclass(frozen=True)
class Style:
    """The manner of one episode."""

    speed_share: float  # largest motion along an axis, as a share of the greatest possible, 1 cm a step
    lift_m: float  # how far the hand rises before it travels to the object; it stays higher until it is near
    grasp_offset_m: float  # how far beside the script's place the hand works, along x
    pauses: tuple[tuple[int, int], ...]  # (first step, steps), by their first steps

    @staticmethod
    def draw(rng: np.random.Generator, timed: bool = False) -> "Style":
        """A style, each number of it uniform in its range; a function of the generator alone."""
        ranges = (TIMED_SPEED_SHARE if timed else SPEED_SHARE, LIFT_M, GRASP_OFFSET_M)
        speed_share, lift_m, grasp_offset_m = (float(rng.uniform(*limits)) for limits in ranges)
        count = int(rng.integers(MAX_PAUSES, endpoint=True))
        starts = sorted(rng.integers(PAUSE_START_STEPS, size=count).tolist())
        steps = rng.integers(*PAUSE_STEPS, size=count, endpoint=True).tolist()
        return Style(speed_share, lift_m, grasp_offset_m, tuple(zip(starts, steps, strict=True)))


class StyledExpert:
    """A scripted expert with a style, for one episode: observation [39] -> action float32 [4] in [-1, 1].

    A `timed` script keeps its own speed, without pauses, while it handles an object (see TIMED).
    """

    def __init__(self, script: Expert, style: Style, timed: bool = False):
        self.script, self.style, self.timed = script, style, timed
        self._step = 0
        self._first_object: np.ndarray | None = None  # its position at the episode's start, [3]
        self._first_height_m = 0.0
        self._approaching = self._lifting = True
        self._gripper: float | None = None  # its last command
        self._handling_step = -HANDLING_STEPS  # when it last arrived at the object or switched its gripper

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """The action of the next step. Call it once a step, from the episode's first on."""
        wanted = self._lifted(self.script(self._shown(observation)), float(observation[2]))
        if self._gripper is not None and wanted[3] != self._gripper:
            self._handling_step = self._step
        if not self.timed or self._step - self._handling_step >= HANDLING_STEPS:
            wanted = self._slowed(wanted)
        self._gripper, self._step = float(wanted[3]), self._step + 1
        return wanted

    def _shown(self, observation: np.ndarray) -> np.ndarray:
        """A copy of the observation with the hand displaced against where it shall be brought."""
        shown = np.array(observation, np.float64)
        hand, thing = shown[:3], shown[4:7].copy()
        if self._first_object is None:
            self._first_object, self._first_height_m = thing, float(hand[2])
        far_m = float(np.hypot(*(thing - hand)[:2]))
        if self._approaching and (far_m < NEAR_M or np.linalg.norm(thing - self._first_object) > MOVED_M):
            self._approaching, self._handling_step = False, self._step
        hand[0] -= self.style.grasp_offset_m
        if self._approaching:
            hand[2] -= self.style.lift_m
        return shown

    def _lifted(self, wanted: np.ndarray, height_m: float) -> np.ndarray:
        """The action with the hand rising, until it is a lift above its first height.

        What the script is shown is not enough: it would rise on the way, and be there before it is up.
        """
        low = height_m < self._first_height_m + self.style.lift_m - LIFTED_M
        self._lifting = self._lifting and self._approaching and low and self._step < LIFT_STEPS
        if not self._lifting:
            return wanted
        return np.array([*(ASIDE_SHARE * wanted[:2]), 1.0, wanted[3]], np.float32)

    def _slowed(self, wanted: np.ndarray) -> np.ndarray:
        """The action at this style's speed, in the same direction; no motion in a pause, the gripper as it was."""
        paused = any(start <= self._step < start + steps for start, steps in self.style.pauses)
        fastest = float(np.abs(wanted[:3]).max())
        share = 0.0 if paused else self.style.speed_share / max(fastest, self.style.speed_share)
        gripper = self._gripper if paused and self._gripper is not None else wanted[3]
        return np.append(wanted[:3] * share, gripper).astype(np.float32)


def styled_expert(name: str, script: Expert, rng: np.random.Generator) -> StyledExpert:
    """The script of the task `name`, such as pick-place-v3, with a style drawn from `rng`, for one episode."""
    style = Style.draw(rng, name in TIMED)
    if name in NOT_LIFTED:
        style = dataclasses.replace(style, lift_m=0.0)
    return StyledExpert(script, style, name in TIMED)
