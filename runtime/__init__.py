"""The runtime: clock, budgets, ledger, charged time, the control loop, and the report of them all.

It sees a policy through `Policy` alone, and knows neither environments nor accelerators.
"""

from .budget import LatencyBudget, budget_names, load_budget
from .charge import Charge, FixedDelay, delay_ticks
from .clock import Clock, VirtualClock, WallClock
from .contracts import AdoptingPolicy, FollowingPolicy, InpaintingPolicy, Policy
from .histogram import LatencyHistogram
from .jerk import jerk
from .ladder import Ladder, LadderPolicy, measured_costs
from .ledger import Ledger
from .loop import ControlLoop
from .machine import describe_machine
from .measure import measure_latency
from .overlap import LATE, STITCHES, Overlap
from .questions import can_inpaint
from .realtime import RealTime
from .report import write_report
from .statistics import paired_difference, wilson_interval
from .trace import LatencyTrace
from .worker import Worker

__all__ = [
    "LATE",
    "STITCHES",
    "AdoptingPolicy",
    "Charge",
    "Clock",
    "ControlLoop",
    "FixedDelay",
    "FollowingPolicy",
    "InpaintingPolicy",
    "Ladder",
    "LadderPolicy",
    "LatencyBudget",
    "LatencyHistogram",
    "LatencyTrace",
    "Ledger",
    "Overlap",
    "Policy",
    "RealTime",
    "VirtualClock",
    "WallClock",
    "Worker",
    "budget_names",
    "can_inpaint",
    "delay_ticks",
    "describe_machine",
    "jerk",
    "load_budget",
    "measure_latency",
    "measured_costs",
    "paired_difference",
    "wilson_interval",
    "write_report",
]
