"""Anchors in the loop: all of them are denoised side by side, and the one that is executed is the most confident, one
drawn by confidence, or the one that follows from the answer before.

Legend: L lanes, K anchors (the warm one included), Tp rows, Da.
"""

import dataclasses

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.diffusion import GuessSpec, Prediction, load_plan, shifted
from ontick.errors import InputError
from ontick.policy import AnchoredDecoder, serve
from ontick.policy.anchored_policy import AnchoredPolicy
from ontick.runtime import FollowingPolicy, Policy

ANCHORED_2 = load_plan("anchored-2-argmax")
K = 5


def guessing(plan=ANCHORED_2, **settings):
    return dataclasses.replace(plan, guess=GuessSpec(source="anchors", **settings))


@pytest.fixture
def make(random_checkpoint, tiny_anchored_config):
    def policy(plan=ANCHORED_2, width=2, lanes=2, about=None, **changes) -> AnchoredPolicy:
        checkpoint = random_checkpoint(tiny_anchored_config(**changes), family=AnchoredDecoder, about=about)
        made = serve(checkpoint, plan, width)
        assert isinstance(made, AnchoredPolicy)
        made.reset(range(lanes), range(100, 100 + lanes))
        return made

    return policy


@pytest.fixture
def scripted(monkeypatch):
    """scripted(policy, probability [k]): every lane predicts its own anchor, the warm one what it was born from, with
    these confidences, whatever is observed."""

    def script(policy, probability):
        network = policy.network
        score = torch.tensor(probability).log()

        def predict(x, label, context, rows=None):
            chunks = x.reshape(len(context), -1, *x.shape[1:]).clone()
            chunks[:, : len(network.anchors)] = network.anchors
            return Prediction(chunks.reshape(x.shape), score.repeat(len(context)))

        monkeypatch.setattr(network, "predict", predict)

    return script


def executed(policy, answer):
    """[L, Tp, Da], normalised, of an answer with its tail."""
    return policy.checkpoint.normaliser.normalise("action", torch.from_numpy(answer))


def picks(policy, answer):
    """Which anchor each lane of an answer is."""
    return policy.network.nearest(executed(policy, answer)).tolist()


# -- what is denoised -------------------------------------------------------------------------------------------------


def test_the_network_is_told_10_and_0_while_the_noise_is_that_of_levels_8_and_0(make, observed, overheard):
    policy = make(width=1, lanes=1)
    heard = overheard(policy.network)
    policy.predict_with_tail(observed([0]), [0])
    (x, label, first), (after, label_after, _) = heard
    assert (label == 10).all() and (label_after == 0).all()
    a, s = (torch.tensor([v[0], v[8]]).sqrt().float() for v in (_bars(policy), 1 - _bars(policy)))
    index = torch.arange(8).expand(K, -1)
    z = policy.program.noise(
        torch.full((K,), 100), torch.arange(K), index, torch.full_like(index, 2), torch.device("cpu")
    )
    torch.testing.assert_close(x, a[1] * policy.network.anchors + s[1] * z)
    x0 = first.x.clamp(-1, 1)
    wanted = a[0] * x0 + s[0] * (x - a[1] * first.x) / s[1]  # the network's own eps, where x0 was clipped
    torch.testing.assert_close(after, wanted, atol=1e-5, rtol=1e-4)


def _bars(policy):
    return policy.network.schedule.alpha_bar


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_an_answer_costs_the_plans_calls_at_all_anchors_of_all_lanes(calls, make, observed, overheard):
    policy = make(load_plan(f"anchored-{calls}"), width=3)
    heard = overheard(policy.network)
    policy.predict_with_tail(observed([0, 1]), [0, 1])
    assert len(heard) == calls == policy.calls_per_chunk == policy.calls_of(0)
    assert {len(x) for x, *_ in heard} == {3 * K}


def test_every_anchor_has_noise_of_its_own_in_every_answer(make, observed, overheard):
    policy = make(width=2)
    policy.network.anchors.zero_()
    heard = overheard(policy.network)
    for _ in range(2):
        policy.predict_with_tail(observed([0, 1]), [0, 1])
    noise = torch.cat([heard[0][0], heard[2][0]]).flatten(1)
    assert len(noise.unique(dim=0)) == 2 * 2 * K
    assert noise.std() == pytest.approx((1 - _bars(policy)[8]) ** 0.5, rel=0.2)
    policy.reset([0, 1], [100, 101])
    policy.predict_with_tail(observed([0, 1]), [0, 1])
    assert torch.equal(heard[4][0], heard[0][0])


# -- which is executed ------------------------------------------------------------------------------------------------


def test_the_most_confident_at_the_last_call_is_executed(make, observed, overheard):
    policy = make(width=4, lanes=4)
    heard = overheard(policy.network)
    answer = policy.predict_with_tail(observed(range(4)), range(4))
    last = heard[-1][2]
    best = last.score.reshape(4, K).argmax(1)
    wanted = last.x.reshape(4, K, 8, 2)[torch.arange(4), best].clamp(-1, 1)
    torch.testing.assert_close(executed(policy, answer), wanted, atol=1e-5, rtol=1e-5)
    assert (heard[0][2].score.reshape(4, K).argmax(1) != best).any(), "another call would have picked another"


def test_sampling_draws_anchors_by_their_probabilities(make, scripted, observed):
    lanes, probability = range(400), [0.5, 0.3, 0.15, 0.05, 1e-30]
    policy = make(guessing(pick="sample"), width=400, lanes=400)
    scripted(policy, probability)
    drawn = [pick for _ in range(4) for pick in picks(policy, policy.predict_with_tail(observed(lanes), lanes))]
    share = np.bincount(drawn, minlength=K) / len(drawn)
    error = np.sqrt(np.array(probability) * (1 - np.array(probability)) / len(drawn))
    assert (np.abs(share - probability) <= 4.5 * error + 1e-12).all()


def test_what_is_drawn_is_keyed_by_seed_and_answer(make, scripted, observed):
    policy = make(guessing(pick="sample"), width=1, lanes=2)
    scripted(policy, [0.2] * K)

    def drawn(lane, seed):
        policy.reset([lane], [seed])
        return [picks(policy, policy.predict_with_tail(observed([lane]), [lane]))[0] for _ in range(12)]

    first = drawn(0, 3)
    assert drawn(1, 3) == first != drawn(0, 4) and len(set(first)) > 1


@pytest.mark.parametrize(("lead", "kept"), [(0.1, True), (0.29, True), (0.31, False), (0.6, False)])
def test_a_margin_keeps_the_anchor_that_follows_from_the_answer_before(lead, kept, make, scripted, observed):
    policy = make(guessing(margin=0.3), width=1, lanes=1)
    before, other, rest = 0.3, 0.3 + lead, (0.4 - lead) / 3
    if rest < 0:
        before, other, rest = 0.1, 0.1 + lead, (0.8 - lead) / 3
    scripted(policy, [0.96, 0.01, 0.01, 0.01, 0.01])
    assert picks(policy, policy.predict_with_tail(observed([0]), [0])) == [0]
    follows = int(policy.network.nearest(shifted(policy._previous[0], 2)))
    rival = next(k for k in range(K) if k != follows)
    probability = [rest] * K
    probability[follows], probability[rival] = before, other
    scripted(policy, probability)
    policy.follow([0], [2])
    assert picks(policy, policy.predict_with_tail(observed([0]), [0])) == [follows if kept else rival]


def test_a_margin_does_not_bind_the_first_answer(make, scripted, observed):
    policy = make(guessing(margin=1.0), width=1, lanes=1)
    for best in range(K):
        policy.reset([0], [7])
        scripted(policy, [0.6 if k == best else 0.1 for k in range(K)])
        assert picks(policy, policy.predict_with_tail(observed([0]), [0])) == [best]


# -- the warm anchor --------------------------------------------------------------------------------------------------


def test_the_warm_anchor_is_the_shifted_answer_before_noised_like_any_other(make, observed, overheard):
    policy = make(guessing(warm=True), width=1, lanes=1)
    policy.predict_with_tail(observed([0]), [0])
    previous, heard = policy._previous[0].clone(), overheard(policy.network)
    policy.follow([0], [3])
    policy.predict_with_tail(observed([0], seed=1), [0])
    x = heard[0][0]
    assert len(x) == K + 1
    index = torch.arange(8)[None]
    z = policy.program.noise(
        torch.tensor([100]), torch.tensor([2 * (K + 1) - 1]), index, torch.full_like(index, 2), torch.device("cpu")
    )
    bar = _bars(policy)[8]
    torch.testing.assert_close(x[K], bar**0.5 * shifted(previous, 3) + (1 - bar) ** 0.5 * z[0])


def test_the_first_answer_has_no_warm_anchor_and_a_later_one_may_be_it(make, scripted, observed):
    policy = make(guessing(warm=True), width=2)
    scripted(policy, [0.01, 0.09, 0.01, 0.01, 0.01, 0.87])
    first = policy.predict_with_tail(observed([0]), [0])
    assert picks(policy, first) == [1]
    mixed = executed(policy, policy.predict_with_tail(observed([0, 1]), [0, 1]))  # lane 1 is at its first answer
    anchors = policy.network.anchors
    assert torch.isclose(mixed[1], anchors[1], atol=1e-5).all()
    assert not any(torch.isclose(mixed[0], anchor, atol=1e-5).all() for anchor in anchors)
    assert (mixed[0] - shifted(anchors[1], 4)).abs().max() < 0.3  # the warm lane: the shifted answer, noised a little


def test_with_a_warm_anchor_the_margin_keeps_that_one(make, scripted, observed):
    policy = make(guessing(warm=True, margin=0.5), width=1, lanes=1)
    scripted(policy, [0.4, 0.1, 0.1, 0.1, 0.1, 0.2])
    assert picks(policy, policy.predict_with_tail(observed([0]), [0])) == [0]
    second = executed(policy, policy.predict_with_tail(observed([0]), [0]))[0]
    assert (second - shifted(policy.network.anchors[0], 4)).abs().max() < 0.3


# -- a lane's actions are its own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"warm": True, "margin": 0.2}, {"pick": "sample", "warm": True}], ids=str)
def test_lanes_side_by_side_have_the_bits_they_have_alone(settings, make, observed):
    mixed = [[0], [0, 1], [2, 1, 0], [1, 2], [0, 2, 1]]

    def answers(asked, lane):
        policy, got = make(guessing(**settings), width=3, lanes=3), []
        for number, lanes in enumerate(asked):
            if lanes:
                chunks = policy.predict_with_tail(observed(lanes, seed=number), lanes)
                got += [chunks[lanes.index(lane)]] if lane in lanes else []
        return np.stack(got)

    for lane in range(3):
        alone = [[lane] if lane in lanes else [] for lanes in mixed]
        assert np.array_equal(answers(mixed, lane), answers(alone, lane))


def test_a_reset_lane_has_no_answer_before_it(make, observed):
    policy, plain = (make(guessing(warm=True, margin=0.2)) for _ in range(2))
    first = policy.predict_with_tail(observed([0, 1]), [0, 1])
    plain.predict_with_tail(observed([0, 1]), [0, 1])
    policy.reset([0], [100])
    again, onward = (p.predict_with_tail(observed([0, 1]), [0, 1]) for p in (policy, plain))
    assert np.array_equal(again[0], first[0]) and np.array_equal(again[1], onward[1])


def test_on_the_best_backend_answers_are_the_same_up_to_rounding(make, observed):
    settings = {"warm": True, "margin": 0.2}
    plain = make(guessing(**settings))
    exact = serve(plain.checkpoint, guessing(load_plan("exact-anchored-2"), **settings), 2, accel.build)
    exact.reset([0, 1], [100, 101])
    for answer in range(4):
        obs = observed([0, 1], seed=answer)
        got, wanted = (policy.predict_with_tail(obs, [0, 1]) for policy in (exact, plain))
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_it_keeps_the_contract_of_a_policy_that_follows(make, observed):
    policy = make()
    assert isinstance(policy, Policy) and isinstance(policy, FollowingPolicy)
    assert policy.predict_with_tail(observed([0]), [0]).shape == (1, 8, 2) and policy.n_action_steps == 4


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_a_network_without_anchors_and_a_plan_without_them_are_refused(random_checkpoint, tiny_anchored_config):
    with pytest.raises(InputError, match="needs a network with anchors"):
        serve(random_checkpoint(), ANCHORED_2)
    with pytest.raises(InputError, match="this policy from anchors"):
        AnchoredPolicy(random_checkpoint(tiny_anchored_config(), family=AnchoredDecoder), load_plan("ddim-10"))


def test_more_actions_than_are_predicted_are_refused(make):
    assert make(load_plan("anchored-2-every-8")).n_action_steps == 8
    with pytest.raises(InputError, match="executes 9 actions of 8"):
        make(load_plan("anchored-2-every-9"))


def test_levels_that_the_anchors_were_not_trained_at_are_refused(random_checkpoint, tiny_anchored_config):
    checkpoint = random_checkpoint(tiny_anchored_config(noised_levels=5), family=AnchoredDecoder)
    with pytest.raises(InputError, match="goes up to level 10, and the anchors were noised up to 4"):
        serve(checkpoint, load_plan("anchored-2"))
