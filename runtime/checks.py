"""What the control loop lets in: observations that fit the policy, and answers that may reach an actuator."""

from __future__ import annotations

import numpy as np

from ..errors import InputError


def checked(observation: np.ndarray, width: int, where: str) -> np.ndarray:
    """[Do] float32. Raises InputError, naming `where`, for another shape than (width,) and for NaN or infinity."""
    array = np.asarray(observation, dtype=np.float32)
    if array.shape != (width,):
        fix = "use the policy that was trained for this task"
        raise InputError(f"{where}: got an observation of shape {array.shape}, wanted ({width},): {fix}")
    if not np.isfinite(array).all():
        bad = ", ".join(str(index) for index in np.flatnonzero(~np.isfinite(array))[:8])
        fix = "check the sensor or the simulation"
        raise InputError(f"{where}: got NaN or infinity in the observation at {bad}, wanted finite numbers: {fix}")
    return array


def refuse_not_finite(rows: np.ndarray, where: str) -> None:
    """Raises InputError, naming `where`, for an answer that must not reach an actuator."""
    if not np.isfinite(rows).all():
        fix = "check the checkpoint and its normaliser"
        raise InputError(f"{where}: got NaN or infinity from the policy, wanted finite actions: {fix}")
