"""A robot's limits, as far as its model knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ..robots.contract import Limits

JOINT_TRANSMISSIONS = (0, 1)  # mjTRN_JOINT and mjTRN_JOINTINPARENT; tendons, sites and bodies have no range


def limits_from_mujoco(
    model: Any,
    speed: float | Sequence[float],
    acceleration: float | Sequence[float],
    jerk: float | Sequence[float],
) -> Limits:
    """Limits of a robot that is commanded by its actuators, from a `mujoco.MjModel`.

    An actuator's control range is taken, or where that is unlimited the range of the joint that it
    moves, times its gear. A model knows no speed, acceleration and jerk: one number each, or one an actuator.

    Raises InputError for a model without actuators, and for one whose actuators and joints are unlimited.
    """
    count = int(model.nu)
    if not count:
        raise InputError("the model has no actuators, wanted a model of a robot with some")
    low, high = zip(*(_range(model, actuator) for actuator in range(count)), strict=True)
    rates = []
    for name, given in (("speed", speed), ("acceleration", acceleration), ("jerk", jerk)):
        numbers = np.asarray(given, np.float64)
        if numbers.shape not in ((), (count,)):
            raise InputError(
                f"got {name} of shape {numbers.shape}, wanted one number, or one for each of {count} actuators"
            )
        rates.append(np.broadcast_to(numbers, count).copy())
    return Limits(low=np.array(low), high=np.array(high), speed=rates[0], acceleration=rates[1], jerk=rates[2])


def _range(model: Any, actuator: int) -> tuple[float, float]:
    if model.actuator_ctrllimited[actuator]:
        low, high = model.actuator_ctrlrange[actuator]
        return float(low), float(high)
    joint, gear = int(model.actuator_trnid[actuator, 0]), float(model.actuator_gear[actuator, 0])
    if model.actuator_trntype[actuator] in JOINT_TRANSMISSIONS and model.jnt_limited[joint] and gear:
        low, high = sorted(gear * float(end) for end in model.jnt_range[joint])
        return low, high
    name = model.actuator(actuator).name or actuator
    raise InputError(f"actuator {name} has no limits in the model: give it a ctrlrange, or its joint a range")
