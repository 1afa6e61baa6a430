"""Robots: the contract, how actions become commands, drivers, and the suite that proves a driver."""

from .actions import ActionMap
from .contract import Limits, Observed, Robot, RobotDescription, RobotFault, Waypoint

__all__ = ["ActionMap", "Limits", "Observed", "Robot", "RobotDescription", "RobotFault", "Waypoint"]
