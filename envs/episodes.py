"""Playing episodes through the control loop, many lanes to one policy call.

A lane plays its chunk to the end, then waits until the other lanes have played theirs; then one call answers them
all. Lanes do not know each other: the policy runs at a fixed width and its noise is keyed by the episode's seed, so
an episode's outcome does not depend on which episodes are played beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from ..errors import InputError
from ..runtime import Charge, ControlLoop, LatencyBudget, Ledger, Overlap, Policy, jerk
from .tasks import Task


@dataclass(frozen=True)
class Episode:
    """How one episode went. `jerk`: see `runtime.jerk`; `counts`: the control loop's, by event.

    `mode` (which of the task's ways was taken), `clearance_m` (the least gap to an obstacle) and `max_coverage` (the
    largest share of the goal that was covered) are as the task told them in the last step's `info`; None where it has
    no such thing.
    """

    index: int
    seed: int
    success: bool
    steps: int
    jerk: float
    counts: dict[str, int]
    mode: str | None = None
    clearance_m: float | None = None
    max_coverage: float | None = None
    seam_jump_max: float = 0.0  # units of the command
    rungs: dict[str, int] = field(default_factory=dict)  # ticks by the rung of a ladder whose answer was played


@dataclass
class _Lane:
    env: gymnasium.Env
    index: int
    seed: int
    actions: list[np.ndarray]


def check_fit(task: Task, policy: Policy) -> None:
    """Raises InputError where the policy is for other observations or actions than the task's."""
    got, wanted = (policy.observation_dim, policy.action_dim), (task.observation_dim, task.action_dim)
    if got != wanted:
        raise InputError(
            f"{task.id} has {wanted[0]} observations and {wanted[1]} actions, the checkpoint has {got[0]} and "
            f"{got[1]}; use a checkpoint that was trained on this task"
        )


def play(
    task: Task,
    policy: Policy,
    envs: list[gymnasium.Env],
    episodes: Iterator[tuple[int, int]],
    budget: LatencyBudget,
    charges: Sequence[Charge],
    ledger: Ledger,
    overlap: Overlap | None = None,
    on_frame: Callable[[gymnasium.Env], None] = lambda env: None,
) -> Iterator[Episode]:
    """Play `episodes`, pairs of (index, seed), one environment a lane; yields each as it ends, in no fixed order.

    `on_frame(env)` is called after every reset and step.
    """
    check_fit(task, policy)
    loop = ControlLoop(policy, len(envs), task.hold, budget, charges, ledger, overlap, task.v_max)
    lanes: list[_Lane | None] = [_begin(loop, i, env, task, episodes, on_frame) for i, env in enumerate(envs)]
    while any(lanes):
        loop.think([i for i, lane in enumerate(lanes) if lane])
        for i, lane in enumerate(lanes):
            if lane and (finished := _play_chunk(loop, i, lane, task, on_frame)):
                yield finished
                lanes[i] = _begin(loop, i, lane.env, task, episodes, on_frame)


def _begin(
    loop: ControlLoop,
    i: int,
    env: gymnasium.Env,
    task: Task,
    episodes: Iterator[tuple[int, int]],
    on_frame: Callable[[gymnasium.Env], None],
) -> _Lane | None:
    """Start the next episode in lane i; None when there is none left."""
    following = next(episodes, None)
    if following is None:
        return None
    index, seed = following
    observation, _ = env.reset(seed=seed)
    loop.begin(i, seed, observation, task.neutral(observation))
    on_frame(env)
    return _Lane(env, index, seed, [])


def _play_chunk(
    loop: ControlLoop, i: int, lane: _Lane, task: Task, on_frame: Callable[[gymnasium.Env], None]
) -> Episode | None:
    """Act until the lane wants its next answer, or the episode ends."""
    while not loop.wants_answer(i):
        action, _ = loop.act(i)
        lane.actions.append(action)
        observation, _, terminated, truncated, info = lane.env.step(action)
        on_frame(lane.env)
        if terminated or truncated:
            return _finished(lane, task, info, loop, i)
        loop.observe(i, observation)
    return None


def _finished(lane: _Lane, task: Task, info: dict[str, Any], loop: ControlLoop, i: int) -> Episode:
    """What is told of an episode, from the `info` of its last step and what the control loop counted in lane i."""
    moved = np.delete(np.stack(lane.actions), list(task.gripper_dims), axis=1)
    smoothness, counts = jerk(moved, "absolute" if task.absolute else "delta"), loop.counts(i)
    return Episode(
        lane.index,
        lane.seed,
        info["success"],
        counts["ticks"],
        smoothness,
        counts,
        info.get("mode"),
        info.get("clearance_m"),
        info.get("max_coverage"),
        loop.seam_jump_max(i),
        loop.rungs(i),
    )
