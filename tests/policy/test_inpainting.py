"""Answers that are to agree with rows which are being played: told once, for one answer, in the units of the
commands."""

from functools import partial

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.diffusion import load_plan
from ontick.policy import AnchoredDecoder, StreamingTransformer, serve
from ontick.runtime import AdoptingPolicy, InpaintingPolicy

PLANS = ["ddpm-10", "ddim-4", "rti-3", "rti-3-renoise"]


@pytest.fixture
def make(random_checkpoint):
    def policy(plan="ddim-4", width=2, build=None, family=None, config=None):
        checkpoint = random_checkpoint(config, **({} if family is None else {"family": family}))
        made = serve(checkpoint, load_plan(plan), width, **({} if build is None else {"build": build}))
        made.reset([0, 1], [100, 101])
        return made

    return policy


def rows_of(policy, value, m=5):
    """m rows whose normalised values are all `value`."""
    x = torch.full((m, policy.action_dim), value)
    return policy.checkpoint.normaliser.unnormalise("action", x).numpy()


def normalised(policy, rows):
    return policy.checkpoint.normaliser.normalise("action", torch.from_numpy(rows)).numpy()


@pytest.mark.parametrize("plan", PLANS)
def test_the_answer_comes_nearer_to_the_fixed_rows_of_its_own_lane(make, observed, plan):
    plain, told = make(plan), make(plan)
    assert isinstance(told, InpaintingPolicy) and isinstance(told, AdoptingPolicy)
    obs = observed([0, 1])
    for policy in (plain, told):  # a first answer, so that warm starts are warm
        policy.predict_action_chunk(obs, [0, 1])
    told.inpaint([0, 1], [rows_of(told, 0.7), np.zeros((0, 2))], [4, 0])
    a, b = (normalised(policy, policy.predict_with_tail(obs, [0, 1])) for policy in (plain, told))
    assert np.abs(b[0, :4] - 0.7).mean() < np.abs(a[0, :4] - 0.7).mean()
    np.testing.assert_array_equal(a[1], b[1])


def test_it_is_told_for_one_answer_alone(make, observed):
    plain, told = make(), make()
    obs = observed([0, 1])
    told.inpaint([0], [rows_of(told, 0.7)], [3])
    for i in range(3):
        a, b = (policy.predict_action_chunk(obs, [0, 1]) for policy in (plain, told))
        assert np.array_equal(a, b) == (i > 0)


def test_a_reset_forgets_what_was_told(make, observed):
    plain, told = make(), make()
    told.inpaint([0], [rows_of(told, 0.7)], [3])
    told.reset([0, 1], [100, 101])
    obs = observed([0, 1])
    np.testing.assert_array_equal(*(policy.predict_action_chunk(obs, [0, 1]) for policy in (plain, told)))


def test_a_rewritten_network_is_guided_by_the_identity(make, observed):
    build = partial(accel.build, tail=True, device="cpu")
    policies = [make("exact-ddim-4", build=build) for _ in range(2)]
    obs = observed([0, 1])
    policies[1].inpaint([0], [rows_of(policies[1], 0.7)], [4])
    a, b = (normalised(policy, policy.predict_with_tail(obs, [0, 1])) for policy in policies)
    assert np.abs(b[0, :4] - 0.7).mean() < np.abs(a[0, :4] - 0.7).mean()
    untouched = [normalised(policy, policy.predict_with_tail(obs, [0, 1])) for policy in policies]
    np.testing.assert_array_equal(a[1], b[1], "a lane's bits do not depend on whether its neighbour is guided")
    np.testing.assert_array_equal(*untouched)


def test_every_anchor_of_a_lane_is_guided_by_its_rows(make, observed, tiny_anchored_config):
    policies = [make("anchored-2-argmax", family=AnchoredDecoder, config=tiny_anchored_config()) for _ in range(2)]
    obs = observed([0, 1])
    policies[1].inpaint([0], [rows_of(policies[1], 0.7)], [4])
    a, b = (policy.predict_with_tail(obs, [0, 1]) for policy in policies)
    assert not np.array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


def test_a_queue_takes_no_notice(make, observed, tiny_config):
    config = tiny_config(horizon=16)
    policies = [make("diagonal-4", family=StreamingTransformer, config=config) for _ in range(2)]
    obs = observed([0, 1])
    policies[1].inpaint([0], [rows_of(policies[1], 0.7)], [2])
    np.testing.assert_array_equal(*(policy.predict_action_chunk(obs, [0, 1]) for policy in policies))


# -- taking over from another policy ----------------------------------------------------------------------------------


def test_a_warm_start_follows_from_an_answer_that_another_policy_gave(make, observed):
    """The same answer, its own or adopted, gives the same next one, but for the units it went through."""
    own, adopting = make("rti-3"), make("rti-3")
    obs = observed([0, 1])
    answers = own.predict_with_tail(obs, [0, 1])
    adopting.adopt([0, 1], list(answers), [1, 1])
    for policy in (own, adopting):
        policy.follow([0, 1], [2, 2])
    a, b = (policy.predict_with_tail(obs, [0, 1]) for policy in (own, adopting))
    np.testing.assert_allclose(a, b, atol=2e-5)
    assert adopting.calls_of(0) == 3, "it is warm"


def test_an_adopted_lanes_next_answer_is_a_birth_of_its_own(make, observed):
    first, later = make("ddim-4"), make("ddim-4")
    obs = observed([0, 1])
    later.adopt([0, 1], [np.zeros((7, 2))] * 2, [5, 5])
    assert not np.array_equal(first.predict_action_chunk(obs, [0, 1]), later.predict_action_chunk(obs, [0, 1]))
    for _ in range(5):
        first.predict_action_chunk(obs, [0, 1])
    np.testing.assert_array_equal(first.predict_action_chunk(obs, [0, 1]), later.predict_action_chunk(obs, [0, 1]))
