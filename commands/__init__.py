"""The command line: one file a verb. The only place that wires the parts together."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..errors import InputError, RunFailed

VERBS = {
    "evaluate": "run policies in simulation: success, latency, budgets, one plan beside another",
    "demos": "collect expert demonstrations",
    "clips": "make training videos: a MuJoCo scene, a flow, sprites",
    "train": "train a diffusion policy on demonstrations",
    "convert": "turn a checkpoint of Diffusion Policy, LeRobot or robomimic into one of ours",
    "stream": "stream video without end, steered, on a page or into a file",
    "drive": "drive a robot: the simulated one in real time, or a real one",
    "serve": "serve a policy to robots over the network",
    "bundle": "pack a policy for a robot's PC",
    "doctor": "say what stands between this host and good timing",
    "calibrate": "make what a plan needs of a checkpoint: cache schedules, entry levels, drafts",
    "tune": "find the best plan that fits a latency budget on this machine",
    "bench": "time plans side by side on this machine, beside what users run today",
}


class _Parser(argparse.ArgumentParser):
    """argparse, with its usage errors told in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, where there are any and the help does not tell them itself."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.default in (None, []) or "default" in (action.help or "")
        return action.help if told else super()._get_help_string(action)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0 done, 1 failed on the way, 2 bad usage or input."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        return _told(error, 2)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ontick"):
            raise
        return _told(f'the package {error.name} is not installed; pip install "ontick[sim,drive]"', 2)
    except (RunFailed, OSError) as error:
        return _told(error, 1)
    except KeyboardInterrupt:
        return _told("interrupted; the same command goes on from what is finished", 1)


def _run(argv: list[str]) -> int:
    parser = _Parser(prog="ontick", description="Diffusion on the tick: policies and video, judged by a clock.")
    parser.add_argument("--version", action="version", version=f"ontick {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary in VERBS.items():
        sub = verbs.add_parser(verb, help=summary, formatter_class=_Formatter)
        if verb == next((a for a in argv if a in VERBS), None):  # the others are not imported: they may be heavy
            module = importlib.import_module(f".{verb}", __package__)
            sub.description = module.__doc__
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    options = parser.parse_args(argv)
    return options.run(options) or 0


def _told(what: object, code: int) -> int:
    print(f"ontick: {' '.join(str(what).split())}", file=sys.stderr)
    return code
