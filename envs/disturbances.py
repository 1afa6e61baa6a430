"""Disturbances of an episode: a push, late observations, lost actions. Any task can be played with them.

What happens, and when, is a function of the episode's seed and of nothing else: of neither the policy, nor the
environment's own generator, nor the other disturbances. So a disturbed episode begins exactly as the plain one, and
every plan meets the same disturbances.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .tasks import Task

PUSH_WINDOW_STEPS = (5, 40)  # the first and the last step before which a push may come
DEFAULTS = {"push": 0.03, "delay": 2, "drop": 0.1}  # m, steps, probability
_PUSH_STREAM, _DROP_STREAM = 0x9057, 0xD309  # of a seed: apart from each other, and from what else is drawn from it


@dataclass(frozen=True)
class Disturbance:
    """What disturbs an episode; all zero is nothing.

    push_m: once an episode, before a step drawn evenly from PUSH_WINDOW_STEPS, the object is displaced by this far in
    an even horizontal direction; the tool is, where the task has no object that is free to move (`env.push` decides).
    delay_steps: the policy sees the observation of so many steps ago; until there is one, the first of the episode.
    drop_probability: of each action, on its own, not to be executed: `Task.hold` of the one before is, in its place.
    """

    push_m: float = 0.0
    delay_steps: int = 0
    drop_probability: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.push_m) and self.push_m >= 0):
            raise InputError(f"got push={self.push_m!r}, wanted metres from 0, such as push={DEFAULTS['push']}")
        if type(self.delay_steps) is not int or self.delay_steps < 0:
            raise InputError(f"got delay={self.delay_steps!r}, wanted whole steps from 0, such as delay=2")
        if not 0 <= self.drop_probability <= 1:
            raise InputError(f"got drop={self.drop_probability!r}, wanted a probability from 0 to 1, such as drop=0.1")

    @classmethod
    def parse(cls, text: str) -> "Disturbance":
        """From text such as `push` or `push=0.05,delay=1,drop=0.2`; see DEFAULTS for what no number means."""
        strengths: dict[str, Any] = {}
        for part in text.split(","):
            name, given, number = (piece.strip() for piece in part.partition("="))
            if name not in DEFAULTS:
                raise InputError(f"got disturbance {part.strip()!r}, wanted push, delay or drop, joined with commas")
            if name in strengths:
                raise InputError(f"got {name} twice in {text!r}, wanted each disturbance once")
            strengths[name] = _number(name, number) if given else DEFAULTS[name]
        return cls(strengths.get("push", 0.0), strengths.get("delay", 0), strengths.get("drop", 0.0))

    def __str__(self) -> str:
        """The one text of equal disturbances, which `parse` reads; empty where there are none."""
        strengths = {"push": self.push_m, "delay": self.delay_steps, "drop": self.drop_probability}
        return ",".join(f"{name}={strength}" for name, strength in strengths.items() if strength)


class DisturbedEnv(gymnasium.Wrapper):
    """An environment of `task` with a disturbance. Rewards and `info` tell the true state, whatever the policy sees.

    `info["disturbed"]`: whether the push or a drop has taken place in this episode so far.
    """

    def __init__(self, env: gymnasium.Env, task: Task, disturbance: Disturbance) -> None:
        super().__init__(env)
        self.task, self.disturbance = task, disturbance

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the episode of `seed`, which is the environment's own draw, told in `info["seed"]`, where None."""
        observation, info = self.env.reset(seed=seed, options=options)
        drawn_seed: int = info["seed"] if seed is None else seed
        push, self._drops = (np.random.default_rng([drawn_seed, stream]) for stream in (_PUSH_STREAM, _DROP_STREAM))
        self._push_step = int(push.integers(*PUSH_WINDOW_STEPS, endpoint=True))
        angle = push.uniform(0.0, 2 * np.pi)
        self._push_xy_m = self.disturbance.push_m * np.array([np.cos(angle), np.sin(angle)])
        self._executed = self.task.neutral(observation)
        # The oldest of these is what is seen; there are always delay_steps newer ones behind it.
        wanted = self.disturbance.delay_steps + 1
        self._observations = deque([observation] * wanted, maxlen=wanted)
        self._steps, self._disturbed = 0, False
        return observation, {**info, "disturbed": False}

    def step(self, action: NDArray[Any]) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step, as the environment's own, with what disturbs it."""
        if self.disturbance.push_m and self._steps == self._push_step:
            self.env.unwrapped.push(self._push_xy_m)  # type: ignore[attr-defined]
            self._disturbed = True
        if self._drops.random() < self.disturbance.drop_probability:
            action = self.task.hold(self._executed)
            self._disturbed = True
        self._executed = np.asarray(action, np.float32)
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._observations.append(observation)
        self._steps += 1
        return self._observations[0], reward, terminated, truncated, {**info, "disturbed": self._disturbed}


def make_disturbed(task: Task, disturbance: Disturbance, **options: Any) -> gymnasium.Env:
    """The task's environment with the disturbance, or the plain one where it is nothing; options as in `Task.make`."""
    env = task.make(**options)
    return DisturbedEnv(env, task, disturbance) if disturbance != Disturbance() else env


def _number(name: str, text: str) -> float | int:
    try:
        return int(text) if name == "delay" else float(text)
    except ValueError:
        kind = "a whole number of steps" if name == "delay" else "a number"
        raise InputError(f"got {name}={text}, wanted {kind}, such as {name}={DEFAULTS[name]}") from None
