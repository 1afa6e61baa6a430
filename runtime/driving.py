"""The process of the controller: it holds the robot, and nothing else of the house may hold it up."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError, RunFailed
from .budget import LatencyBudget
from .card import PolicyCard
from .child import ignore_interrupts, start_without_interrupts
from .clock import WallClock
from .controller import Controller, tick_dtype
from .faults import NONE, FaultyRobot, hold_objects
from .host import control_core, real_time
from .ledger import Ledger
from .loop import ControlLoop
from .overlap import Overlap
from .rings import Ring
from .robots import ActionMap, Limits, Robot, RobotDescription, RobotFault
from .safety import SafetyGate

TICKS = 4096  # commands that may wait for whoever records them
READY_S, STOP_S, TERMINATE_S = 60.0, 15.0, 12.0
ORPHAN_S = 0.2  # between two looks at whether the parent lives
BEGIN_S = 0.2  # from the word to the first command


@dataclass(frozen=True, kw_only=True)
class DriveSettings:
    """period_s of the policy; deadline_s: how long an answer is of use; observation_age_s and chunk_age_s: how old what
    is acted on may be; limits: tighter than the robot's own; target: see `Controller`; workspace: see `Motion`; seed of
    the noise and of the robot's start. It is sent to another process."""

    period_s: float
    deadline_s: float
    observation_age_s: float
    chunk_age_s: float
    stitch: str
    limits: Limits | None = None
    target: tuple[int, int] | None = None
    workspace: Callable[[np.ndarray], bool] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        times = (self.period_s, self.deadline_s, self.observation_age_s, self.chunk_age_s)
        if not all(0 < time_s < 3600 for time_s in times):
            raise InputError(f"got a period, deadline and ages of {times} s, wanted times above 0")


@dataclass
class Driving:
    """The controller's process as its parent sees it."""

    process: Any
    description: RobotDescription
    ticks: Ring
    host: list[str]  # what the system granted and refused, in words
    fault: Any  # a code of `faults`, which the process obeys
    _pipe: Any
    _ended: Any
    _told: dict[str, Any] | None = None
    _went: bool = False

    @classmethod
    def start(
        cls,
        robot: Robot,
        card: PolicyCard,
        actions: ActionMap,
        questions: Ring,
        answers: Ring,
        wake: Any,
        settings: DriveSettings,
        holds_objects: bool = False,
    ) -> Driving:
        """Connect the robot, in the process that will command it. Raises RunFailed where that fails."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # Without locks: nobody may hold one, or die with one, that the controller waits for.
        ended, fault = context.Value("b", 0, lock=False), context.Value("i", NONE, lock=False)
        process = context.Process(
            target=_drive,
            args=(robot, card, actions, questions, answers, wake, settings, holds_objects, theirs, ended, fault),
            name="ontick-control",
        )
        start_without_interrupts(process, on_any_core=True)
        theirs.close()
        try:
            told = ours.recv() if ours.poll(READY_S) else RunFailed("the robot was not ready in time")
        except EOFError:
            told = RunFailed(f"the controller ended before the robot was ready (exit {process.exitcode})")
        except BaseException:  # the robot may be on its way to a start
            ours.close()
            _end(process)
            raise
        if isinstance(told, Exception):
            ours.close()
            process.join(STOP_S)
            _end(process)
            raise told
        description, ticks, host = told
        return cls(process, description, ticks, host, fault, ours, ended)

    def go(self, seconds: float | None) -> None:
        """Begin to command, for so long; None: until `stop`."""
        self._pipe.send(seconds)
        self._went = True

    @property
    def is_over(self) -> bool:
        return self._told is not None or self._pipe.poll(0) or not self.process.is_alive()

    def stop(self) -> dict[str, Any]:
        """Bring the robot to rest and end; what came of it. Raises RunFailed where the process died."""
        self._ended.value = 1
        try:
            if self._told is None:
                self._told = self._pipe.recv() if self._pipe.poll(STOP_S) else None
        except EOFError:
            self._told = None
        self._leave()
        if self._told is None:
            raise RunFailed(
                f"the controller's process died (exit {self.process.exitcode}); the robot's watchdog stops it"
            )
        return self._told

    def close(self) -> None:
        """End, where that has not been done, and let go of the ring; again is no error."""
        self._ended.value = 1
        self._leave()
        self.ticks.close()

    def _leave(self) -> None:
        """The process stops the robot when its pipe breaks, if it has not begun, and when it is told to end."""
        if not self._went or self._told is not None:
            self._pipe.close()
        self.process.join(STOP_S)
        _end(self.process)


def _end(process: Any) -> None:
    """A process that does not end: first so that it can stop the robot, then whatever it does."""
    for how in (process.terminate, process.kill):
        if process.is_alive():
            how()
            process.join(TERMINATE_S)


class _Told(SystemExit):
    """A signal said to end."""


def _drive(
    robot: Robot,
    card: PolicyCard,
    actions: ActionMap,
    questions: Ring,
    answers: Ring,
    wake: Any,
    settings: DriveSettings,
    holds_objects: bool,
    pipe: Any,
    ended: Any,
    fault: Any,
) -> None:
    """Whatever happens here, the robot is stopped."""
    commands = False

    def end(*_: object) -> None:
        ended.value = 1
        if not commands:
            raise _Told

    ignore_interrupts()
    for name in ("SIGTERM", "SIGHUP"):  # a lost terminal, a service that is stopped
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), end)
    faulty = FaultyRobot(robot)
    ticks: Ring | None = None
    try:
        description = faulty.connect()
        faulty.begin(settings.seed)
        controller, ticks = _controller(faulty, description, card, actions, questions, answers, wake, settings)
        _held = hold_objects() if holds_objects else []
        core = control_core()
        pipe.send((description, ticks, real_time(cpus=None if core is None else [core])))
        seconds = pipe.recv()
        commands = True
        _command(controller, faulty, seconds, ended, fault)
        pipe.send({**controller.told(), "robot": faulty.report()})
    except (EOFError, OSError, _Told):
        pass  # nobody is there any more, or wants it
    except Exception as error:  # a driver may raise anything
        name = "" if isinstance(error, RobotFault) else f"{type(error).__name__}: "
        with suppress(OSError):
            pipe.send(error if isinstance(error, InputError) else RunFailed(f"the robot is not ready: {name}{error}"))
    finally:
        robot.stop()
        if ticks is not None:  # whoever reads it has it still when it is unlinked here
            ticks.close()
            ticks.unlink()


def _controller(
    robot: Any,
    description: RobotDescription,
    card: PolicyCard,
    actions: ActionMap,
    questions: Ring,
    answers: Ring,
    wake: Any,
    settings: DriveSettings,
) -> tuple[Controller, Ring]:
    got, wanted = (card.observation_dim, card.action_dim), (description.observation_dim, description.command_dim)
    if got != wanted or actions.dim != card.action_dim:
        raise InputError(
            f"the policy has {got[0]} observations and {got[1]} actions, {description.name} has {wanted[0]} and "
            f"{wanted[1]}, the action map {actions.dim}; use a policy that was trained for this robot"
        )
    if description.period_s > settings.period_s * (1 + 1e-9):
        raise InputError(
            f"{description.name} takes a command every {description.period_s * 1e3:g} ms, the policy acts every "
            f"{settings.period_s * 1e3:g} ms: its actions would come too late; command faster"
        )
    if settings.target is not None and settings.target[1] - settings.target[0] != description.command_dim:
        raise InputError(f"target {settings.target}: wanted a part of {description.command_dim} numbers")
    if settings.workspace is not None:  # what it loads at first is loaded before commands are timed
        settings.workspace((description.limits.low + description.limits.high) / 2)
    if settings.limits is not None:
        description = replace(description, limits=description.limits.within(settings.limits))
    gate = SafetyGate(
        description,
        actions,
        (card.n_action_steps, card.action_dim),
        observation_age_s=settings.observation_age_s,
        chunk_age_s=settings.chunk_age_s,
        action_period_s=settings.period_s,
        inside=settings.workspace,
    )
    budget = LatencyBudget(name="drive", period_s=settings.period_s, deadline_s=settings.deadline_s)
    # Limits of speed are the gate's; the loop must know which dimensions it may not blend.
    switches = np.where(description.limits.switches, np.inf, np.finfo(np.float64).max)
    overlap = Overlap(settings.stitch, "play")
    loop = ControlLoop(card.stand_in(), 1, actions.hold, budget, ledger=Ledger(), overlap=overlap, v_max=switches)
    ticks = Ring.create(tick_dtype(description, card.action_dim), TICKS)
    controller = Controller(
        robot,
        description,
        actions,
        gate,
        loop,
        questions,
        answers,
        ticks,
        wake.release,
        WallClock(),
        settings.deadline_s,
        settings.seed,
        settings.target,
    )
    return controller, ticks


def _command(controller: Controller, robot: FaultyRobot, seconds: float | None, ended: Any, fault: Any) -> None:
    """Until the time is over, the parent says so, or the parent is gone."""
    parent, code = multiprocessing.parent_process(), NONE
    start_s = controller.clock.now() + BEGIN_S
    looked_s = start_s

    def is_over(now_s: float) -> bool:
        nonlocal code, looked_s
        if fault.value != code:
            code = fault.value
            robot.make(code)
        if parent is not None and now_s - looked_s >= ORPHAN_S:
            looked_s = now_s
            if not parent.is_alive():
                ended.value = 1
        return bool(ended.value) or (seconds is not None and now_s >= start_s + seconds)

    controller.run(start_s, is_over)
