"""Numbers from whoever brings them: all finite, or none."""

from __future__ import annotations

from typing import Any

import numpy as np


def finite_numbers(data: Any, count: int) -> np.ndarray | None:
    """`data` as float64 [count], or None where it is anything else, or not finite."""
    try:
        with np.errstate(all="ignore"):
            array = np.asarray(data)
            if array.dtype.kind not in "fiu" or array.shape != (count,):
                return None
            numbers = array.astype(np.float64)
    except Exception:  # whatever an object that is asked for its numbers does
        return None
    return numbers if np.isfinite(numbers).all() else None
