"""The controller on a virtual clock, with a robot that does as it is told and answers that come at once."""

import dataclasses

import numpy as np
import pytest

from ontick.runtime import LatencyBudget, Overlap, VirtualClock
from ontick.runtime.card import PolicyCard
from ontick.runtime.channel import FINE, FULL, LOST, REFUSED, Asked, Told, answer_dtype, question_dtype
from ontick.runtime.controller import HOLDING, MOVING, STARVED, WHY, Controller, tick_dtype
from ontick.runtime.loop import ControlLoop
from ontick.runtime.questions import Given
from ontick.runtime.rings import Ring
from ontick.runtime.robots import ActionMap, Limits, Observed, RobotDescription, RobotFault
from ontick.runtime.safety import SafetyGate

p, T, ROWS, STEPS = 0.02, 0.05, 8, 4
LIMITS = Limits(low=[-1.0, -1.0], high=[1.0, 1.0], speed=[1.0] * 2, acceleration=[20.0] * 2, jerk=[1000.0] * 2)
ROBOT = RobotDescription(
    name="toy", observation_dim=4, limits=LIMITS, period_s=p, streams=(("arm", 0, 2), ("camera", 2, 4))
)
ACTIONS = ActionMap(kind="delta", scale=(0.01, 0.01), low=(-1.0, -1.0), high=(1.0, 1.0))


class Toy:
    """Where it was commanded last; its sensors' last digits move, as those of living sensors do."""

    def __init__(self, clock):
        self.clock, self.position, self.commands, self.stopped = clock, np.zeros(2), [], 0
        self.episode, self.age_s, self.rng = 0, 0.0, np.random.default_rng(0)
        self.fails_at, self.lag = None, 0.0

    def connect(self):
        return ROBOT

    def begin(self, seed):
        """Nothing to do."""

    def observe(self):
        noise = self.rng.normal(0, 1e-6, 4)
        values = np.float32(np.concatenate([self.position, self.position]) + noise)
        return Observed(values, np.full(2, self.clock.now() - self.age_s), self.position.copy(), self.episode)

    def command(self, waypoints):
        if self.fails_at is not None and len(self.commands) >= self.fails_at:
            raise RobotFault("out of order")
        [waypoint] = waypoints
        self.commands.append(waypoint)
        if waypoint.episode == self.episode:
            self.position = self.position + (1 - self.lag) * (waypoint.position - self.position)

    def stop(self):
        self.stopped += 1


@pytest.fixture
def make():
    rings = []

    def made(told, plans=("a",), stitch="replace"):
        """told(asked): what comes back, a list of answers; they are there at the policy's next tick."""
        card = PolicyCard(
            n_obs_steps=2,
            n_action_steps=STEPS,
            observation_dim=4,
            action_dim=2,
            rows=ROWS,
            plans=plans,
            costs_s=tuple(0.01 / (1 + i) for i in range(len(plans))),
        )
        questions, answers = Ring.create(question_dtype(card), 8), Ring.create(answer_dtype(card), 8)
        ticks = Ring.create(tick_dtype(ROBOT, 2), 4096)
        rings.extend((questions, answers, ticks))
        clock = VirtualClock()
        robot = Toy(clock)
        gate = SafetyGate(ROBOT, ACTIONS, (STEPS, 2), observation_age_s=0.2, chunk_age_s=ROWS * T)
        budget = LatencyBudget(name="test", period_s=T, deadline_s=T)
        loop = ControlLoop(card.stand_in(), 1, ACTIONS.hold, budget, overlap=Overlap(stitch, "play"))

        def asked():
            for answer in told(Asked.of(questions.newest())):
                answers.put(answer.record(answers.dtype))

        controller = Controller(robot, ROBOT, ACTIONS, gate, loop, questions, answers, ticks, asked, clock, 0.4)
        return controller, robot, ticks

    yield made
    for ring in rings:
        ring.close()
        ring.unlink()


def fine(asked, action=(1.0, 0.0), rung=0):
    rows = np.tile(np.float32(action), (ROWS, 1))
    return Told(asked.id, asked.time_s, 0.001, 0.001, rung=rung, given=Given(rows, STEPS, 1, 1.0))


def drive(controller, seconds, at=()):
    """Run for so long; at: pairs of a time and what is done then."""
    todo = sorted(at, key=lambda pair: pair[0])

    def until(now_s):
        while todo and now_s >= todo[0][0]:
            todo.pop(0)[1]()
        return now_s >= seconds

    controller.run(0.0, until)
    return controller.told()


def records(ticks):
    return np.array(ticks.take(), dtype=ticks.dtype)


def test_a_command_is_sent_every_period_and_none_is_late(make):
    controller, robot, ticks = make(lambda asked: [fine(asked)])
    told = drive(controller, 1.0)
    seen = records(ticks)
    assert np.allclose(np.diff(seen["time_s"]), p)
    assert told["commands"] == len(robot.commands) >= 50 and told["late_1ms"] == told["missed_periods"] == 0
    assert [round(w.time_s / p) for w in robot.commands] == [i + 2 for i in range(len(robot.commands))]
    assert robot.stopped == 1


def test_actions_become_motion_at_their_pace_and_end_at_rest(make):
    controller, _, ticks = make(lambda asked: [fine(asked)])
    drive(controller, 1.0)
    seen = records(ticks)
    middle = seen[(seen["time_s"] > 0.4) & (seen["time_s"] < 0.9)]
    assert np.allclose(middle["velocity"], [0.01 / T, 0.0], atol=1e-6)
    assert (middle["state"] == MOVING).all()
    assert seen["at_rest"][-1] and np.allclose(seen["velocity"][-1], 0.0)


def test_the_first_answer_is_waited_for_and_not_called_starved(make):
    controller, _, ticks = make(lambda asked: [])
    told = drive(controller, 0.3)
    seen = records(ticks)
    assert (seen["state"] == HOLDING).all() and told["starved"] == 0 and told["waited"] > 0


@pytest.mark.parametrize(
    "bad",
    [
        lambda asked: [fine(asked, (np.nan, 0.0))],
        lambda asked: [fine(asked, (0.0, np.inf))],
        lambda asked: [Told(asked.id, asked.time_s, 0.001, state=REFUSED, reason="got shape (3,)")],
        lambda asked: [Told(asked.id, asked.time_s, 0.001, state=LOST, reason="no connection")],
        lambda asked: [Told(asked.id, asked.time_s, 0.001, state=FULL, reason="no plan fits")],
        lambda asked: [],
    ],
)
def test_where_no_answer_may_be_played_the_chunk_is_and_then_the_robot_holds(make, bad):
    is_bad = []
    controller, _, ticks = make(lambda asked: bad(asked) if is_bad else [fine(asked)])
    drive(controller, 2.0, [(1.0, lambda: is_bad.append(1))])
    seen = records(ticks)
    holds = seen[(seen["state"] == HOLDING) & seen["at_rest"] & (seen["time_s"] > 1.0)]
    assert 1.0 < holds["time_s"][0] < 1.0 + ROWS * T + 0.2  # 0.2: to come to rest
    after = seen[seen["time_s"] > holds["time_s"][0]]
    assert (after["state"] == HOLDING).all() and np.ptp(after["position"], axis=0).max() < 1e-9
    assert WHY[after["why"][0]] == WHY[STARVED]


def test_motion_goes_on_when_answers_come_back(make):
    is_bad = []
    controller, _, ticks = make(lambda asked: [] if is_bad else [fine(asked)])
    drive(controller, 3.5, [(1.0, lambda: is_bad.append(1)), (2.0, is_bad.clear)])
    seen = records(ticks)
    assert (seen[(seen["time_s"] > 1.8) & (seen["time_s"] < 2.0)]["state"] == HOLDING).all()
    assert (seen[(seen["time_s"] > 3.0) & (seen["time_s"] < 3.5)]["state"] == MOVING).all()


def test_answers_to_no_open_question_are_counted_and_not_played(make):
    def doubled(asked):
        stray = fine(asked, (0.0, 1.0))._replace(id=asked.id - 1)
        return [stray, fine(asked), fine(asked, (0.0, -1.0))]

    controller, _, ticks = make(doubled)
    told = drive(controller, 1.0)
    assert told["discarded"] == 2 * told["answers"] > 0
    assert np.allclose(records(ticks)["position"][:, 1], 0.0)


def test_an_old_observation_holds_the_robot_until_a_fresh_one(make):
    controller, robot, ticks = make(lambda asked: [fine(asked)])
    stale = lambda: setattr(robot, "age_s", 1.0)  # noqa: E731
    drive(controller, 2.5, [(1.0, stale), (1.6, lambda: setattr(robot, "age_s", 0.0))])
    seen = records(ticks)
    first = seen[(seen["state"] == HOLDING) & (seen["time_s"] >= 1.0)]["time_s"][0]
    assert first < 1.0 + T + p
    assert (seen[(seen["time_s"] > first) & (seen["time_s"] < 1.6)]["state"] == HOLDING).all()
    assert (seen[(seen["time_s"] > 1.8) & (seen["time_s"] < 2.5)]["state"] == MOVING).all()


def test_actions_beyond_their_limits_are_clamped_counted_and_ten_in_a_row_hold(make):
    is_bad = []
    controller, _, ticks = make(lambda asked: [fine(asked, (10.0, 0.0) if is_bad else (1.0, 0.0))])
    told = drive(controller, 2.5, [(1.0, lambda: is_bad.append(1)), (2.0, is_bad.clear)])
    seen = records(ticks)
    assert told["gate"]["clamped"] >= 10 and told["holds"]["actions beyond limits"] == 1
    assert np.abs(seen["velocity"]).max() <= 1.0
    assert (seen[(seen["time_s"] > 2.3) & (seen["time_s"] < 2.5)]["state"] == MOVING).all()


def test_a_driver_that_raises_stops_the_robot_and_says_why(make):
    controller, robot, _ = make(lambda asked: [fine(asked)])
    robot.fails_at = 20
    told = drive(controller, 2.0)
    assert told["fault"] == "out of order" and robot.stopped == 1 and told["commands"] == 20


def test_a_robot_that_was_put_back_begins_anew(make):
    questions = []

    def told(asked):
        questions.append(asked)
        return [fine(asked)]

    controller, robot, ticks = make(told)

    def put_back():
        robot.episode, robot.position = 1, np.array([-0.5, 0.5])

    drive(controller, 2.0, [(1.0, put_back)])
    seen = records(ticks)
    of_new = seen[seen["episode"] == 1]
    assert np.allclose(of_new["position"][0], [-0.5, 0.5]) and of_new["position"][-1][0] > -0.5
    begins = [asked for asked in questions if asked.begins]
    assert len(begins) == 2 and begins[0].seed != begins[1].seed
    assert (robot.commands[0].episode, robot.commands[-1].episode) == (0, 1)


def test_before_the_first_observation_may_be_trusted_the_robot_is_commanded_where_it_is(make):
    controller, robot, ticks = make(lambda asked: [fine(asked)])
    robot.age_s, robot.position = 1.0, np.array([0.3, -0.4])
    drive(controller, 0.5)
    assert np.allclose(records(ticks)["position"], [0.3, -0.4])


def test_a_robot_that_does_not_say_where_it_is_is_never_commanded(make):
    controller, robot, _ = make(lambda asked: [fine(asked)])
    robot.position = np.array([np.nan, 0.0])
    told = drive(controller, 0.5)
    assert told["commands"] == 0 and "finite" in told["fault"] and robot.stopped == 1


def test_the_policy_is_shown_the_target_its_actions_added_up_to(make):
    shown = []

    def told(asked):
        shown.append((asked.question.obs[0, -1, 2:], controller._line[2] - robot.position))
        return [fine(asked, (1.0, -1.0))]

    controller, robot, _ = make(told)
    controller._target_part = (2, 4)
    robot.lag = 0.5  # it is half way to where it was commanded
    drive(controller, 1.0)
    seen, wanted = np.array(shown[1:]).transpose(1, 0, 2)
    assert np.allclose(seen, wanted, atol=1e-6) and (np.abs(wanted) > 1e-3).all()


def test_coming_to_rest_takes_as_long_as_the_limits_want(make):
    controller, _, ticks = make(lambda asked: [fine(asked)])
    slow = Limits(low=[-1.0, -1.0], high=[1.0, 1.0], speed=[1.0] * 2, acceleration=[0.1] * 2, jerk=[0.5] * 2)
    description = dataclasses.replace(ROBOT, limits=slow)
    controller.gate = SafetyGate(description, ACTIONS, (STEPS, 2), observation_age_s=0.2, chunk_age_s=ROWS * T)
    drive(controller, 3.0)
    seen = records(ticks)
    assert seen["time_s"][-1] > 4.0 and seen["at_rest"][-1]


def test_a_rung_that_answers_for_another_is_entered_as_itself(make):
    controller, _, _ = make(lambda asked: [fine(asked, rung=1)], plans=("dear", "cheap"))
    drive(controller, 1.0)
    assert set(controller.loop.rungs(0)) <= {"cheap", "rest"} and controller.loop.rungs(0)["cheap"] > 5


def test_a_question_survives_its_record(make):
    controller, _, _ = make(lambda asked: [fine(asked)], stitch="replace")
    asked = []
    controller._wake = lambda: asked.append(Asked.of(controller.questions.newest()))
    drive(controller, 0.1)
    assert asked[0].begins and asked[0].question.obs.shape == (1, 2, 4) and asked[0].id == 1
    assert Told.of(fine(asked[0]).record(controller.answers.dtype)).state == FINE
