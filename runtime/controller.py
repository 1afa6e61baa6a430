"""The controller: a command every period, from answers that come when they come, through a gate that is always on.

Two clocks beat here. Every period of the policy (50 ms, say) the newest observation is looked at, an answer that came
is taken in, the next one is asked for, and one action is taken from the rows. Every period of the robot (20 ms, say) a
command is sent: the next point of the line from the last action's position to this one's, as far as the robot's limits
allow. What is to be sent is worked out before its time, so that the sending is late by the wake-up alone.

    moving     an observation that may be trusted, rows to play
    holding    something is missing: the robot decelerates within its limits and stays; it goes on when that is back
    stopped    the robot refused, or was told to stop: nothing more is sent

Legend: Da, Dc, Do; T period of the policy, p period of the robot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from .channel import FINE, STATES, Asked, Told
from .clock import Clock
from .histogram import LatencyHistogram
from .loop import ControlLoop
from .rings import Ring
from .robots import ActionMap, Observed, Robot, RobotDescription, RobotFault, Waypoint
from .safety import SafetyGate

WORK_S = 0.008  # before a command is due, it is worked out; at most this share of a period
WORK_SHARE = 0.4
LATE_S = 0.001  # a command that is later than this is counted
REST_S = 0.2  # beyond the time that coming to rest at the end takes
PATIENCE = 2.0  # deadlines after which an answer is given up, whoever computes it
KINDS = ("answer", "rest", "held")
STATES_OF = ("moving", "holding", "stopped")
MOVING, HOLDING, STOPPED = range(3)
WHY = ("", "waiting for the first answer", "no rows left", "observation", "actions beyond limits")
NOTHING, FIRST, STARVED, OBSERVATION, BEYOND = range(5)
SAID = 10  # reasons that are kept in words
SEED_STEP = 1_000_003  # between the seeds of two episodes' noise


def tick_dtype(description: RobotDescription, action_dim: int) -> np.dtype:
    """A command as it is recorded: `time_s` when it was due and `late_s` by how much it was late; `age_s` of what
    was seen last; `state` one of STATES_OF and `why`, one of WHY; `kind` of the action, one of KINDS."""
    Dc, Do = description.command_dim, description.observation_dim
    return np.dtype(
        [
            ("time_s", "f8"),
            ("late_s", "f8"),
            ("age_s", "f8"),
            ("episode", "i8"),
            ("state", "u1"),
            ("why", "u1"),
            ("kind", "u1"),
            ("at_rest", "?"),
            ("observation", "f4", (Do,)),
            ("action", "f4", (action_dim,)),
            ("position", "f8", (Dc,)),
            ("velocity", "f8", (Dc,)),
        ]
    )


class Controller:
    """Drives one robot with one policy.

    questions, answers: rings of `channel`'s records; asked(): called after each question, to wake who answers.
    deadline_s: how long an answer is of use. ticks: where every command is recorded. target_part: the part
    [start, end) of the observation that is the target that actions have added up to, seen from where the robot is; it
    is put there, as the command on its way to it is not it.
    """

    def __init__(
        self,
        robot: Robot,
        description: RobotDescription,
        actions: ActionMap,
        gate: SafetyGate,
        loop: ControlLoop,
        questions: Ring,
        answers: Ring,
        ticks: Ring,
        asked: Callable[[], None],
        clock: Clock,
        deadline_s: float,
        seed: int = 0,
        target_part: tuple[int, int] | None = None,
    ) -> None:
        self.robot, self.description, self.actions, self.gate, self.loop = robot, description, actions, gate, loop
        self.questions, self.answers, self.ticks, self._wake, self.clock = questions, answers, ticks, asked, clock
        self.deadline_s, self.seed, self._target_part = deadline_s, seed, target_part
        self.state, self.why, self.explained = HOLDING, FIRST, ""
        self.counts: Counter[str] = Counter()
        self.holds: Counter[str] = Counter()
        self.rungs: Counter[str] = Counter()
        self.lateness = LatencyHistogram()
        self.fault: str | None = None
        self.stopped_s: float | None = None
        self._episode: int | None = None
        self._must_begin, self._begins, self._has_answer = True, True, False
        self._pending: Asked | None = None
        self._ids = self._noise = 0
        self._policy_s = 0.0  # when the policy's next tick is due
        self._ahead_s = min(WORK_S, WORK_SHARE * description.period_s)
        self._line = (0.0, np.zeros(actions.dim), np.zeros(actions.dim))  # begun at, from, to
        self._seen: Observed | None = None
        self._is_ending = False
        self._said: list[str] = []  # why answers could not be played, the first ones
        self._kind, self._action = 2, np.zeros(actions.dim, np.float32)

    def run(self, start_s: float, until: Callable[[float], bool]) -> None:
        """Command from `start_s` on, every period, until `until(now_s)` says so or the robot refuses: then the robot
        comes to rest. It is stopped on every way out."""
        period_s = self.description.period_s
        self._policy_s, due_s = start_s, start_s + period_s
        last_s = None  # by when it must be at rest
        try:
            self.gate.begin(self.robot.observe().position)  # where it is, whatever its sensors say
            while last_s is None or (due_s < last_s and not self.gate.motion.at_rest):
                if last_s is None and until(due_s):
                    last_s, self._is_ending = due_s + self.gate.motion.time_to_rest_s + REST_S, True
                self._policy_ticks(due_s)
                self.clock.sleep_until(due_s - self._ahead_s)
                waypoint = self._next(due_s)
                self.clock.sleep_until(due_s)
                self.robot.command([waypoint])
                now_s = self.clock.now()
                self._enter(due_s, now_s - due_s, waypoint)
                missed = int((now_s - due_s) / period_s)
                self.counts["missed_periods"] += missed
                due_s += (1 + missed) * period_s
        except RobotFault as error:
            self._stopped(str(error))
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # a driver may raise anything; whatever it is, the robot is stopped
            self._stopped(f"{type(error).__name__}: {error}")
        finally:
            self.robot.stop()
            self.state, self.stopped_s = STOPPED, self.clock.now()

    def told(self) -> dict[str, Any]:
        """What came of it, as JSON data."""
        counts = self.loop.ledger.summary()["counters"]
        late = self.lateness
        microseconds = {"p50": 50, "p99": 99, "p999": 99.9, "max": 100}
        return {
            "commands": self.counts["commands"],
            "late_1ms": self.counts["late_1ms"],
            "lateness_us": {name: late.percentile_s(p) * 1e6 if late.n else 0.0 for name, p in microseconds.items()},
            "missed_periods": self.counts["missed_periods"],
            "policy_ticks": self.counts["policy_ticks"],
            "starved": self.counts["starved"],
            "waited": self.counts["waited"],
            "questions": self._ids,
            "answers": self.counts["answers"],
            "unanswered": {name: self.counts[name] for name in (*STATES[1:], "given up") if self.counts[name]},
            "discarded": self.counts["discarded"] + self.counts["stray"],
            "rungs": dict(self.rungs + Counter(self.loop.rungs(0) if self._noise else {})),
            "rows": {name: counts.get(name, 0) for name in ("answers", "rest", "held")},
            "holds": dict(self.holds),
            "gate": dict(self.gate.counts),
            "most_beyond": self.gate.most_beyond.tolist(),
            "explained": [*self.gate.explained, *self._said],
            "fault": self.fault,
            "stopped_s": self.stopped_s,
        }

    # -- the robot's period ----------------------------------------------------------------------------------------

    def _next(self, due_s: float) -> Waypoint:
        """What to send at `due_s`: where to be one period later."""
        period_s, T = self.description.period_s, self.loop.budget.period_s
        begun_s, start, end = self._line
        if self.state == HOLDING or self._is_ending:
            position, velocity = self.gate.step(None)
        else:
            share = (due_s + period_s - begun_s) / T
            velocity = (end - start) / T if share < 1 + 1e-6 else np.zeros_like(end)
            position, velocity = self.gate.step(start + min(1.0, share) * (end - start), velocity)
        return Waypoint(due_s + period_s, position, velocity, self._episode or 0)

    def _enter(self, due_s: float, late_s: float, waypoint: Waypoint) -> None:
        late_s = max(0.0, late_s)
        self.counts["commands"] += 1
        self.counts["late_1ms"] += late_s > LATE_S
        self.lateness.record(late_s)
        seen = self._seen
        record: Any = np.zeros((), self.ticks.dtype)[()]
        record["time_s"], record["late_s"], record["episode"] = due_s, late_s, self._episode or 0
        record["state"], record["why"], record["kind"] = self.state, self.why, self._kind
        record["at_rest"], record["action"] = self.gate.motion.at_rest, self._action
        record["position"], record["velocity"] = waypoint.position, waypoint.velocity
        if seen is not None:
            record["age_s"], record["observation"] = due_s - float(np.min(seen.stamps_s)), seen.values
        self.ticks.put(record)

    # -- the policy's period ---------------------------------------------------------------------------------------

    def _policy_ticks(self, due_s: float) -> None:
        """Those that are due before the command of `due_s`, each at its time, so that observations are as far apart as
        they were in training. A tick's line begins one period of the robot later: the command before is on its way."""
        T = self.loop.budget.period_s
        while self._policy_s < due_s - 1e-9:
            self._policy_s += T * int((due_s - self._policy_s) / T)  # ticks that nobody can be in time for any more
            self.clock.sleep_until(min(self._policy_s, due_s - self._ahead_s))
            self._policy_tick(self._policy_s + self.description.period_s)
            self._policy_s += T

    def _policy_tick(self, begins_s: float) -> None:
        """begins_s: when its line begins."""
        self.counts["policy_ticks"] += 1
        seen = self._seen = self.robot.observe()
        now_s = self.clock.now()
        if self._episode is not None and seen.episode > self._episode:
            self._must_begin = True
        self._collect(now_s)
        reason = self.gate.refuses_observation(seen, now_s)
        if reason is not None:
            self._must_begin = True
            return self._hold(OBSERVATION, reason)
        if self._must_begin:
            self._begin(seen, now_s)
        else:
            self.loop.observe(0, self._shown(seen))
        self._ask(seen, now_s)
        return self._act(begins_s)

    def _begin(self, seen: Observed, now_s: float) -> None:
        """Everything that was remembered is of an episode, or a time, that is over."""
        is_new = seen.episode != self._episode
        self._episode, self._must_begin, self._begins, self._has_answer = seen.episode, False, True, False
        self._pending = None
        if self._noise:
            self.rungs.update(self.loop.rungs(0))
        self._noise += 1
        if is_new:
            self.gate.begin(seen.position)
        else:
            self.gate.hold_target()
        rests_at = self.gate.motion.rests_at
        self._line = (now_s, rests_at, rests_at)
        self.loop.begin(0, self.seed + SEED_STEP * self._noise, self._shown(seen), keeps_load=True)

    def _shown(self, seen: Observed) -> np.ndarray:
        """[Do], what the policy is shown."""
        if self._target_part is None:
            return seen.values
        values = seen.values.copy()
        values[slice(*self._target_part)] = self._line[2] - seen.position
        return values

    def _ask(self, seen: Observed, now_s: float) -> None:
        if self._pending is not None or not self.loop.wants_answer(0):
            return
        question = self.loop.question([0])
        assert question is not None, "one lane was asked about"
        self._ids += 1
        observed_s = float(np.min(seen.stamps_s))
        seed = self.seed + SEED_STEP * self._noise
        self._pending = Asked(self._ids, now_s, observed_s, self.deadline_s, seed, self._begins, question)
        self._begins = False
        self.loop.launch(question)
        self.questions.put(self._pending.record(self.questions.dtype))
        self._wake()

    def _collect(self, now_s: float) -> None:
        """Take in what came; give up what is not coming."""
        for record in self.answers.take():
            told = Told.of(record)
            self.counts["discarded"] = max(self.counts["discarded"], told.discarded)
            if self._pending is None or told.id != self._pending.id:
                self.counts["stray"] += 1
            else:
                self._take(told, self._pending, now_s)
        if self._pending is not None and now_s - self._pending.time_s > PATIENCE * self.deadline_s:
            self.counts["given up"] += 1
            self._abandon()

    def _take(self, told: Told, asked: Asked, now_s: float) -> None:
        if told.state != FINE or told.given is None:
            self.counts[STATES[told.state]] += 1
            self.explained = f"{STATES[told.state]}: {told.reason}"
            if self.explained not in self._said and len(self._said) < SAID:
                self._said.append(self.explained)
            return self._abandon()
        reason = self.gate.refuses_chunk(told.given.rows, asked.observed_s, now_s)
        if reason is not None:
            self.counts["refused"] += 1
            self.explained = reason
            return self._abandon()
        self.counts["answers"] += 1
        self._has_answer, self._pending = True, None
        return self.loop.deliver(0, told.given, told.latency_s, told.rung)

    def _abandon(self) -> None:
        self._pending = None
        self._begins = True  # what whoever computes remembers of it, if anything, is not what was played
        self.loop.abandon(0)

    def _act(self, begins_s: float) -> None:
        action, kind = self.loop.act(0)
        self._action, self._kind = action, KINDS.index(kind)
        if kind == "held":
            if not self._has_answer:
                self.counts["waited"] += 1
                return self._hold(FIRST, "")
            self.counts["starved"] += 1
            return self._hold(STARVED, self.explained)
        if self.state == HOLDING:
            self.gate.hold_target()
        start = self._line[2]
        end = self.gate.target(action)
        if self.gate.must_hold:
            if self.gate.beyond:
                return self._hold(BEYOND, self.gate.explained[-1] if self.gate.explained else "")
            self.gate.resume()
        self.state, self.why = MOVING, NOTHING
        self._line = (begins_s, start, end)
        return None

    def _hold(self, why: int, explained: str) -> None:
        if self.state != HOLDING or self.why != why:
            self.holds[WHY[why]] += 1
        self.state, self.why = HOLDING, why
        self.explained = explained or self.explained
        rests_at = self.gate.motion.rests_at
        self._line = (0.0, rests_at, rests_at)

    def _stopped(self, why: str) -> None:
        self.state, self.fault = STOPPED, why
