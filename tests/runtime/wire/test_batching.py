"""Questions of many clients: the oldest first, together where that pays and fits, none for nobody."""

import threading

import numpy as np
import pytest

from ontick.errors import InputError, RunFailed
from ontick.runtime import WallClock, load_budget
from ontick.runtime.memory import RETRY
from ontick.runtime.wire.batching import Asked, Batcher, Full, Late

WAIT_S = 10


def asked(lane, total=0.0, **options):
    obs = np.full((2, 3), total / 3, np.float32)
    return Asked(lane, obs, WallClock().now(), **options)


def first(answer):
    """[sum of the observation, seed, answers before] of an answer's first row."""
    return answer.result(WAIT_S).given.rows[0].tolist()


class Held:
    """Toys of all widths behind one gate."""

    def __init__(self, toys, **options):
        self.gate, self.batches = threading.Event(), []
        self.gate.set()
        self.toys, self.options = toys, options

    def __call__(self, width):
        toy = self.toys(width, self.gate, **self.options)
        toy.asked = self.batches
        return [toy]

    def together(self, batcher, questions):
        """Puts the questions while another one is computed."""
        before = len(self.batches)
        self.gate.clear()
        stopper = batcher.ask(asked(99, seed=0))
        stopper_runs(stopper)
        answers = [batcher.ask(question) for question in questions]
        self.gate.set()
        for answer in (stopper, *answers):
            answer.exception(WAIT_S)
        return answers, [lanes for lanes in self.batches[before:] if lanes != (99,)]


def stopper_runs(future):
    clock = WallClock()
    while not future.running():
        clock.sleep_until(clock.now() + 0.001)


def test_a_lane_keeps_its_seed_and_counts_its_answers(batcher):
    served = batcher()
    assert first(served.ask(asked(3, 6.0, seed=11))) == [6, 11, 0]
    assert first(served.ask(asked(3, 9.0))) == [9, 11, 1]
    assert first(served.ask(asked(3, 9.0, seed=12))) == [9, 12, 0]


def test_policies_are_made_and_asked_in_one_thread_that_is_not_the_callers(batcher, toys):
    made = []

    def make(width):
        made.append((toys(width), threading.current_thread().name))
        return [made[-1][0]]

    served = batcher(make)
    served.ask(asked(0, seed=0)).result(WAIT_S)
    assert {name for _, name in made} == {"ontick-inference"}
    assert set.union(*(toy.threads for toy, _ in made)) == {"ontick-inference"}


def test_many_that_wait_are_answered_together_and_each_gets_its_own(batcher, toys):
    held = Held(toys, takes_s=0.002)
    served = batcher(held)
    answers, batches = held.together(served, [asked(lane, lane, seed=lane) for lane in range(8)])
    assert [first(answer) for answer in answers] == [[lane, lane, 0] for lane in range(8)]
    assert len(batches) < 8 and sorted(lane for lanes in batches for lane in lanes) == list(range(8))


def test_a_lane_moves_between_widths_without_losing_count(batcher, toys):
    held = Held(toys, takes_s=0.002)
    served = batcher(held)
    for lane in range(4):
        served.ask(asked(lane, seed=lane)).result(WAIT_S)  # alone
    answers, batches = held.together(served, [asked(lane) for lane in range(4)])
    assert batches == [(0, 1, 2, 3)]
    assert [first(answer) for answer in answers] == [[0, lane, 1] for lane in range(4)]
    assert first(served.ask(asked(2))) == [0, 2, 2]


def wide(toys):
    """Toys whose full batch takes as long as one lane, so that all widths are made."""
    return lambda width: [toys(width, takes_s=0.002)]


def cost(batcher, seconds):
    """As if a full batch of each width had been measured to take so long."""
    batcher.costs_s = batcher.least_s = {(0, width): seconds(width) for width in batcher.widths}


def test_as_many_as_wait_are_asked_together_where_that_costs_less(batcher, toys):
    served = batcher(wide(toys))
    cost(served, lambda width: 0.001 * width**0.5)
    assert [served._width(0, waiting) for waiting in (1, 2, 4, 16)] == [1, 2, 4, 16]


def test_where_lanes_side_by_side_cost_as_much_they_are_asked_one_after_another(batcher, toys):
    served = batcher(wide(toys))
    cost(served, lambda width: 0.001 * width)
    assert [served._width(0, waiting) for waiting in (1, 8, 16)] == [1, 1, 1]


def test_widths_that_miss_the_deadline_are_not_used(batcher, toys):
    served = batcher(wide(toys))
    cost(served, lambda width: 0.018 + 0.002 * width)  # of 40 ms, 28 are to be used
    assert served.fits(0, 4) and not served.fits(0, 8)
    assert served._width(0, waiting=16) == 4


def test_once_the_deadline_is_missed_the_queue_is_done_as_soon_as_can_be_while_answers_are_of_use(batcher, toys):
    served = batcher(wide(toys))
    cost(served, lambda width: 0.018 + 0.002 * width)
    assert served._width(0, waiting=16, waited_s=0.015) == 4
    assert served._width(0, waiting=16, waited_s=0.025) == 16
    assert served._width(0, waiting=16, waited_s=0.025, left_s=0.05) == 8  # 34 ms; the widest takes 50 ms
    assert served._width(0, waiting=16, waited_s=0.025, left_s=0.01) == 1


def test_no_wider_policy_is_made_than_fits_and_than_there_are_clients(batcher, toys):
    assert batcher(wide(toys), lanes=3).widths == (1, 2, 4)
    assert batcher(lambda width: [toys(width, takes_s=0.02 * width)]).widths[-1] < 16
    assert batcher(lambda width: [toys(width, takes_s=0.01 * width**0.5)]).widths[-1] == 16


def test_the_oldest_question_is_never_passed_over(batcher, toys):
    held = Held(toys)
    served = batcher(held, widths=(1,))
    _, batches = held.together(served, [asked(lane, seed=0) for lane in (5, 2, 7, 1)])
    assert batches == [(5,), (2,), (7,), (1,)]


def test_a_question_past_its_deadline_is_refused_and_not_computed(batcher, toys):
    held = Held(toys)
    served = batcher(held)
    now_s = WallClock().now()
    [late, fine], batches = held.together(served, [asked(0, seed=0, until_s=now_s), asked(1, seed=0)])
    with pytest.raises(Late, match="waited"):
        late.result()
    assert fine.result() and batches == [(1,)] and served.late == 1


def test_a_question_of_nobody_is_not_computed(batcher, toys):
    held = Held(toys)
    served = batcher(held)
    gone, before = asked(0, seed=0), len(held.batches)
    gone.answered.cancel()
    served.ask(gone)
    served.ask(asked(1, seed=0)).result(WAIT_S)
    assert held.batches[before:] == [(1,)]


def test_who_breaks_a_batch_breaks_it_for_himself_alone(batcher, toys):
    held = Held(toys, takes_s=0.002)
    served = batcher(held)
    answers, _ = held.together(served, [asked(lane, lane, seed=lane) for lane in range(3)] + [broken(toys)])
    assert [first(answer) for answer in answers[:3]] == [[lane, lane, 0] for lane in range(3)]
    with pytest.raises(RuntimeError, match="burnt out"):
        answers[3].result()
    assert first(served.ask(asked(1, 1.0))) == [1, 1, 1]


def broken(toys):
    return Asked(9, np.full((2, 3), toys.BROKEN, np.float32), WallClock().now(), seed=0)


def test_each_question_is_answered_by_the_plan_that_it_names(batcher, toys):
    made = {}

    def make(width):
        made[width] = [toys(width, name="dear", takes_s=0.002), toys(width, name="cheap")]
        return made[width]

    served = batcher(make, ("dear", "cheap"))
    assert served.facts["plans"] == ["dear", "cheap"] and len(served.facts["costs_s"]) == 2
    served.ask(asked(0, seed=4, plan=1)).result(WAIT_S)
    assert made[1][1].asked[-1] == (0,)
    assert first(served.ask(asked(0, plan=0))) == [0, 4, 1]


def test_a_policy_that_cannot_take_over_a_lane_is_asked_alone(batcher, toys):
    assert batcher(lambda width: [Hidden(toys(width))]).widths == (1,)


class Hidden:
    """A policy without `adopt`."""

    def __init__(self, policy):
        self._policy = policy

    def __getattr__(self, name):
        if name == "adopt":
            raise AttributeError(name)
        return getattr(self._policy, name)


def test_what_making_a_policy_raises_reaches_whoever_waits():
    def make(width):
        raise InputError("no such checkpoint")

    with Batcher(make, ["toy"], load_budget("cpu-20hz")) as served:
        with pytest.raises(InputError, match="no such checkpoint"):
            served.wait(WAIT_S)
        assert not served.ready


def test_questions_that_are_left_at_the_end_are_cancelled(toys):
    held = Held(toys)
    with Batcher(held, ["toy"], load_budget("cpu-20hz")) as served:
        served.wait(WAIT_S)
        held.gate.clear()
        running = served.ask(asked(0, seed=0))
        stopper_runs(running)
        left = served.ask(asked(1, seed=0))
        threading.Timer(0.05, held.gate.set).start()
    assert running.result(WAIT_S) and left.cancelled()


class Hungry:
    """A policy that wants more memory than there is while `short` holds for its plan and the lanes that are asked."""

    def __init__(self, policy, plan, short):
        self._policy, self._plan, self._short = policy, plan, short

    def predict_with_tail(self, obs, lanes):
        if self._short(self._plan, len(lanes)):
            raise MemoryError("no page left")
        return self._policy.predict_with_tail(obs, lanes)

    def __getattr__(self, name):
        return getattr(self._policy, name)


def hungry(batcher, toys, plans=("dear", "cheap"), **options):
    """A batcher of hungry toys, and what is short of memory; of several clients with `held` the batches."""
    short, held = {"is": lambda plan, lanes: False}, Held(toys, takes_s=0.002)

    def make(width):
        return [Hungry(held(width)[0], plan, lambda *asked: short["is"](*asked)) for plan in range(len(plans))]

    return batcher(make, plans, **options), short, held


def test_a_plan_without_memory_is_answered_for_by_the_next_and_tried_again_after_a_while(batcher, toys):
    served, short, _ = hungry(batcher, toys, widths=(1,))
    short["is"] = lambda plan, lanes: plan == 0
    assert served.ask(asked(0, seed=4)).result(WAIT_S).plan == 1
    short["is"] = lambda plan, lanes: False
    plans = [served.ask(asked(0)).result(WAIT_S).plan for _ in range(RETRY)]
    assert plans == [1] * (RETRY - 1) + [0]


def test_where_no_plan_has_memory_that_is_said_and_may_be_over_with_the_next_question(batcher, toys):
    served, short, _ = hungry(batcher, toys, widths=(1,))
    short["is"] = lambda plan, lanes: True
    with pytest.raises(Full):
        served.ask(asked(0, seed=4)).result(WAIT_S)
    short["is"] = lambda plan, lanes: False
    assert served.ask(asked(0)).result(WAIT_S).plan == 1


def test_a_batch_without_memory_is_asked_one_by_one_and_the_next_is_narrower(batcher, toys):
    served, short, held = hungry(batcher, toys, plans=("only",))
    short["is"] = lambda plan, lanes: lanes > 2
    for batches in ([(0,), (1,), (2,), (3,)], [(0, 1), (2, 3)]):
        answers, got = held.together(served, [asked(lane, lane, seed=lane) for lane in range(4)])
        assert [first(answer) for answer in answers] == [[lane, lane, 0] for lane in range(4)]
        assert got == batches


def test_a_width_that_does_not_fit_into_memory_is_not_made_and_the_narrower_serve(toys):
    def make(width, most):
        return [Hungry(toys(width), 0, lambda plan, lanes: width > most)]

    with Batcher(lambda width: make(width, 2), ["toy"], load_budget("cpu-20hz")) as served:
        served.wait(WAIT_S)
        assert served.widths == (1, 2) and served.ask(asked(0, seed=0)).result(WAIT_S)
    with (
        Batcher(lambda width: make(width, 0), ["toy"], load_budget("cpu-20hz")) as served,
        pytest.raises(RunFailed, match="no memory for toy"),
    ):
        served.wait(WAIT_S)


def test_widths_are_compared_by_their_fastest_answers_so_that_other_programs_change_no_choice(batcher, toys):
    class Disturbed(toys):
        """Takes 2 ms whatever the width, and half the time 20 ms a lane, as beside another program."""

        def predict_with_tail(self, obs, lanes):
            clock = WallClock()
            clock.sleep_until(clock.now() + (0.02 * len(lanes) if len(self.asked) % 2 else 0.002))
            return super().predict_with_tail(obs, lanes)

    assert batcher(lambda width: [Disturbed(width)], lanes=4, widths=(1, 2, 4)).widths == (1, 2, 4)
