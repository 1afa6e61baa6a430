"""A queue on the diagonal in the loop: after the first answer each costs one network call, it is the engine's endless
program, and a lane's actions are its own at whatever tick its neighbours are.

Legend: L lanes, S steps of an action, H actions of a block.
"""

import dataclasses

import numpy as np
import pytest
import torch

from ontick.diffusion import Inputs, build, load_plan, run_stream
from ontick.errors import InputError
from ontick.policy import StreamingTransformer, serve
from ontick.policy.diagonal_policy import DiagonalPolicy
from ontick.runtime import FollowingPolicy, Policy


@pytest.fixture
def make(random_checkpoint, tiny_config):
    def policy(plan="diagonal-4", width=3, lanes=3, **changes) -> DiagonalPolicy:
        config = tiny_config(**{"horizon": 16, **changes})
        made = serve(random_checkpoint(config, family=StreamingTransformer), load_plan(plan), width)
        assert isinstance(made, DiagonalPolicy)
        made.reset(range(lanes), range(100, 100 + lanes))
        return made

    return policy


@pytest.mark.parametrize("block", [1, 2, 4, 8])
def test_an_answer_is_one_network_call_and_the_first_fills_the_queue(block, make, observed, overheard):
    policy = make(f"diagonal-{block}", width=2)
    heard = overheard(policy.checkpoint.network)
    assert policy.n_action_steps == block and policy.calls_per_chunk == 1
    for answer in range(4):
        chunk = policy.predict_with_tail(observed([0, 1], seed=answer), [0, 1])
        assert chunk.shape == (2, block, 2)
        assert len(heard) == 16 // block + answer
        assert policy.calls_of(0) == policy.calls_of(1) == (1 if answer else 16 // block)
    assert {len(x) for x, *_ in heard} == {2}


@pytest.mark.parametrize("block", [1, 4, 8])
def test_with_one_observation_it_is_the_engines_stream_bit_for_bit(block, make, observed):
    plan, obs = f"diagonal-{block}", observed([0])
    policy = make(plan, width=1, lanes=1)
    got = np.concatenate([policy.predict_with_tail(obs, [0])[0] for _ in range(3 * 16 // block)])
    network, normaliser = policy.checkpoint.network, policy.checkpoint.normaliser
    program = build(network, load_plan(plan), (2,), None)
    inputs = Inputs(program.prepare(normaliser.normalise("obs", torch.from_numpy(obs))))
    with torch.inference_mode():
        stream = list(run_stream(program, inputs, torch.tensor([100]), torch.tensor([0]), len(got)))
        wanted = normaliser.unnormalise("action", torch.cat(stream))
    assert np.array_equal(got, wanted.numpy())


def test_the_newest_observation_moves_every_action_of_the_queue(make, observed):
    # Without a clip, which puts noisy rows at the same limit.
    one, other = (make(width=1, lanes=1, clip=None) for _ in range(2))
    for policy in (one, other):
        policy.predict_with_tail(observed([0]), [0])
    one.predict_with_tail(observed([0], seed=1), [0])
    other.predict_with_tail(observed([0], seed=2), [0])
    state, twin, program = one._states[0], other._states[0], one.program
    born = program.level(state.tick, program.index(state.tick))[0] == 4  # these rows hold noise alone
    assert torch.equal((state.x != twin.x).any(-1)[0], ~born) and born.sum() == 4


def answers(policy, asked, observed, lane):
    """What a lane is answered where the lanes of `asked` are asked one after another; None resets lane 1."""
    got = []
    for number, lanes in enumerate(asked):
        if lanes is None:
            policy.reset([1], [555])
        elif lanes:
            chunks = policy.predict_with_tail(observed(lanes, seed=number), lanes)
            got += [chunks[lanes.index(lane)]] if lane in lanes else []
    return np.stack(got)


def test_a_lane_has_the_bits_it_has_alone_whatever_tick_the_others_are_at(make, observed):
    mixed = [[0], [0], [1, 0], [2], None, [0, 1], [2, 1, 0], [1], [0, 2], [2, 0, 1]]
    for lane in range(3):
        alone = [None if lanes is None else [lane] * (lane in lanes) for lanes in mixed]
        assert np.array_equal(answers(make(), mixed, observed, lane), answers(make(), alone, observed, lane))


def test_what_the_neighbours_see_changes_no_bit(make, observed):
    calm, wild = make(), make()
    for answer in range(4):
        obs = observed(range(3), seed=answer)
        wanted = calm.predict_with_tail(obs, range(3))[1]
        obs[[0, 2]] = 1e3
        assert np.array_equal(wild.predict_with_tail(obs, range(3))[1], wanted)


def test_more_lanes_than_the_width_and_another_width_agree(make, observed):
    one, many = make(width=1, lanes=5), make(width=4, lanes=5)
    for answer in range(4):
        obs = observed(range(5), seed=answer)
        np.testing.assert_allclose(
            one.predict_with_tail(obs, range(5)), many.predict_with_tail(obs, range(5)), atol=1e-4
        )


def test_a_reset_lane_begins_again_and_leaves_the_others(make, observed):
    policy, plain = make(), make()
    first = policy.predict_with_tail(observed(range(3)), range(3))
    plain.predict_with_tail(observed(range(3)), range(3))
    policy.reset([1], [101])
    again, onward = (p.predict_with_tail(observed(range(3)), range(3)) for p in (policy, plain))
    assert np.array_equal(again[1], first[1]) and np.array_equal(again[[0, 2]], onward[[0, 2]])
    assert [policy.calls_of(lane) for lane in range(3)] == [1, 4, 1]


def test_being_told_what_was_used_changes_nothing(make, observed):
    told, untold = make(), make()
    for answer in range(3):
        obs = observed(range(3), seed=answer)
        told.follow(range(3), [answer, 4, 1])
        assert np.array_equal(told.predict_with_tail(obs, range(3)), untold.predict_with_tail(obs, range(3)))


def test_select_action_plays_block_after_block(make, observed):
    policy, plain = make("diagonal-2", width=2, lanes=2), make("diagonal-2", width=2, lanes=2)
    stream = [observed([0, 1], seed=t, steps=1)[:, 0] for t in range(5)]
    played = np.stack([policy.select_action(obs) for obs in stream], 1)
    windows = [np.stack(pair, 1) for pair in ((stream[0], stream[0]), (stream[1], stream[2]), (stream[3], stream[4]))]
    wanted = np.concatenate([plain.predict_action_chunk(window, [0, 1]) for window in windows], 1)
    assert np.array_equal(played, wanted[:, :5])


def test_with_an_oracle_every_answer_is_the_truth(make, oracle, observed):
    policy = make(width=1, lanes=1)
    truth = torch.rand(64, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 1.6 - 0.8
    policy.checkpoint.network.predict = oracle(truth, "epsilon").predict
    wanted = policy.checkpoint.normaliser.unnormalise("action", truth.float()).numpy()
    for answer in range(10):
        got = policy.predict_with_tail(observed([0], seed=answer), [0])[0]
        np.testing.assert_allclose(got, wanted[4 * answer : 4 * answer + 4], atol=1e-4)


def test_it_keeps_the_contract_of_a_policy_that_follows(make):
    assert isinstance(make(), Policy) and isinstance(make(), FollowingPolicy)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_a_network_with_one_level_a_sample_or_too_few_rows_is_refused(random_checkpoint, tiny_config):
    with pytest.raises(InputError, match="one level a sample"):
        serve(random_checkpoint(tiny_config(horizon=16)), load_plan("diagonal-4"))
    with pytest.raises(InputError, match="queue of 16 rows, the network 8"):
        serve(random_checkpoint(tiny_config(), family=StreamingTransformer), load_plan("diagonal-4"))


def test_a_plan_without_a_queue_one_from_a_guess_and_one_that_executes_less_are_refused(random_checkpoint, tiny_config):
    checkpoint = random_checkpoint(tiny_config(horizon=16), family=StreamingTransformer)
    diagonal = load_plan("diagonal-4")
    for plan, complaint in (
        (load_plan("ddim-10"), "has stagger 0"),
        (dataclasses.replace(diagonal, execute=2), "executes 2, its queue gives 4"),
        (dataclasses.replace(diagonal, birth="guess"), "starts from a guess"),
    ):
        with pytest.raises(InputError, match=complaint):
            DiagonalPolicy(checkpoint, plan)
    assert serve(checkpoint, load_plan("diagonal-4-every-4")).n_action_steps == 4


@pytest.mark.parametrize("changes", [{"stagger": 2}, {"stagger": 16}, {"stagger": 1, "view": "lookahead", "pieces": 2}])
def test_queues_that_do_not_give_a_block_with_every_call_are_refused(changes, random_checkpoint, tiny_config):
    plan = dataclasses.replace(load_plan("diagonal-4"), **changes)
    checkpoint = random_checkpoint(tiny_config(horizon=16), family=StreamingTransformer)
    with pytest.raises(InputError, match="wanted 1 and all"):
        serve(checkpoint, plan)


def test_a_queue_that_is_born_below_the_noise_is_refused(random_checkpoint, tiny_config):
    checkpoint = random_checkpoint(tiny_config(horizon=16, train_levels=1000), family=StreamingTransformer)
    with pytest.raises(InputError, match=r"sigma 0\.1"):
        serve(checkpoint, load_plan("diagonal-4"))
