"""Drive a robot: the simulated one, in real time in a process of its own, or a real one that a YAML file describes.

    ontick drive sim
    ontick drive sim --seconds 60 --fault server-killed --json runs/fault.json
    ontick drive arm.yaml --policy ws://gpu:8000 --token-env TOKEN --record runs/recordings

The controller has a process of its own, and inference another. Ctrl-C brings the robot to rest and ends.
"""

import argparse
import dataclasses
import importlib.util
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, RunFailed
from ..files import check_place, write_whole
from ..runtime import STITCHES, describe_machine
from ..runtime.driving import DriveSettings, Driving
from ..runtime.faults import FAULTS
from ..runtime.inference import Inference
from ..runtime.rings import Ring
from ..runtime.robots import Robot
from .bundle import is_bundle, open_bundle
from .families import check_device
from .fault_making import FaultMaker, served_source, usual_seconds
from .progress import progress_bar
from .robot_terms import SIM, RobotTerms, terms_of
from .sources import is_server, opener, remote_opener, source_of

RATE_HZ = 50.0
LOOK_S = 0.05  # between two looks at the controller


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick drive`."""
    parser.add_argument("robot", metavar="ROBOT", help="sim, or a robot's YAML file (docs/drive.md)")
    parser.add_argument(
        "--policy", metavar="SRC", help="checkpoint or bundle folder, or ws://HOST:PORT (default: shipped)"
    )
    parser.add_argument("--plan", metavar="NAME|FILE", help="a plan; a ladder joins several by +, dearest first")
    parser.add_argument(
        "--seconds", type=float, help="how long (default: until Ctrl-C; with a fault as long as it takes)"
    )
    parser.add_argument(
        "--rate-hz", type=float, help=f"commands a second to the simulated robot (default: {RATE_HZ:g})"
    )
    parser.add_argument("--stitch", choices=STITCHES, help="how answers join (default: inpaint where the policy can)")
    parser.add_argument("--fault", choices=sorted(FAULTS), metavar="NAME", help=f"make a fault: {', '.join(FAULTS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the robot's starts and of all noise")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where a policy of this machine runs (default: cpu)")
    parser.add_argument("--budget", help="whose percentile a plan's cost is taken at (default: cpu-20hz)")
    parser.add_argument("--token-env", metavar="VAR", help="environment variable that holds the server's token")
    parser.add_argument("--ca", metavar="FILE", help="certificate that a wss:// server is checked with")
    parser.add_argument("--observation-key", metavar="KEY", help="what a foreign server calls the observation")
    parser.add_argument("--execute", type=int, metavar="N", help="rows of a foreign server's answer to execute")
    parser.add_argument("--record", metavar="DIR", help="record every command and answer as MCAP in this folder")
    parser.add_argument("--view", metavar="viewer|FILE.rrd|URL", help="live view with Rerun")
    parser.add_argument("--json", metavar="FILE", help="write what was measured")


def run(options: argparse.Namespace) -> int:
    """Drive, then tell what came of it. Returns 1 where the robot or its driver failed."""
    _check(options)
    with _ends_like_interrupts():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    terms, robot = _terms(options), _robot(options)
    fault = FAULTS[options.fault] if options.fault else None
    is_served = fault is not None and fault.where in ("wire", "server") and not is_server(options.policy)
    if is_served:
        with served_source(options) as (maker, open_source):
            return _drive(options, terms, robot, open_source, maker)
    return _drive(options, terms, robot, _source(options, terms), FaultMaker(options.fault))


@contextmanager
def _ends_like_interrupts() -> Iterator[None]:
    """A lost terminal and a service that is stopped end a drive as Ctrl-C does: the robot comes to rest first. Ctrl-C's
    own signal is among them: a shell that starts a command in the background has it ignored."""
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        signals = []
    before = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _check(options: argparse.Namespace) -> None:
    check_device(options.device or "cpu")
    if options.json is not None and check_place(options.json).is_dir():
        raise InputError(f"{options.json} is a folder, wanted a file to write")
    if options.seconds is not None and not 0 < options.seconds < 1e7:
        raise InputError(f"--seconds is {options.seconds:g}, wanted a time above 0")
    if options.rate_hz is not None and options.robot != SIM:
        raise InputError("--rate-hz is for the simulated robot; a real one's YAML file says period_s")
    if options.rate_hz is not None and not 20 <= options.rate_hz <= 500:
        raise InputError(f"--rate-hz is {options.rate_hz:g}, wanted 20 to 500: a faster loop is the robot's own")
    if not 0 <= options.seed < 2**31:
        raise InputError(f"--seed is {options.seed}, wanted 0 or more, below {2**31}")
    _check_fitting(options)
    if options.record is not None:
        check_place(Path(options.record) / "drive.mcap")
        _wanted("mcap", "drive")
    if options.view is not None:
        _wanted("rerun", "view")
    if options.fault and options.robot != SIM:
        raise InputError("--fault is for `ontick drive sim` alone: nobody breaks a real robot on purpose")
    if options.fault and is_server(options.policy) and FAULTS[options.fault].where in ("wire", "server", "inference"):
        raise InputError(f"--fault {options.fault} wants a server of its own: leave --policy away, or give a folder")
    if options.fault and options.seconds is None:
        options.seconds = usual_seconds(options.fault)


def _wanted(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(f'the package {package} is not installed; pip install "ontick[{extra}]"')


def _check_fitting(options: argparse.Namespace) -> None:
    """Options that would be dropped in silence are refused."""
    of_server = ("token_env", "ca", "observation_key", "execute")
    of_policy = ("plan", "device", "budget")
    is_far = is_server(options.policy)
    for name in of_policy if is_far else of_server:
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            whose = "the server decides that: leave it away" if is_far else "wanted with --policy ws://HOST:PORT alone"
            raise InputError(f"{option}: {whose}")


def _terms(options: argparse.Namespace) -> RobotTerms:
    """The robot's; a bundle's own, where it was packed for this robot."""
    terms = terms_of(options.robot)
    if options.policy is None or is_server(options.policy) or not is_bundle(options.policy):
        return terms
    packed = open_bundle(options.policy).terms
    if packed.name != terms.name:
        raise InputError(f"{options.policy} was packed for the robot {packed.name}, not {terms.name}; pack it again")
    return dataclasses.replace(packed, model=terms.model)  # whose file lies elsewhere on another computer


def _robot(options: argparse.Namespace) -> Robot:
    if options.robot == SIM:
        from ..envs.simulated_robot import SimulatedRobot

        return SimulatedRobot(period_s=1 / (options.rate_hz or RATE_HZ))
    from ..runtime.robots.finding import make_robot

    return make_robot(options.robot)


def _source(options: argparse.Namespace, terms: RobotTerms) -> Any:
    if is_server(options.policy):
        dims = (terms.observation_dim, terms.actions.dim)
        key = options.observation_key or "observation"
        return remote_opener(
            options.policy, options.token_env, key, options.ca, options.execute, dims, terms.observation
        )
    return opener(source_of(options.policy, options.plan), options.device or "cpu", options.budget or "cpu-20hz")


def _drive(options: argparse.Namespace, terms: RobotTerms, robot: Robot, open_source: Any, maker: FaultMaker) -> int:
    print("warming up: the policy first, then the robot", flush=True)
    pauses = options.fault == "gc-pause"
    with ExitStack() as ends:
        inference = Inference.start(open_source, holds_objects=pauses)
        ends.callback(inference.stop)
        card = inference.card
        rings = inference.questions, inference.answers
        settings = _settings(options, terms, card)
        driving = Driving.start(robot, card, terms.actions, *rings, inference.wake, settings, holds_objects=pauses)
        ends.callback(driving.close)
        ends.callback(maker.end)
        costs = ", ".join(f"{plan} {cost * 1e3:.1f} ms" for plan, cost in zip(card.plans, card.costs_s, strict=True))
        print(*driving.host, sep="\n")
        print(
            f"{driving.description.name}: {1 / driving.description.period_s:g} commands a second; {costs}", flush=True
        )
        recorder = _recorder(options, driving, inference, maker)
        if recorder is not None:
            ends.callback(recorder.stop)
        if options.view is not None:
            from ..runtime.live_view import LiveView

            ends.callback(LiveView.start(_rings(driving, inference), options.view).stop)
        _watch(options, driving, inference, maker, recorder)
        with _deaf():
            told = driving.stop()
            died = not inference.process.is_alive()
            return _finish(options, told, driving, card, recorder, maker, died)


def _rings(driving: Driving, inference: Inference) -> dict[str, Ring]:
    return {"ticks": driving.ticks, "answers": inference.answers}


def _settings(options: argparse.Namespace, terms: RobotTerms, card: Any) -> DriveSettings:
    if card.robot is not None and (differs := terms.differs(card.robot)):
        raise InputError(
            f"{options.policy} serves a policy packed for other terms ({', '.join(differs)}); pack it again"
        )
    stitch = options.stitch or ("inpaint" if card.can_inpaint else "replace")
    if stitch == "inpaint" and not card.can_inpaint:
        raise InputError("this policy cannot be told what was played; use --stitch replace or blend")
    return DriveSettings(
        period_s=terms.period_s,
        deadline_s=terms.answer_s,
        observation_age_s=terms.observation_age_s,
        chunk_age_s=card.rows * terms.period_s,
        stitch=stitch,
        limits=terms.limits,
        target=terms.target,
        workspace=terms.workspace(),
        seed=options.seed,
    )


def _watch(
    options: argparse.Namespace, driving: Driving, inference: Inference, maker: FaultMaker, recorder: Any
) -> None:
    """Let it run and make the fault in time, until it is over or somebody ends it."""
    driving.go(options.seconds)
    maker.begin(driving, inference, options.seconds)
    total = None if options.seconds is None else int(options.seconds)
    try:
        with progress_bar(total, driving.description.name, "s") as bar:
            while not driving.is_over:
                maker.look(LOOK_S)
                bar.update(int(maker.elapsed_s) - bar.n)
                bar.set_postfix_str(maker.state, refresh=False)
                if recorder is not None and recorder.failed:
                    maker.say_once(f"recording stopped: {recorder.failed}; the robot goes on")
                if not inference.process.is_alive():
                    break
    except KeyboardInterrupt:
        pass  # the way to end; the robot comes to rest first


@contextmanager
def _deaf() -> Iterator[None]:
    """While the robot comes to rest and files are made whole, a second Ctrl-C changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _recorder(options: argparse.Namespace, driving: Driving, inference: Inference, maker: FaultMaker) -> Any:
    if options.record is None and not maker.fills_disk:
        return None
    from ..runtime.recording import Recorder

    folder = check_place(Path(options.record or "runs/recordings") / "drive.mcap").parent
    taken = [path.name.split(".")[0].removeprefix("drive-") for path in folder.glob("drive-*.mcap")]
    n = 1 + max((int(number) for number in taken if number.isdigit()), default=0)
    about = {"machine": describe_machine(), "plans": list(inference.card.plans), "robot": driving.description.name}
    return Recorder.start(_rings(driving, inference), folder / f"drive-{n}.mcap", about, **maker.recording_options)


def _finish(
    options: argparse.Namespace,
    told: dict[str, Any],
    driving: Driving,
    card: Any,
    recorder: Any,
    maker: FaultMaker,
    died: bool,
) -> int:
    robot = told.pop("robot") or {}
    episodes, successes = robot.get("episodes", 0), robot.get("successes", 0)
    state, ms = maker.end_state(told, driving.description.period_s)
    recording = None if recorder is None else _recorded(recorder)
    document = {
        "robot": driving.description.name,
        "plans": list(card.plans),
        "machine": describe_machine(),
        "host": driving.host,
        "seconds": options.seconds,
        "rate_hz": 1 / driving.description.period_s,
        **told,
        "watchdog_stops": robot.get("watchdog_stops", 0),
        "end_state": state,
        "end_state_ms": ms,
        "faults": maker.told(robot, recording),
        "success": successes / episodes if episodes else None,
        "episodes": episodes,
        "successes": successes,
        "robot_report": robot,
        "recording": recording,
    }
    _print(document)
    if options.json is not None:
        write_whole(options.json, json.dumps(document, indent=1) + "\n")
        print(f"json: {options.json}")
    if told["fault"] is not None:
        raise RunFailed(f"the robot was stopped: {told['fault']}")
    if died:
        raise RunFailed("the inference process died; the robot came to rest and was stopped")
    return 0


def _recorded(recorder: Any) -> dict[str, Any]:
    path = recorder.stop()
    return {"file": None if path is None else str(path), "dropped": recorder.dropped, "failed": recorder.failed}


def _print(told: dict[str, Any]) -> None:
    late = told["lateness_us"]
    print(
        f"{told['commands']} commands, {told['late_1ms']} late by more than 1 ms; lateness p50 {late['p50']:.0f}, "
        f"p99 {late['p99']:.0f}, p99.9 {late['p999']:.0f}, max {late['max']:.0f} us; {told['starved']} of "
        f"{told['policy_ticks']} ticks starved; {told['watchdog_stops']} watchdog stops"
    )
    if told["episodes"]:
        print(f"{told['successes']} of {told['episodes']} episodes succeeded; {told['rungs'] or told['rows']}")
    if told["holds"]:
        print("held: " + ", ".join(f"{n} times {why}" for why, n in told["holds"].items()))
    if told["faults"]["name"] is not None:
        promise = told["faults"]
        after = f"{told['end_state']} after {told['end_state_ms']:.0f} ms"
        bound = f"{promise['bound']}, {promise['bound_ms']:.0f} ms"
        print(f"{promise['name']}: {after}, {promise['verdict']} (bound: {bound})")
