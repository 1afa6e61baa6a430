"""Questions and answers between the control loop and whoever computes, as records of one size in shared memory.

Legend: To, Do, Th, Da; m rows that are to be agreed with.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .card import PolicyCard
from .questions import Given, Question

FINE, REFUSED, LATE, LOST, FULL = range(5)  # what became of a question
STATES = ("fine", "refused", "late", "lost", "out of memory")
LONGEST_REASON = 160  # bytes


def question_dtype(card: PolicyCard) -> np.dtype:
    """`id` counts questions; `observed_s`, `asked_s`: when its observation was measured and it was asked; `deadline_s`:
    how long its answer is of use; `seed` of the episode, `begins`: the episode begins with it; `rung` of the ladder;
    `behind`, `kept`, `n_kept` and `fixed` are those of `Question`."""
    return np.dtype(
        [
            ("id", "i8"),
            ("time_s", "f8"),
            ("observed_s", "f8"),
            ("deadline_s", "f8"),
            ("seed", "i8"),
            ("begins", "?"),
            ("rung", "i4"),
            ("behind", "i4"),
            ("fixed", "i4"),
            ("n_kept", "i4"),
            ("kept", "f4", (card.rows, card.action_dim)),
            ("obs", "f4", (card.n_obs_steps, card.observation_dim)),
        ]
    )


def answer_dtype(card: PolicyCard) -> np.dtype:
    """`id` of its question, `time_s` when it came, `latency_s` how long it took from the asking, `device_s` how much of
    it was computing, `state` one of STATES and `reason`, why it is not fine; `discarded`: replies so far that answered
    no open question, such as late ones and copies."""
    return np.dtype(
        [
            ("id", "i8"),
            ("time_s", "f8"),
            ("latency_s", "f8"),
            ("device_s", "f8"),
            ("state", "u1"),
            ("rung", "i4"),
            ("steps", "i4"),
            ("calls", "i4"),
            ("share", "f8"),
            ("n_rows", "i4"),
            ("discarded", "i8"),
            ("reason", f"S{LONGEST_REASON}"),
            ("rows", "f4", (card.rows, card.action_dim)),
        ]
    )


class Asked(NamedTuple):
    """A question as it is sent: see `question_dtype`."""

    id: int
    time_s: float
    observed_s: float
    deadline_s: float
    seed: int
    begins: bool
    question: Question

    def record(self, dtype: np.dtype) -> np.void:
        record: Any = np.zeros((), dtype)[()]
        for name in ("id", "time_s", "observed_s", "deadline_s", "seed", "begins"):
            record[name] = getattr(self, name)
        question = self.question
        record["rung"] = -1 if question.rungs is None else question.rungs[0]
        record["behind"], record["obs"], record["fixed"], record["n_kept"] = question.behind[0], question.obs[0], -1, 0
        if question.kept is not None:
            kept, fixed = question.kept[0]
            n = min(len(kept), len(record["kept"]))
            record["kept"][:n], record["n_kept"], record["fixed"] = kept[:n], n, fixed
        return record

    @classmethod
    def of(cls, record: np.void) -> Asked:
        kept = None
        if record["fixed"] >= 0:
            kept = ((np.array(record["kept"][: record["n_kept"]]), int(record["fixed"])),)
        rungs = None if record["rung"] < 0 else (int(record["rung"]),)
        question = Question((0,), np.array(record["obs"])[None], (int(record["behind"]),), kept, rungs)
        return cls(
            int(record["id"]),
            float(record["time_s"]),
            float(record["observed_s"]),
            float(record["deadline_s"]),
            int(record["seed"]),
            bool(record["begins"]),
            question,
        )


class Told(NamedTuple):
    """An answer as it comes back: see `answer_dtype`. given: None where there is none."""

    id: int
    time_s: float
    latency_s: float
    device_s: float = 0.0
    state: int = FINE
    reason: str = ""
    rung: int = 0
    given: Given | None = None
    discarded: int = 0

    def record(self, dtype: np.dtype) -> np.void:
        record: Any = np.zeros((), dtype)[()]
        for name in ("id", "time_s", "latency_s", "device_s", "state", "rung", "discarded"):
            record[name] = getattr(self, name)
        record["reason"] = self.reason.encode()[:LONGEST_REASON]
        if self.given is not None:
            n = len(self.given.rows)
            record["rows"][:n], record["n_rows"] = self.given.rows, n
            record["steps"], record["calls"], record["share"] = self.given.steps, self.given.calls, self.given.share
        return record

    @classmethod
    def of(cls, record: np.void) -> Told:
        given = None
        if record["state"] == FINE:
            rows = np.array(record["rows"][: record["n_rows"]])
            given = Given(rows, int(record["steps"]), int(record["calls"]), float(record["share"]))
        return cls(
            int(record["id"]),
            float(record["time_s"]),
            float(record["latency_s"]),
            float(record["device_s"]),
            int(record["state"]),
            bytes(record["reason"]).decode(errors="replace"),
            int(record["rung"]),
            given,
            int(record["discarded"]),
        )
