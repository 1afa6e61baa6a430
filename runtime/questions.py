"""A question to a policy, and what it answers: all that passes between the control loop and whatever computes.

Both are plain data, so that the policy may run in another thread or process than the loop that plays it.

Legend: L lanes asked, To, Do, Th, Da.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .contracts import FollowingPolicy, InpaintingPolicy, Policy
from .ladder import LadderPolicy


class Question(NamedTuple):
    """obs: [L, To, Do]; behind: rows of each lane's last answer that lie behind; kept: what is to be agreed with, rows
    [m, Da] and how many of them will have been played, or None; rungs: which of a ladder is to answer, or None."""

    lanes: tuple[int, ...]
    obs: np.ndarray
    behind: tuple[int, ...]
    kept: tuple[tuple[np.ndarray, int], ...] | None = None
    rungs: tuple[int, ...] | None = None


class Given(NamedTuple):
    """One lane's answer. rows: [Th, Da] float32; steps: how many of them are to be executed; calls: network calls
    that it cost; share: these, of what an answer of this plan usually costs."""

    rows: np.ndarray
    steps: int
    calls: int
    share: float


def answer(policy: Policy, question: Question) -> list[Given]:
    """The answers to a question, in the order of its lanes. Raises InputError for rows of another shape than a policy's
    are."""
    lanes = question.lanes
    if isinstance(policy, LadderPolicy) and question.rungs is not None:
        policy.take(lanes, question.rungs)
    if isinstance(policy, FollowingPolicy):
        policy.follow(lanes, question.behind)
    if isinstance(policy, InpaintingPolicy) and question.kept is not None:
        policy.inpaint(lanes, *(list(part) for part in zip(*question.kept, strict=True)))
    rows = np.asarray(policy.predict_with_tail(question.obs, lanes), dtype=np.float32)
    _check_shape(policy, rows, lanes)
    return [_given(policy, lane, of_lane) for lane, of_lane in zip(lanes, rows, strict=True)]


def _given(policy: Policy, lane: int, rows: np.ndarray) -> Given:
    asked = policy.rung_of(lane) if isinstance(policy, LadderPolicy) else policy
    if not isinstance(asked, FollowingPolicy):
        return Given(rows, asked.n_action_steps, asked.calls_per_chunk, 1.0)
    calls = asked.calls_of(lane)
    return Given(rows, asked.n_action_steps, calls, calls / asked.usual_calls if asked.usual_calls else 1.0)


def can_inpaint(policy: Policy) -> bool:
    """Whether every plan of a policy can be told what its answer is to agree with."""
    rungs = policy.rungs if isinstance(policy, LadderPolicy) else [policy]
    return all(isinstance(rung, InpaintingPolicy) for rung in rungs)


def _check_shape(policy: Policy, rows: np.ndarray, lanes: Sequence[int]) -> None:
    fits = rows.ndim == 3 and rows.shape[0] == len(lanes) and rows.shape[2] == policy.action_dim
    if not fits or rows.shape[1] < policy.n_action_steps:
        wanted = f"({len(lanes)}, {policy.n_action_steps} or more, {policy.action_dim})"
        raise InputError(f"got actions of shape {rows.shape} from the policy, wanted {wanted}: check its checkpoint")
