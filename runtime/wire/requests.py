"""What a client's message asks for, checked; everything in it is foreign.

Legend: To, Do, m, Da.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .codec import WireError

OBSERVATION, OURS = "observation", "ontick"
LARGEST_NUMBER = 2**62
MOST_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question. obs: [Do], or [To, Do]; ours: whether it came with keys of ours; the others as in `Asked`."""

    obs: np.ndarray
    ours: bool
    number: int | None
    deadline_s: float | None
    seed: int | None
    behind: int
    kept: np.ndarray | None
    fixed: int
    rung: int


def read_request(message: Any, facts: Mapping[str, Any]) -> Request:
    """The question in an unpacked message, for a policy of these facts (see `Batcher.facts`). Raises WireError."""
    if not isinstance(message, dict) or OBSERVATION not in message:
        raise WireError(f"wanted a dictionary with the key {OBSERVATION!r}")
    keys = message.get(OURS, {})
    if not isinstance(keys, dict):
        raise WireError(f"the key {OURS!r} wants a dictionary")
    kept = _kept(keys.get("kept"), facts)
    return Request(
        obs=_observation(message[OBSERVATION], facts),
        ours=OURS in message,
        number=_whole(keys, "request", None),
        deadline_s=_seconds(keys, "deadline_s"),
        seed=_whole(keys, "seed", None),
        behind=_whole(keys, "behind", 0, MOST_ROWS) or 0,
        kept=kept,
        fixed=_whole(keys, "fixed", 0, 0 if kept is None else len(kept)) or 0,
        rung=_whole(keys, "rung", 0, len(facts["plans"]) - 1) or 0,
    )


def _observation(value: Any, facts: Mapping[str, Any]) -> np.ndarray:
    steps, width = facts["n_obs_steps"], facts["observation_dim"]
    obs = _numbers(value, OBSERVATION)
    if obs.shape not in ((width,), (steps, width)):
        raise WireError(f"the observation has shape {obs.shape}, wanted {(width,)} or {(steps, width)}")
    return obs


def _kept(value: Any, facts: Mapping[str, Any]) -> np.ndarray | None:
    if value is None:
        return None
    if not facts["can_inpaint"]:
        raise WireError("got rows to agree with, which this server's plans cannot be told of")
    rows, width = _numbers(value, "kept"), facts["action_dim"]
    if rows.ndim != 2 or rows.shape[1] != width or len(rows) > MOST_ROWS:
        raise WireError(f"the rows to agree with have shape {rows.shape}, wanted (rows, {width})")
    return rows


def _numbers(value: Any, what: str) -> np.ndarray:
    """Finite float32 of an array, or of a list of numbers, one deep or two."""
    if isinstance(value, list):
        flat = [number for row in value for number in (row if isinstance(row, list) else [row])]
        if not all(type(number) in (int, float) for number in flat):
            raise WireError(f"{what} holds what is no number")
        try:
            value = np.array(value, np.float64)
        except (ValueError, OverflowError):
            raise WireError(f"{what} is a list of lists of different lengths") from None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        got = f"of dtype {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise WireError(f"{what} is {got}, wanted an array of numbers")
    with np.errstate(all="ignore"):
        numbers = value.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise WireError(f"{what} holds NaN or infinity; mend the sensor")
    return numbers


def _whole(keys: Mapping[str, Any], name: str, otherwise: int | None, most: int = LARGEST_NUMBER) -> int | None:
    value = keys.get(name, otherwise)
    if value is None:
        return None
    if isinstance(value, np.integer):
        value = int(value)
    if type(value) is not int or not 0 <= value <= most:
        raise WireError(f"{OURS}.{name} is {str(value)[:40]}, wanted a whole number from 0 to {most}")
    return value


def _seconds(keys: Mapping[str, Any], name: str) -> float | None:
    value = keys.get(name)
    if value is None:
        return None
    if isinstance(value, np.number):
        value = value.item()
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise WireError(f"{OURS}.{name} is {str(value)[:40]}, wanted seconds from 0 on")
    return float(value)
