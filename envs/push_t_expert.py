"""An expert for Push-T by sampling-based predictive control: it tries pushes in simulation and does the best one.

A push is three numbers: where on the T, at what angle to its surface, how far. At a decision many are drawn, the tool's
way round the T is laid to each, all are simulated with MuJoCo's `rollout`, and the best are drawn again around (one
round of the cross-entropy method). What is done stays a candidate, so a push is gone through with until something is
clearly better. The cost is the mean distance of the T's keypoints from the goal's, at the end and over the horizon.

The draws are the same at every decision, so that what is done is a function of what is seen, which a policy can learn;
only where they do not help for a while, others are tried.

Each way of pushing turns and shifts the T differently, and together they span all of its motions, so that some push
always brings the keypoints nearer: the short look ahead does not get stuck.

Legend: B candidates, H steps of the horizon.
"""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from .push_t import (
    SUBSTEPS,
    TICK_S,
    action_of,
    gap_m,
    joints_of,
    make_model,
    mujoco,
    pose_from_joints,
)
from .push_t_paths import Track
from .push_t_shape import CENTRE_M, GOAL, KEYPOINTS_M, SIDE_M, Floats, coverage, placed, pose_of, unplaced
from .tasks import Expert

rollout: Any = importlib.import_module("mujoco.rollout")

HORIZON = 28  # steps
EVERY = 2  # steps between decisions
FRESH, STRAIGHT, ELITE, AROUND = 28, 12, 4, 4  # candidates: pushes, moves straight on, the best, drawn around each
END_SHARE = 0.6  # of the cost: the distance at the horizon's end, not on the way
ANGLE_RAD = 0.35  # standard deviation from the surface's normal
LENGTH_M = (0.002, 0.16)  # of a push, its logarithm drawn evenly
SPREAD = (0.012, 0.15, 0.3)  # around a good push: place [m], angle [rad], logarithm of the length
ARRIVED_M = 0.005  # from its last target: then a plan is done
LEAD_S = 0.1  # by which the target is ahead, as the tool lags behind it
ENOUGH = 0.965  # of the goal, to rest
NEARER_M, PATIENT = 0.002, 8  # decisions without that much progress, until other candidates are tried


@dataclass(frozen=True)
class PushTStyle:
    """How one episode is done."""

    travel_m_per_s: float
    push_m_per_s: float
    clearance_m: float  # between tool and T on the way to a push
    side_rad: float  # from where, in the T's frame, it likes to push
    liking: float  # of that side: how much more a push from the other one must bring, as a share of what is left
    temperature: float  # how often it takes another than the best, as a share of the distance left
    patience: float  # how much better another push must be to give up this one, as such a share

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "PushTStyle":
        """Each number is drawn evenly, on its own."""
        return cls(
            travel_m_per_s=rng.uniform(0.25, 0.4),
            push_m_per_s=rng.uniform(0.14, 0.25),
            clearance_m=rng.uniform(0.010, 0.020),
            side_rad=rng.uniform(-np.pi, np.pi),
            liking=rng.uniform(0.0, 0.03),
            temperature=rng.uniform(0.0, 0.01),
            patience=rng.uniform(0.03, 0.08),
        )


PLAIN = PushTStyle(0.35, 0.2, 0.014, side_rad=0.0, liking=0.0, temperature=0.0, patience=0.05)


def push_t_expert(rng: np.random.Generator | None, threads: int = 1) -> Expert:
    """The expert of one episode, in a style drawn from `rng`; without, always in the one plain style.

    It sees what a policy sees [20] and keeps what a policy could infer: the tool's velocity, from its places. The
    actions are float32 [2] in [-1, 1], the same ones for any number of threads.
    """
    style = PLAIN if rng is None else PushTStyle.draw(rng)
    return _Expert(style, np.random.default_rng(0) if rng is None else rng, threads)


@dataclass(frozen=True)
class _Plan:
    """Targets of the tool [H, 2] m, and the push that they do: place along the track [m], angle [rad], ln(length/m)."""

    targets_m: Floats
    push: Floats | None = None

    def after_a_step(self) -> "_Plan":
        return _Plan(np.concatenate([self.targets_m[1:], self.targets_m[-1:]]), self.push)


class _Expert:
    def __init__(self, style: PushTStyle, rng: np.random.Generator, threads: int):
        self.style, self.rng = style, rng
        self.track = Track(style.clearance_m)
        self.simulator = _Simulator(threads)
        self.tool_m: Floats | None = None  # where it was a step ago
        self.velocity = np.zeros(2)  # [m/s]
        self.plan: _Plan | None = None
        self.steps = 0
        self.nearest_m, self.waited, self.rounds = np.inf, 0, 0
        self.draws = np.random.default_rng(0)  # begun anew at every decision

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        observation = np.array(observation, np.float64)
        pose, tool_m = pose_of(observation[:18].reshape(9, 2)), observation[18:]
        if self.tool_m is not None:
            self.velocity = self.simulator.velocity_after(tool_m - self.tool_m, self.velocity)
        self.tool_m = tool_m
        return np.clip(action_of(self._target_m(tool_m, pose)), -1.0, 1.0)

    def _target_m(self, tool_m: Floats, pose: Floats) -> Floats:
        if coverage(pose) > ENOUGH:
            self.plan = None
            return self._beside(tool_m, pose)
        if self.plan is None or self.steps % EVERY == 0:
            self.plan = self._decide(tool_m, pose)
        target_m = self.plan.targets_m[0]
        self.plan = self.plan.after_a_step()
        self.steps += 1
        return target_m

    def _beside(self, tool_m: Floats, pose: Floats) -> Floats:
        """Where to rest: here, or just off the T. [2] m"""
        if gap_m(tool_m, pose) >= self.style.clearance_m:
            return tool_m
        return placed(self.track.nearest(unplaced(tool_m[None], pose)[0])[None], pose)[0]

    def _decide(self, tool_m: Floats, pose: Floats) -> _Plan:
        """What to do from here on, which may be what was being done."""
        self._look_for_progress(_distance(pose))
        self.draws = np.random.default_rng(self.rounds)
        kept = [] if self.plan is None else [self.plan]
        pushes = [self._drawn_push() for _ in range(FRESH)]
        if self.plan is not None and self.plan.push is not None:
            pushes += self._drawn_around(self.plan.push)
        plans = [*kept, *self._straight(tool_m), *(self._pushing(push, tool_m, pose) for push in pushes)]
        costs = self._costs(plans, tool_m, pose)
        best = [push for i in costs.argsort() if (push := plans[i].push) is not None][:ELITE]
        around = [push for good in best for push in self._drawn_around(good)]
        further = [self._pushing(push, tool_m, pose) for push in around]
        costs = np.concatenate([costs, self._costs(further, tool_m, pose)])
        is_under_way = bool(kept) and np.hypot(*(kept[0].targets_m[-1] - tool_m)) > ARRIVED_M
        return [*plans, *further][self._chosen(costs, is_under_way, _distance(pose))]

    def _look_for_progress(self, left_m: float) -> None:
        """Try other candidates where the same ones have brought the T no nearer for a while."""
        if left_m < self.nearest_m - NEARER_M:
            self.nearest_m, self.waited = left_m, 0
        self.waited += 1
        if self.waited > PATIENT:
            self.rounds, self.waited = self.rounds + 1, 0

    def _chosen(self, costs: Floats, is_under_way: bool, left_m: float) -> int:
        """The index of the plan to follow: the first, while it is under way, unless another is clearly better."""
        if is_under_way and costs[0] - self.style.patience * left_m <= costs.min():
            return 0
        if self.style.temperature == 0:
            return int(costs.argmin())
        weights = np.exp((costs.min() - costs) / (self.style.temperature * left_m))
        return int(self.rng.choice(len(costs), p=weights / weights.sum()))

    def _costs(self, plans: list[_Plan], tool_m: Floats, pose: Floats) -> Floats:
        """[B] m, see the module; with the style's dislike of the other side."""
        distances_m = self.simulator.distances(np.stack([p.targets_m for p in plans]), tool_m, self.velocity, pose)
        costs = END_SHARE * distances_m[:, -1] + (1 - END_SHARE) * distances_m.mean(1)
        if self.style.liking:
            dislikes = np.array([0.0 if p.push is None else self._dislike(p.push) for p in plans])
            costs += self.style.liking * dislikes * _distance(pose)
        return costs

    def _dislike(self, push: Floats) -> float:
        """0 for a push from the side that it likes, 1 for one from the other."""
        place_m = self.track.place(push[0])[0] - CENTRE_M
        return (1 - np.cos(np.arctan2(place_m[1], place_m[0]) - self.style.side_rad)) / 2

    def _drawn_push(self) -> Floats:
        low, high = np.log(LENGTH_M)
        place_m = self.draws.uniform(0.0, self.track.length_m)
        return np.array([place_m, ANGLE_RAD * self.draws.standard_normal(), self.draws.uniform(low, high)])

    def _drawn_around(self, push: Floats) -> list[Floats]:
        return [push + SPREAD * self.draws.standard_normal(3) for _ in range(AROUND)]

    def _pushing(self, push: Floats, tool_m: Floats, pose: Floats) -> _Plan:
        """Round the T to where the push starts, then through the T's surface by its length."""
        start_m, inward = self.track.place(push[0])
        cos, sin = np.cos(push[1]), np.sin(push[1])
        direction = np.array([cos * inward[0] - sin * inward[1], sin * inward[0] + cos * inward[1]])
        end_m = start_m + (self.style.clearance_m + np.exp(push[2])) * direction
        way_m = np.array([*self.track.way(unplaced(tool_m[None], pose)[0], start_m), end_m])
        return _Plan(self._timed(placed(way_m, pose)), push)

    def _straight(self, tool_m: Floats) -> list[_Plan]:
        """Moves straight on from where the tool is: half of them nearly as it moves already, half anywhere."""
        heading = np.arctan2(self.velocity[1], self.velocity[0]) + 0.3 * self.draws.standard_normal(STRAIGHT)
        heading[STRAIGHT // 2 :] = self.draws.uniform(-np.pi, np.pi, STRAIGHT - STRAIGHT // 2)
        lengths_m = np.exp(self.draws.uniform(np.log(LENGTH_M[0]), np.log(LENGTH_M[1]), STRAIGHT))
        ends_m = tool_m + lengths_m[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
        return [_Plan(self._timed(np.stack([tool_m, end_m]))) for end_m in ends_m]

    def _timed(self, way_m: Floats) -> Floats:
        """Targets along a way [W, 2] m, the last part of which is a push. [H, 2] m"""
        durations_s = np.hypot(*np.diff(way_m, axis=0).T) / self.style.travel_m_per_s
        durations_s[-1] *= self.style.travel_m_per_s / self.style.push_m_per_s
        at_s = np.concatenate([[0.0], np.cumsum(durations_s)])
        times_s = LEAD_S + TICK_S * np.arange(1, HORIZON + 1)
        targets_m = np.stack([np.interp(times_s, at_s, way_m[:, i]) for i in range(2)], -1)
        return np.clip(targets_m, 0.0, SIDE_M)


class _Simulator:
    """What happens, for many plans at once. A function of its arguments, whatever the number of threads."""

    def __init__(self, threads: int):
        self._model = make_model()
        self._data = [mujoco.MjData(self._model) for _ in range(threads)]
        (self._far, self._swift), (self._near, self._kept) = self._moved(target_m=1.0), self._moved(velocity=1.0)

    def distances(self, targets_m: Floats, tool_m: Floats, velocity: Floats, pose: Floats) -> Floats:
        """Mean distance of the keypoints from the goal's after each step, from a T at rest. [B, H, 2] m -> [B, H] m"""
        state = np.concatenate([[0.0], joints_of(tool_m, pose), velocity, np.zeros(3)])  # time, qpos, qvel
        controls = np.repeat(targets_m, SUBSTEPS, axis=1)
        states, _ = rollout.rollout(self._model, self._data, state[None], controls, persistent_pool=len(self._data) > 1)
        return _distance(pose_from_joints(states[:, SUBSTEPS - 1 :: SUBSTEPS, 1:6]))

    def velocity_after(self, moved_m: Floats, velocity: Floats) -> Floats:
        """The tool's velocity [2] m/s after a step from how far it moved [2] m and its velocity before [2].

        The tool is linear, moved = far (target - place) + near velocity, which tells the target that it followed: noise
        on the action included.
        """
        offset_m = (moved_m - self._near * velocity) / self._far
        return self._swift * offset_m + self._kept * velocity

    def _moved(self, target_m: float = 0.0, velocity: float = 0.0) -> tuple[float, float]:
        """How far a free tool comes in a step along x, and how fast it is then."""
        data, far_away_m = self._data[0], 5.0
        mujoco.mj_resetData(self._model, data)
        data.qpos[:2], data.qvel[0] = far_away_m, velocity
        data.ctrl[:] = far_away_m + target_m, far_away_m
        mujoco.mj_step(self._model, data, SUBSTEPS)
        return float(data.qpos[0] - far_away_m), float(data.qvel[0])


_GOAL_KEYPOINTS_M = placed(KEYPOINTS_M, GOAL)


def _distance(pose: Floats) -> Any:
    """Mean distance of the keypoints from the goal's, of poses. [..., 3] -> [...] m"""
    return np.linalg.norm(placed(KEYPOINTS_M, pose) - _GOAL_KEYPOINTS_M, axis=-1).mean(-1)
