"""The safety gate, always on: what stands between an answer and the robot."""

from .gate import BEYOND, SafetyGate
from .model import limits_from_mujoco
from .motion import Motion

__all__ = ["BEYOND", "Motion", "SafetyGate", "limits_from_mujoco"]
