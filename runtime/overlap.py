"""Inference beside execution: when to ask for the next answer, and how its rows follow those that are being played.

    replace   the new rows, as they are
    blend     old and new rows, mixed with weights that fall linearly from old to new
    inpaint   the policy is told which rows will have been played, and draws an answer that agrees with them

Whatever the rule, from a seam on the command moves by at most v_max dt a tick until it has caught up with the rows.

Legend: Da, m rows that are left of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError

STITCHES = ("replace", "blend", "inpaint")
LATE = ("play", "drop", "hold")


@dataclass(frozen=True)
class Overlap:
    """What is done with answers that take time.

    stitch  None: the next answer is asked for when the chunk is over; else it is asked for earlier by as many ticks as
            answers have lately taken, and its rows are joined to the old ones by this rule
    late    what is commanded while an answer is overdue. play: the rest of the one before; hold: the last action; drop:
            the rest, and the answer that comes too late is thrown away and another asked for, but never twice in a row,
            so that a policy that is always late still acts

    Raises InputError for other words.
    """

    stitch: str | None = None
    late: str = "play"

    def __post_init__(self) -> None:
        for option, got, known in (("stitch", self.stitch, (None, *STITCHES)), ("late", self.late, LATE)):
            if got not in known:
                words = ", ".join(str(word) for word in known if word)
                raise InputError(f"got {option} {got!r}, wanted one of {words}")


def blended(old: np.ndarray, new: np.ndarray, switches: np.ndarray) -> np.ndarray:
    """new [n, Da] with its first rows mixed with old [m, Da], which would have been played at the same ticks.

    Row i of r = min(n, m) common ones is (1 - w) new + w old with w = 1 - (i + 1) / (r + 1). switches [Da]: dimensions
    that have no value between two commands, taken from the new rows.
    """
    r = min(len(old), len(new))
    w = 1 - (np.arange(r)[:, None] + 1) / (r + 1)
    mixed = np.array(new)
    mixed[:r] = np.where(switches, new[:r], (1 - w) * new[:r] + w * old[:r])
    return mixed


def limited(command: np.ndarray, last: np.ndarray, most: np.ndarray) -> np.ndarray:
    """command [Da], brought to within `most` [Da] of the last one in every dimension."""
    return np.clip(command, last - most, last + most)
