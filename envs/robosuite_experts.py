"""Scripted experts for robosuite's Lift and PickPlaceCan: they pick a thing up, and put it into its bin.

They see what a policy sees. Each step steers the hand towards the place of the present phase; a thing that was missed
or dropped is picked up again. With a style, each episode is done in a manner of its own.
"""

from dataclasses import dataclass

import numpy as np

from .rotations import quaternion_to_matrix
from .tasks import Expert

OPEN, CLOSE = -1.0, 1.0
STEP_M, STEP_RAD = 0.05, 0.5  # what an action of 1 displaces the hand's target by
GAIN = 1.6  # of what is left of the way, each step; of the turn, 1
NEAR_M, AT_M, AT_RAD = 0.02, 0.01, 0.12  # a place on the way, and one to grasp at, count as reached
STRAYED_M, LOST_M = 0.04, 0.06  # a thing beside the descending hand was pushed away; off the closed one, it slipped out
CLOSING_STEPS, OPENING_STEPS, SETTLING_STEPS = 10, 5, 10
PATIENCE_STEPS = 30  # a descent that does not arrive ends where it is
FACE_AXIS = 0  # of the hand's axes, the one along the faces of its fingers: there they have room beside the middle

# The can's quarter of the second bin in robosuite's scene, and a place in it that the arm reaches with ease.
QUARTER_M = np.array([[0.10, 0.28], [0.295, 0.525]])
PLACE_M = np.array([0.15, 0.35])
IN_BIN_Z_M, RELEASE_Z_M, OVER_WALLS_Z_M = 0.90, 0.875, 1.03

SPEED_SHARE = (0.45, 1.0)
HOVER_M = (0.05, 0.14)
RISE_M = (0.07, 0.16)
ASIDE_M = (-0.008, 0.008)
MAX_PAUSES, PAUSE_START_STEPS, PAUSE_STEPS = 2, 50, (3, 12)


@dataclass(frozen=True)
class PickStyle:
    """The manner of one episode."""

    speed_share: float  # fastest motion along an axis, as a share of the greatest possible
    hover_m: float  # above the thing, where the hand's descent begins
    rise_m: float  # how far it is lifted, beyond the walls where it must be brought over them
    aside_m: float  # how far beside its middle it is grasped, along the fingers' faces
    other_faces: bool  # the cube by those two faces that the hand has to turn farther for
    pauses: tuple[tuple[int, int], ...]  # (first step, steps), by their first steps

    @staticmethod
    def draw(rng: np.random.Generator) -> "PickStyle":
        """A style, each number of it uniform in its range; a function of the generator alone."""
        ranges = (SPEED_SHARE, HOVER_M, RISE_M, ASIDE_M)
        speed_share, hover_m, rise_m, aside_m = (float(rng.uniform(*limits)) for limits in ranges)
        other_faces = bool(rng.random() < 0.5)
        count = int(rng.integers(MAX_PAUSES, endpoint=True))
        starts = sorted(rng.integers(PAUSE_START_STEPS, size=count).tolist())
        steps = rng.integers(*PAUSE_STEPS, size=count, endpoint=True).tolist()
        pauses = tuple(zip(starts, steps, strict=True))
        return PickStyle(speed_share, hover_m, rise_m, aside_m, other_faces, pauses)


PLAIN = PickStyle(speed_share=1.0, hover_m=0.08, rise_m=0.10, aside_m=0.0, other_faces=False, pauses=())


@dataclass(frozen=True)
class Seen:
    """What an observation of either task tells, in the world: first the thing's pose, at the end the hand's and the
    fingers' places."""

    thing_m: np.ndarray  # [3]
    thing: np.ndarray  # rotation [3, 3]
    hand_m: np.ndarray  # [3]
    hand: np.ndarray  # rotation [3, 3]

    @staticmethod
    def of(observation: np.ndarray) -> "Seen":
        row = np.array(observation, np.float64)
        thing, hand = row[:7], row[-9:-2]
        return Seen(thing[:3], quaternion_to_matrix(thing[3:]), hand[:3], quaternion_to_matrix(hand[3:]))

    @property
    def hand_yaw_rad(self) -> float:
        return float(np.arctan2(self.hand[1, FACE_AXIS], self.hand[0, FACE_AXIS]))

    @property
    def thing_yaw_rad(self) -> float:
        """Of that axis of the thing which lies flattest; a cube's faces repeat every quarter turn."""
        axis = int(np.abs(self.thing[2]).argmin())
        return float(np.arctan2(self.thing[1, axis], self.thing[0, axis]))

    @property
    def apart_m(self) -> np.ndarray:
        """From the hand to the thing. [3]"""
        return self.thing_m - self.hand_m


class PickExpert:
    """One episode: observation -> action float32 [7] in [-1, 1]. Phases: above, down, close, rise; and, where the thing
    is round and has a bin to be brought to (`bring`), carry, lower, open, leave."""

    def __init__(self, style: PickStyle, bring: bool):
        self.style = style
        self.bring = bring
        self.order = ("above", "down", "close", "rise") + (("carry", "lower", "open", "leave") if bring else ())
        self.phase = ""
        self._step = self._since = 0  # since the phase began
        self._yaw_rad = 0.0  # wanted of the hand
        self._from_m = np.zeros(3)  # where the hand was when the phase began
        self._gripper = OPEN

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """The action of the next step. Call it once a step, from the episode's first on."""
        self._step += 1
        if any(start < self._step <= start + steps for start, steps in self.style.pauses):
            return np.array([0, 0, 0, 0, 0, 0, self._gripper], np.float32)
        seen = Seen.of(observation)
        if not self.phase or self._lost(seen):
            self._begin(seen)
        elif self._done(seen):
            self._enter(self.order[min(self.order.index(self.phase) + 1, len(self.order) - 1)], seen)
        self._gripper = CLOSE if self.phase in ("close", "rise", "carry", "lower") else OPEN
        self._since += 1
        return np.append(self._motion(seen), self._gripper).astype(np.float32)

    # -- the phases -------------------------------------------------------------------------------------------------

    def _begin(self, seen: Seen) -> None:
        """Go for the thing; the first time in this style's way, later in the shortest."""
        first = not self.phase
        if not self.bring:
            quarter = np.pi / 2
            turn = _wrapped(seen.thing_yaw_rad - seen.hand_yaw_rad, quarter)
            if first and self.style.other_faces:
                turn -= np.copysign(quarter, turn)
            self._yaw_rad = seen.hand_yaw_rad + turn
        elif first:
            self._yaw_rad = seen.hand_yaw_rad
        self._enter("above", seen)

    def _enter(self, phase: str, seen: Seen) -> None:
        if phase != self.phase:
            self.phase, self._since, self._from_m = phase, 0, seen.hand_m

    def _lost(self, seen: Seen) -> bool:
        if self.phase == "down":
            return float(np.hypot(*(self._goal_m(seen) - seen.hand_m)[:2])) > STRAYED_M
        if self.phase in ("rise", "carry", "lower"):
            return float(np.linalg.norm(seen.apart_m)) > LOST_M
        return self.phase == "leave" and self._since >= SETTLING_STEPS and not _in_bin(seen.thing_m)

    def _done(self, seen: Seen) -> bool:
        way_m = self._goal_m(seen) - seen.hand_m
        across_m, up_m = float(np.hypot(*way_m[:2])), abs(float(way_m[2]))
        if self.phase == "above":
            turned = abs(_wrapped(self._yaw_rad - seen.hand_yaw_rad, 2 * np.pi)) < AT_RAD
            return across_m < NEAR_M and up_m < NEAR_M and turned
        if self.phase in ("down", "lower"):
            return float(np.linalg.norm(way_m)) < AT_M or self._since >= PATIENCE_STEPS
        if self.phase in ("close", "open"):
            return self._since >= (CLOSING_STEPS if self.phase == "close" else OPENING_STEPS)
        return across_m < NEAR_M and up_m < NEAR_M

    def _goal_m(self, seen: Seen) -> np.ndarray:
        """Where the hand shall be in this phase. [3]"""
        over_m = OVER_WALLS_Z_M + self.style.rise_m - RISE_M[0]
        if self.phase in ("above", "down"):
            up = np.array([0.0, 0.0, self.style.hover_m if self.phase == "above" else 0.0])
            return seen.thing_m + self.style.aside_m * seen.hand[:, FACE_AXIS] + up
        if self.phase in ("rise", "leave"):
            high_m = over_m if self.bring else self._from_m[2] + self.style.rise_m
            return np.append(self._from_m[:2], high_m)
        if self.phase == "carry":
            return np.append(PLACE_M, over_m)
        if self.phase == "lower":
            return np.append(PLACE_M, seen.hand_m[2] + RELEASE_Z_M - seen.thing_m[2])
        return self._from_m

    # -- the motion -------------------------------------------------------------------------------------------------

    def _motion(self, seen: Seen) -> np.ndarray:
        """Towards the goal, straight; the hand upright and turned as wanted. [6] in [-1, 1]"""
        move = GAIN * (self._goal_m(seen) - seen.hand_m) / STEP_M
        turn = np.cross(seen.hand[:, 2], [0.0, 0.0, -1.0])  # the tilt's sine, about the axis that undoes it
        turn[2] += _wrapped(self._yaw_rad - seen.hand_yaw_rad, 2 * np.pi)
        return np.concatenate([self._slowed(move), self._slowed(turn / STEP_RAD)])

    def _slowed(self, motion: np.ndarray) -> np.ndarray:
        """At most this style's speed along each axis, in the same direction."""
        return motion * (self.style.speed_share / max(float(np.abs(motion).max()), self.style.speed_share))


def pick_expert(name: str, rng: np.random.Generator | None) -> Expert:
    """The expert of one episode of Lift or PickPlaceCan, in a style drawn from `rng`; without, the plain one."""
    return PickExpert(PLAIN if rng is None else PickStyle.draw(rng), bring=name == "PickPlaceCan")


def _in_bin(thing_m: np.ndarray) -> bool:
    inside = (QUARTER_M[0] < thing_m[:2]) & (thing_m[:2] < QUARTER_M[1])
    return bool(inside.all() and thing_m[2] < IN_BIN_Z_M)


def _wrapped(angle_rad: float, period_rad: float) -> float:
    """Within half a period of 0."""
    return float((angle_rad + period_rad / 2) % period_rad - period_rad / 2)
