import functools
import os
import signal
import time

import numpy as np
import pytest

from ontick.errors import InputError, RunFailed
from ontick.runtime import LadderPolicy
from ontick.runtime.channel import FINE, FULL, REFUSED, Asked, Told
from ontick.runtime.faults import MEMORY
from ontick.runtime.inference import Inference, LocalSource, local_source
from ontick.runtime.memory import RETRY
from ontick.runtime.questions import Question


class Constant:
    """Answers with its number, [8, 2]."""

    n_obs_steps, n_action_steps, observation_dim, action_dim, calls_per_chunk = 1, 4, 3, 2, 1

    def __init__(self, number, raises=None):
        self.number, self.raises, self.seeds = number, raises, []

    def reset(self, lanes, seeds):
        self.seeds.append(list(seeds))

    def predict_with_tail(self, obs, lanes):
        if self.raises is not None:
            raise self.raises
        return np.full((len(lanes), 8, 2), self.number, np.float32)

    def predict_action_chunk(self, obs, lanes):
        return self.predict_with_tail(obs, lanes)[:, :4]

    def select_action(self, obs):
        return np.zeros((len(obs), 2), np.float32)


def ladder():
    return LadderPolicy(("dear", "cheap"), (Constant(1.0), Constant(2.0)), (0.02, 0.01))


def open_ladder():
    return local_source(ladder(), ["dear", "cheap"], [0.02, 0.01])


def refuse():
    raise InputError("got no checkpoint")


def asked(n=1, rung=0, begins=False):
    question = Question((0,), np.zeros((1, 1, 3), np.float32), (0,), None, (rung,))
    return Asked(n, 0.0, 0.0, 1.0, 9, begins, question)


def wait_for(inference, n, seconds=20.0):
    for _ in range(int(seconds / 0.005)):
        for record in inference.answers.take():
            if record["id"] == n:
                return Told.of(record)
        time.sleep(0.005)
    raise AssertionError("no answer")


@pytest.fixture(scope="module")
def inference():
    running = Inference.start(open_ladder)
    yield running
    running.stop()


def put(inference, question):
    inference.questions.put(question.record(inference.questions.dtype))
    inference.wake.release()


def test_a_question_is_answered_by_the_rung_that_was_asked(inference):
    assert inference.card.plans == ("dear", "cheap") and inference.card.rows == 8
    for n, (rung, number) in enumerate([(0, 1.0), (1, 2.0)], start=1):
        put(inference, asked(n, rung, begins=True))
        told = wait_for(inference, n)
        assert told.state == FINE and told.rung == rung and (told.given.rows == number).all()


def test_only_the_newest_of_the_questions_that_wait_is_answered(inference):
    for n in (10, 11, 12):
        inference.questions.put(asked(n).record(inference.questions.dtype))
    for _ in range(3):
        inference.wake.release()
    wait_for(inference, 12)
    time.sleep(0.1)
    assert inference.answers.take() == []


def test_a_rung_without_memory_is_answered_for_by_the_next_and_memory_may_come_back(inference):
    inference.fault.value = MEMORY
    put(inference, asked(20))
    told = wait_for(inference, 20)
    assert told.state == FINE and told.rung == 1 and (told.given.rows == 2.0).all()
    inference.fault.value = 0


def test_a_killed_process_is_seen_and_stop_frees_everything():
    running = Inference.start(open_ladder)
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.join(10)
    assert not running.process.is_alive()
    running.stop()


@pytest.mark.parametrize(
    "opens, error",
    [(refuse, InputError), (functools.partial(int, "x"), RunFailed), (functools.partial(os._exit, 3), RunFailed)],
)
def test_a_policy_that_cannot_be_made_is_told_in_the_parent(opens, error):
    with pytest.raises(error):
        Inference.start(opens)


def test_where_no_rung_fits_into_memory_the_answer_says_so():
    policy = LadderPolicy(("a", "b"), (Constant(1.0), Constant(2.0)), (0.02, 0.01))
    source = local_source(policy, ["a", "b"], [0.02, 0.01])
    for rung in policy.rungs:
        rung.raises = MemoryError()
    told = source.answer(asked(1, begins=True))
    assert told.state == FULL and told.given is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        type("OutOfMemoryError", (RuntimeError,), {})(),
    ],
    ids=["python", "words", "torch"],
)
def test_a_rung_that_had_no_memory_is_tried_again_after_a_while(error):
    policy = ladder()
    source = local_source(policy, ["dear", "cheap"], [0.02, 0.01])
    policy.rungs[0].raises = error
    assert source.answer(asked(1, begins=True)).rung == 1
    policy.rungs[0].raises = None
    assert [source.answer(asked(n)).rung for n in range(2, RETRY + 2)] == [1] * (RETRY - 1) + [0]


class Foreign(Constant):
    """Raises what an observation names."""

    def predict_with_tail(self, obs, lanes):
        errors = {1.0: ValueError("two\nlines"), 2.0: RuntimeError("é" * 300), 3.0: KeyError("image")}
        error = errors.get(float(obs[0, -1, 0]))
        if error is not None:
            raise error
        rows = 80 if obs[0, -1, 0] == 4.0 else 8  # 80: more than it was said to have
        return np.ones((len(lanes), rows, 2), np.float32)


def open_foreign():
    return local_source(Foreign(1.0), ["foreign"], [0.01])


def test_whatever_a_policy_raises_is_told_in_one_line_and_the_next_question_is_answered():
    running = Inference.start(open_foreign)
    try:
        for n, words in enumerate(["ValueError: two lines", "RuntimeError: éé", "KeyError: 'image'", "ValueError", ""]):
            obs = np.full((1, 1, 3), n + 1.0, np.float32)
            put(running, asked(n + 1)._replace(question=Question((0,), obs, (0,))))
            told = wait_for(running, n + 1)
            assert told.state == (REFUSED if words else FINE) and words in told.reason and "\n" not in told.reason
        assert running.process.is_alive()
    finally:
        running.stop()


def test_an_answer_of_another_shape_is_refused_with_the_reason():
    policy = Constant(1.0)
    source = local_source(policy, ["a"], [0.01])
    policy.predict_with_tail = lambda obs, lanes: np.zeros((1, 2, 5), np.float32)
    told = source.answer(asked(1)._replace(question=Question((0,), np.zeros((1, 1, 3), np.float32), (0,))))
    assert told.state == REFUSED and "(1, 2, 5)" in told.reason


def test_an_episode_that_begins_resets_the_policy_with_its_seed():
    policy = Constant(1.0)
    source = local_source(policy, ["a"], [0.01])
    assert isinstance(source, LocalSource)
    source.answer(asked(1, begins=True)._replace(question=Question((0,), np.zeros((1, 1, 3), np.float32), (0,))))
    assert policy.seeds[-1] == [9]
