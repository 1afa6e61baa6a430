"""Real-time iteration: every answer is a new birth from the answer before, shifted by the rows that were used; the
first is the cold plan's, and the whole list of levels from noise is plain DDPM.

Legend: L lanes, Tp rows, Da, K levels.
"""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.diffusion import GuessSpec, Plan, build, load_plan, run_chunk, shifted
from ontick.errors import InputError
from ontick.policy import DiffusionPolicy, serve
from ontick.policy.warm_policy import RealTimeIterationPolicy
from ontick.runtime import FollowingPolicy, Policy

RTI_3, RENOISED = load_plan("rti-3"), load_plan("rti-3-renoise")


@pytest.fixture
def make(random_checkpoint):
    """make(plan, width, lanes) -> a policy with its lanes reset to the seeds 100, 101, ..."""

    def policy(plan=RTI_3, width=3, lanes=3, about=None, config=None) -> RealTimeIterationPolicy:
        made = serve(random_checkpoint(config, about=about), plan, width)
        assert isinstance(made, RealTimeIterationPolicy)
        made.reset(range(lanes), range(100, 100 + lanes))
        return made

    return policy


@pytest.fixture
def starts(monkeypatch):
    """starts(policy) -> a list of what each later chunk of the warm program is born from and with: (guess, x)."""

    def listen(policy):
        born, start = [], policy.program.start

        def told(seed, birth, guess=None, device="cpu"):
            state = start(seed, birth, guess, device)
            born.append((guess.clone(), state.x.clone(), seed, birth))
            return state

        object.__setattr__(policy.program, "start", told)
        return born

    return listen


def chunk_of(policy, lane):
    """[Tp, Da], normalised: what a lane's next guess is made from."""
    return policy._previous[lane].clone()


# -- the levels -------------------------------------------------------------------------------------------------------


def test_the_complete_list_from_noise_is_plain_ddpm_bit_for_bit(tiny_config, random_network, keys):
    network, (seed, birth) = random_network(tiny_config()), keys(3, birth=4)
    warm, plain = (build(network, load_plan(name), (2,), 8) for name in ("rti-100", "ddpm-100"))
    context = network.prepare(torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(1)))
    noise = plain.start(seed, birth).x
    assert torch.equal(run_chunk(warm, context, seed, birth, noise), run_chunk(plain, context, seed, birth))


def test_renoised_is_born_at_the_level_it_enters(make, starts, observed):
    policy = make(RENOISED, width=1, lanes=1)
    policy.predict_with_tail(observed([0]), [0])
    born, previous = starts(policy), chunk_of(policy, 0)
    policy.follow([0], [2])
    policy.predict_with_tail(observed([0], seed=1), [0])
    (guess, x, seed, birth), program = born[0], policy.program
    index = torch.arange(8)[None]
    z = program.noise(seed, birth, index, torch.full_like(index, 3), torch.device("cpu"))
    assert torch.equal(guess[0], shifted(previous, 2)) and (seed, birth) == (torch.tensor([100]), torch.tensor([1]))
    alpha_bar = policy.checkpoint.network.schedule.alpha_bar[2]
    torch.testing.assert_close(x, alpha_bar**0.5 * guess + (1 - alpha_bar) ** 0.5 * z)


def test_without_renoise_the_guess_is_taken_as_it_is(make, starts, observed):
    policy = make(width=1, lanes=1)
    policy.predict_with_tail(observed([0]), [0])
    born = starts(policy)
    policy.predict_with_tail(observed([0], seed=1), [0])
    assert torch.equal(*born[0][:2])


@pytest.mark.parametrize("plan", ["rti-1", "rti-3", "rti-3-renoise", "rti-100"])
def test_with_an_oracle_every_answer_is_the_truth(plan, make, oracle, observed):
    policy = make(load_plan(plan), width=2, lanes=2)
    truth = torch.rand(8, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 1.6 - 0.8
    policy.checkpoint.network.predict = oracle(truth, "epsilon").predict
    wanted = policy.checkpoint.normaliser.unnormalise("action", truth.float())[policy.first_row :]
    for answer in range(4):
        got = policy.predict_with_tail(observed([0, 1], seed=answer), [0, 1])
        np.testing.assert_allclose(got, np.broadcast_to(wanted, got.shape), atol=1e-4)


# -- the shift --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", range(11))
def test_a_shift_moves_rows_to_the_front_and_repeats_the_last(rows):
    chunk = torch.arange(16.0).reshape(8, 2)
    wanted = torch.cat([chunk[rows:], chunk[-1:].expand(min(rows, 8), 2)])[:8]
    assert torch.equal(shifted(chunk, rows), wanted)


@pytest.mark.parametrize("plan", ["rti-3", "rti-3-every-2"])
def test_who_does_not_tell_has_played_the_actions_to_execute(plan, make, starts, observed):
    policy = make(load_plan(plan), width=1, lanes=1)
    born = starts(policy)
    for answer in range(3):
        before = chunk_of(policy, 0) if answer else None
        policy.predict_with_tail(observed([0], seed=answer), [0])
        if answer:
            assert torch.equal(born[answer - 1][0][0], shifted(before, policy.n_action_steps))


def test_the_shift_is_by_the_rows_told_a_lane_and_only_once(make, starts, observed):
    policy, told = make(width=3), {0: 3, 1: 0, 2: 5}
    policy.predict_with_tail(observed(range(3)), range(3))
    born = starts(policy)
    for rows in ([3, 0, 5], None):
        before = {lane: chunk_of(policy, lane) for lane in range(3)}
        if rows:
            policy.follow(range(3), rows)
        policy.predict_with_tail(observed(range(3), seed=1), range(3))
        for lane in range(3):
            wanted = told[lane] if rows else policy.n_action_steps
            assert torch.equal(born[-1][0][lane], shifted(before[lane], wanted))


# -- births -----------------------------------------------------------------------------------------------------------


def test_every_answer_is_a_new_birth_and_repeats_by_its_seed(make, observed):
    policy, obs = make(RENOISED, width=1, lanes=2), observed([0])
    first = []
    for _ in range(3):
        first.append(policy.predict_with_tail(obs, [0]))
        policy._previous[0] = torch.zeros(8, 2)  # the same guess each time: only the noise can differ
    assert not np.array_equal(first[1], first[2])
    policy.reset([1], [100])
    for wanted in first:
        assert np.array_equal(policy.predict_with_tail(obs, [1]), wanted)
        policy._previous[1] = torch.zeros(8, 2)
    policy.reset([0], [7])
    assert not np.array_equal(policy.predict_with_tail(obs, [0]), first[0])


@pytest.mark.parametrize("cold", ["ddim-10", "ddpm-7"])
def test_the_first_answer_after_a_reset_is_the_cold_plans_bit_for_bit(cold, make, random_checkpoint, observed):
    plan = dataclasses.replace(RTI_3, guess=GuessSpec(source="previous", cold=cold))
    policy, plain = make(plan), DiffusionPolicy(random_checkpoint(), load_plan(cold), 3)
    for _ in range(2):
        policy.reset([0, 1, 2], [7, 8, 9])
        plain.reset([0, 1, 2], [7, 8, 9])
        obs = observed(range(3))
        assert np.array_equal(policy.predict_with_tail(obs, range(3)), plain.predict_with_tail(obs, range(3)))
        assert not np.array_equal(policy.predict_with_tail(obs, range(3)), plain.predict_with_tail(obs, range(3)))


def test_an_answer_costs_the_calls_of_what_it_was_denoised_with(make, observed, overheard):
    policy = make(width=3)
    heard = overheard(policy.checkpoint.network)
    policy.predict_with_tail(observed([0, 1]), [0, 1])
    assert len(heard) == policy.calls_of(0) == policy.calls_of(1) == 10
    policy.predict_with_tail(observed([0, 1, 2]), [0, 1, 2])  # one of them cold
    assert len(heard) == 10 + 10 + 3
    assert [policy.calls_of(lane) for lane in range(3)] == [3, 3, 10] and policy.calls_per_chunk == 3
    assert {len(x) for x, *_ in heard} == {3}


def test_cold_and_warm_lanes_side_by_side_have_the_bits_they_have_alone(make, observed):
    def answers(lanes_by_answer, lane):
        policy, got = make(RENOISED), []
        for number, lanes in enumerate(lanes_by_answer):
            if lane in lanes:
                policy.follow(lanes, [number % 4 + i for i in lanes])
                chunks = policy.predict_with_tail(observed(lanes, seed=number), lanes)
                got.append(chunks[lanes.index(lane)])
            elif lanes:
                policy.predict_with_tail(observed(lanes, seed=number), lanes)
        return np.stack(got)

    mixed = [[0], [0, 1], [2, 1, 0], [1, 2], [0, 2, 1]]
    for lane in range(3):
        alone = [[lane] if lane in lanes else [] for lanes in mixed]
        assert np.array_equal(answers(mixed, lane), answers(alone, lane))


def test_a_reset_lane_is_cold_and_the_others_stay_warm(make, observed):
    policy, plain = make(), make()
    for p in (policy, plain):
        p.predict_with_tail(observed(range(3)), range(3))
    policy.follow(range(3), [5, 1, 2])
    plain.follow(range(3), [5, 1, 2])
    policy.reset([0], [100])
    got, wanted = (p.predict_with_tail(observed(range(3)), range(3)) for p in (policy, plain))
    assert np.array_equal(got[1:], wanted[1:])
    plain.reset([0], [100])
    assert np.array_equal(got[:1], plain.predict_with_tail(observed([0]), [0]))


def test_it_keeps_the_contract_of_a_policy_that_follows(make):
    policy = make()
    assert isinstance(policy, Policy) and isinstance(policy, FollowingPolicy) and policy.n_action_steps == 1


# -- grippers ---------------------------------------------------------------------------------------------------------


def test_clip_puts_discrete_dimensions_to_their_limits_in_what_is_kept_and_not_in_what_is_executed(make, observed):
    about = {"discrete_dims": [1]}
    clipping = dataclasses.replace(RTI_3, guess=GuessSpec(source="previous", clip=True))
    clipped, plain = make(clipping, about=about), make(about=about)
    obs = observed(range(3))
    got, wanted = (p.predict_with_tail(obs, range(3)) for p in (clipped, plain))
    assert np.array_equal(got, wanted)
    for lane in range(3):
        kept, raw = chunk_of(clipped, lane), chunk_of(plain, lane)
        assert torch.equal(kept[:, 0], raw[:, 0])
        assert torch.equal(kept[:, 1], torch.where(raw[:, 1] < 0, -0.1, 0.1)) and (raw[:, 1].abs() != 0.1).any()


def test_clip_without_discrete_dimensions_changes_nothing_and_unsaid_ones_are_refused_at_once(make, observed):
    clipping = dataclasses.replace(RTI_3, guess=GuessSpec(source="previous", clip=True))
    policy = make(clipping, about={"discrete_dims": []})
    policy.predict_with_tail(observed(range(3)), range(3))
    plain = make()
    plain.predict_with_tail(observed(range(3)), range(3))
    assert torch.equal(chunk_of(policy, 1), chunk_of(plain, 1))
    with pytest.raises(InputError, match="does not say which actions are discrete"):
        make(clipping)


# -- accelerated ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tail", "backend"),
    [("rti-3", False, "best"), ("rti-3", True, "eager"), ("rti-3-renoise-every-4", False, "eager")],
)
def test_on_the_exact_stack_answers_are_the_same_up_to_rounding(name, tail, backend, random_checkpoint, observed):
    checkpoint, plan = random_checkpoint(), dataclasses.replace(load_plan(f"exact-{name}"), backend=backend)
    exact = serve(checkpoint, plan, 2, partial(accel.build, tail=tail))
    plain = serve(checkpoint, load_plan(name), 2)
    for policy in (exact, plain):
        policy.reset([0, 1], [100, 101])
    for answer in range(5):
        got, wanted = (p.predict_with_tail(observed([0, 1], seed=answer), [0, 1]) for p in (exact, plain))
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, atol=1e-4)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cold", ["rti-3", "diagonal-4", "exact-ddim-10", "anchored-2"])
def test_a_cold_plan_that_needs_a_guess_or_a_queue_is_refused(cold, random_checkpoint):
    with pytest.raises(InputError, match="wanted a plain one that starts from noise"):
        serve(random_checkpoint(), dataclasses.replace(RTI_3, guess=GuessSpec(source="previous", cold=cold)))


def test_more_actions_than_are_predicted_are_refused(random_checkpoint):
    with pytest.raises(InputError, match="executes 8 actions of 7"):
        serve(random_checkpoint(), load_plan("rti-3-every-8"))
    assert serve(random_checkpoint(), load_plan("rti-3-every-7")).n_action_steps == 7


def test_a_plan_that_starts_from_something_else_is_refused(random_checkpoint):
    plans: list[Plan] = [load_plan("ddim-10"), load_plan("anchored-2")]
    for plan in plans:
        with pytest.raises(InputError, match="this policy from its previous answer"):
            RealTimeIterationPolicy(random_checkpoint(), plan)
