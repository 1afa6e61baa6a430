"""Parallel in time, in the loop: a converged answer is the sequential policy's, warm or cold; a warm one is told the
shifted previous answer; and each lane's evaluations are counted.

Legend: L lanes, Tp rows, Da.
"""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.diffusion import load_plan, shifted
from ontick.errors import InputError
from ontick.policy import DiffusionPolicy, serve
from ontick.policy.picard_policy import PicardPolicy
from ontick.runtime import FollowingPolicy, Policy


@pytest.fixture
def make(random_checkpoint, tiny_config):
    """make(plan, width, lanes) -> a policy with its lanes reset to the seeds 100, 101, ..."""

    def policy(plan, width=3, lanes=3) -> DiffusionPolicy:
        made = serve(random_checkpoint(tiny_config(clip=1.0)), plan, width, partial(accel.build, tail=True))
        made.reset(range(lanes), range(100, 100 + lanes))
        return made

    return policy


@pytest.fixture
def told():
    """told(policy) -> a list of what the executor is told each later chunk was before."""

    def listen(policy):
        guesses, chunk = [], policy.program.executor.chunk
        policy.program.executor.chunk = lambda program, start: (guesses.append(start.guess), chunk(program, start))[1]
        return guesses

    return listen


def planned(name="picard-6-ddpm-12", **settings):
    plan = load_plan(name)
    return dataclasses.replace(plan, accelerators={"picard": {**plan.accelerators["picard"], **settings}})


@pytest.mark.parametrize("name", ["picard-6-ddpm-12", "picard-6-ddpm-12-warm", "picard-8-ddim-10-warm"])
def test_converged_answers_are_the_sequential_policys_answer_after_answer(make, observed, name):
    sampler = "ddim-10" if "ddim" in name else "ddpm-12"
    parallel, plain = make(planned(name, tolerance=0)), make(load_plan(sampler))
    assert isinstance(parallel, PicardPolicy)
    for answer in range(3):
        obs = observed([0, 1, 2], seed=answer)
        got, wanted = (policy.predict_with_tail(obs, [0, 1, 2]) for policy in (parallel, plain))
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_it_follows_as_the_loop_asks_it_to(make):
    policy = make(planned("picard-6-ddpm-12-warm"))
    assert isinstance(policy, Policy) and isinstance(policy, FollowingPolicy)
    assert policy.calls_per_chunk == 12 and policy.refreshes is None


def test_a_lanes_evaluations_are_counted(make, observed):
    policy = make(planned(window=5))
    policy.predict_action_chunk(observed([0, 1]), [0, 1])
    spent = policy.program.executor.spent
    for i, lane in enumerate((0, 1)):
        assert policy.calls_of(lane) == spent.evaluations[i] == 5 * spent.iterations[i]
    assert policy.calls_of(2) == policy.calls_per_chunk, "it has not answered yet"


def test_a_warm_answer_is_told_the_previous_one_shifted_and_a_first_one_zero(make, told, observed):
    policy = make(planned("picard-6-ddpm-12-warm"), width=3)
    guesses = told(policy)
    policy.predict_with_tail(observed([0]), [0])
    assert not guesses[0].any()
    previous = policy._previous[0].clone()
    policy.follow([0], [3])
    policy.predict_with_tail(observed([0, 1], seed=1), [0, 1])
    assert torch.equal(guesses[1][0], shifted(previous, 3)) and not guesses[1][1].any()
    policy.reset([0], [7])
    policy.predict_with_tail(observed([0]), [0])
    assert not guesses[2].any(), "an episode begins cold"


def test_a_cold_plan_is_told_nothing(make, told, observed):
    policy = make(planned())
    guesses = told(policy)
    for answer in range(2):
        policy.predict_with_tail(observed([0], seed=answer), [0])
    assert guesses == [None, None]


def test_a_birth_from_a_guess_is_refused(random_checkpoint):
    plan = dataclasses.replace(load_plan("rti-6"), accelerators={"picard": {"window": 3}})
    with pytest.raises(InputError, match="starts from a guess"):
        serve(random_checkpoint(), plan, build=accel.build)
