"""What the runtime asks of a policy. It sees nothing else of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Policy(Protocol):
    """Answers observations with chunks of actions, for many lanes at once.

    A lane is one independent episode: its noise is keyed by the seed of its last reset, so a lane's answers do not
    depend on which other lanes are asked in the same call.

    Shapes: L lanes asked, To observation steps, Do observation width, Ta actions to execute, Th >= Ta actions
    predicted, Da action width. All arrays are float32 and in the units of the environment, not normalised.

    A policy raises `InputError` for input of another shape. It may answer garbage but never blocks for ever; whoever
    calls it checks that the answer is finite.
    """

    n_obs_steps: int  # To
    n_action_steps: int  # Ta
    observation_dim: int  # Do
    action_dim: int  # Da
    calls_per_chunk: int  # network calls that one chunk costs

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin an episode in each lane, with the seed that keys its noise. Other lanes go on untouched."""
        ...

    def predict_with_tail(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        """obs [L, To, Do], oldest first -> actions [L, Th, Da].

        Row 0 is the action for the newest observation. Rows 0 .. Ta-1 are the chunk to execute; the rows after it
        are the tail, played only while the next answer is late; Th = Ta where a policy has none.
        """
        ...

    def predict_action_chunk(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        """obs [L, To, Do] -> the chunk to execute [L, Ta, Da]."""
        ...

    def select_action(self, obs: np.ndarray) -> np.ndarray:
        """obs [B, Do], the newest observation of lanes 0 .. B-1 -> one action each [B, Da].

        Keeps the history and the queue of actions itself: the simple way to drive a policy, without a deadline.
        """
        ...


@runtime_checkable
class FollowingPolicy(Policy, Protocol):
    """A policy whose answer follows from the lane's answer before, and whose answers do not all cost the same.

    continues: whether row 0 of an answer comes after the last row of the chunk before, whatever has been observed and
    played meanwhile, as in a queue; else it belongs to the newest observation.
    usual_calls: network calls of the answers that are timed, which others are charged in proportion to; None where the
    data decide how many they are, so that none is usual.
    """

    continues: bool

    @property
    def usual_calls(self) -> int | None: ...

    def follow(self, lanes: Sequence[int], rows: Sequence[int]) -> None:
        """Told before each question: how many rows of each lane's last answer lie behind, 0 before the first. Who does
        not tell has played the Ta rows of the chunk."""
        ...

    def calls_of(self, lane: int) -> int:
        """Network calls of the lane's last answer."""
        ...


@runtime_checkable
class InpaintingPolicy(Policy, Protocol):
    """A policy that can draw an answer that agrees with rows which are being played while it is computed."""

    def inpaint(self, lanes: Sequence[int], rows: Sequence[np.ndarray], fixed: Sequence[int]) -> None:
        """Told before a question: what the next answer is to agree with, for that answer alone. rows: for each lane
        [m, Da], m >= 0, where row 0 belongs to the newest observation; the first `fixed` of them will have been played
        when the answer comes, and the others may be changed, the later the more."""
        ...


@runtime_checkable
class AdoptingPolicy(Policy, Protocol):
    """A policy that can take over a lane whose last answer another policy gave."""

    def adopt(self, lanes: Sequence[int], last: Sequence[np.ndarray], answers: Sequence[int]) -> None:
        """Told before a question. last: [Th, Da] a lane, its last answer; answers: how many the lane has had."""
        ...
