"""The mathematics: schedules, grids, the staircase, solvers, plans, programs and how to run them.

Every sampler of the field is four choices: a Grid (which levels a position visits), a Stagger (how many steps a
block lags behind the one before), a Birth (what a position holds on entry) and a View (which positions a network
call sees). A Plan names the four, `build` compiles it for a denoiser into a static Program, an executor runs it.

    program = build(denoiser, load_plan("ddim-10"), shape=(action_dim,), positions=16)
    chunk = run_chunk(program, program.prepare(obs), seed, birth)     # [B, 16, action_dim]
"""

from .births import shifted
from .contracts import Affine, Anatomy, Asked, Block, Denoiser, Layer, Prediction, Rows
from .executors import Chunk, Eager, Executor, Spent, Start, begin, run_chunk, run_scored_chunk, run_stream, unroll
from .grids import Grid
from .guidance import Guidance, guided, soft_mask
from .names import known_plans, load_plan, named_plan, plan_names, queue_grid
from .noise import keyed_normal
from .plans import GridSpec, GuessSpec, Plan, save_plan
from .programs import Inputs, Look, Outputs, Program, State, build
from .schedules import Schedule, schedule
from .solvers import Table, solver_table
from .staircase import Staircase
from .steps import History, solver_step

__all__ = [
    "Affine",
    "Anatomy",
    "Asked",
    "Block",
    "Chunk",
    "Denoiser",
    "Eager",
    "Executor",
    "Grid",
    "GridSpec",
    "GuessSpec",
    "Guidance",
    "History",
    "Inputs",
    "Layer",
    "Look",
    "Outputs",
    "Plan",
    "Prediction",
    "Program",
    "Rows",
    "Schedule",
    "Spent",
    "Staircase",
    "Start",
    "State",
    "Table",
    "begin",
    "build",
    "guided",
    "keyed_normal",
    "known_plans",
    "load_plan",
    "named_plan",
    "plan_names",
    "queue_grid",
    "run_chunk",
    "run_scored_chunk",
    "run_stream",
    "save_plan",
    "schedule",
    "shifted",
    "soft_mask",
    "solver_step",
    "solver_table",
    "unroll",
]
