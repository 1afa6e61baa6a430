"""A diffusion policy as the loop sees it. A lane's actions are its own: whoever is served beside it changes no bit.

Legend: L lanes asked, To, Ta, Da, Do; Th = Tp - To + 1.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.diffusion import Denoiser, GridSpec, Plan, load_plan
from ontick.errors import InputError
from ontick.policy import DiffusionPolicy, TransformerConfig
from ontick.runtime import Policy

DDPM_5, DDIM_3 = load_plan("ddpm-5"), load_plan("ddim-3")


@pytest.fixture
def make(random_checkpoint):
    def policy(plan=DDPM_5, width=4, config=None) -> DiffusionPolicy:
        return DiffusionPolicy(random_checkpoint(config), plan, width)

    return policy


def observations(lanes, seed=0, steps=2, dim=3):
    """[lanes, steps, dim], the same for a lane whatever the number of lanes."""
    return np.stack([np.random.default_rng([seed, lane]).normal(size=(steps, dim)) for lane in lanes]).astype("f4")


def fresh(policy, lanes, seed=100):
    policy.reset(lanes, [seed + lane for lane in lanes])
    return policy


# -- the contract -----------------------------------------------------------------------------------------------------


def test_it_keeps_the_contract_of_a_policy(make):
    policy = fresh(make(), [0, 1, 2])
    assert isinstance(policy, Policy)
    obs = observations([0, 1, 2])
    assert policy.predict_action_chunk(obs, [0, 1, 2]).shape == (3, policy.n_action_steps, policy.action_dim)
    assert policy.select_action(obs[:, -1]).shape == (3, policy.action_dim)
    tail = policy.predict_with_tail(obs, [0, 1, 2])
    assert tail.shape == (3, 8 - 2 + 1, policy.action_dim) and tail.dtype == np.float32


def test_the_chunk_is_the_start_of_the_chunk_with_its_tail(make):
    obs = observations([0, 1])
    chunk = fresh(make(), [0, 1]).predict_action_chunk(obs, [0, 1])
    assert np.array_equal(fresh(make(), [0, 1]).predict_with_tail(obs, [0, 1])[:, :4], chunk)


def test_actions_are_in_the_users_units(make):
    policy = fresh(make(load_plan("ddim-10")), [0, 1, 2, 3])
    actions = policy.predict_with_tail(observations(range(4)), range(4))
    normalised = policy.checkpoint.normaliser.normalise("action", torch.from_numpy(actions))
    assert normalised.abs().max() <= 1 + 1e-5  # the last step ends at a clipped x0


@pytest.mark.parametrize("plan", ["ddpm-7", "ddim-3", "dpmpp-4", "unipc-5"])
def test_calls_per_chunk_are_the_network_calls_of_a_chunk(plan, make, monkeypatch):
    policy = fresh(make(load_plan(plan)), [0])
    network, calls = policy.checkpoint.network, []
    predict = network.predict
    monkeypatch.setattr(network, "predict", lambda *a: calls.append(1) or predict(*a))
    policy.predict_action_chunk(observations([0]), [0])
    assert len(calls) == policy.calls_per_chunk == int(plan.split("-")[1])


def test_every_network_call_runs_at_the_policys_width(make, monkeypatch):
    policy = fresh(make(width=4), range(6))
    network, widths = policy.checkpoint.network, []
    predict = network.predict
    monkeypatch.setattr(network, "predict", lambda x, *a: widths.append(len(x)) or predict(x, *a))
    for lanes in ([0], [1, 2], range(6)):
        policy.predict_action_chunk(observations(lanes), lanes)
    assert set(widths) == {4} and len(widths) == (1 + 1 + 2) * policy.calls_per_chunk


# -- a lane's actions are its own -------------------------------------------------------------------------------------


def test_any_subset_in_any_order_gives_each_lane_the_same_bits(make):
    policy, lanes = make(), list(range(4))
    wanted = fresh(policy, lanes).predict_with_tail(observations(lanes), lanes)
    for size in (1, 2, 3, 4):
        for asked in itertools.permutations(lanes, size):
            got = fresh(policy, lanes).predict_with_tail(observations(asked), asked)
            assert np.array_equal(got, wanted[list(asked)]), asked


@pytest.mark.parametrize("width", [1, 3, 16])
def test_the_published_shape_keeps_lanes_apart_too(width, random_checkpoint):
    config = TransformerConfig(action_dim=2, observation_dim=20, layers=2)
    policy, lanes = DiffusionPolicy(random_checkpoint(config), DDIM_3, width), list(range(5))
    wanted = fresh(policy, lanes).predict_with_tail(observations(lanes, dim=20), lanes)
    for asked in ([3], [4, 0], [2, 4, 1, 3], [4, 3, 2, 1, 0]):
        got = fresh(policy, lanes).predict_with_tail(observations(asked, dim=20), asked)
        assert np.array_equal(got, wanted[asked]), asked


def test_what_the_neighbours_see_changes_no_bit(make):
    policy, lanes = make(), [0, 1, 2]
    obs = observations(lanes)
    wanted = fresh(policy, lanes).predict_with_tail(obs, lanes)[1]
    obs[[0, 2]] = 1e3
    assert np.array_equal(fresh(policy, lanes).predict_with_tail(obs, lanes)[1], wanted)


def test_across_widths_a_lane_agrees_closely(make):
    lanes = list(range(5))
    one, many = (fresh(make(DDIM_3, width), lanes).predict_with_tail(observations(lanes), lanes) for width in (1, 16))
    np.testing.assert_allclose(one, many, atol=1e-4)


# -- noise and episodes -----------------------------------------------------------------------------------------------


def test_noise_is_keyed_by_the_lanes_seed_and_not_by_its_number(make):
    policy = make()
    obs = observations([0])
    policy.reset([0, 5, 7], [3, 3, 4])
    zero, five, seven = (policy.predict_with_tail(obs, [lane]) for lane in (0, 5, 7))
    assert np.array_equal(zero, five) and not np.array_equal(zero, seven)


def test_noise_is_keyed_by_how_many_chunks_the_lane_has_had(make):
    policy = fresh(make(), [0, 1])
    obs = observations([0])
    first, second = policy.predict_with_tail(obs, [0]), policy.predict_with_tail(obs, [0])
    assert not np.array_equal(first, second)
    policy.reset([1], [100])  # the seed of lane 0, which is at its third chunk by now
    assert np.array_equal(policy.predict_with_tail(obs, [1]), first)
    assert np.array_equal(policy.predict_with_tail(obs, [1]), second)


def test_reset_restarts_its_lanes_and_leaves_the_others(make):
    policy, plain = fresh(make(), [0, 1]), fresh(make(), [0, 1])
    obs = observations([0, 1])
    first = policy.predict_with_tail(obs, [0, 1])
    plain.predict_with_tail(obs, [0, 1])
    policy.reset([0], [100])
    again, onward = policy.predict_with_tail(obs, [0, 1]), plain.predict_with_tail(obs, [0, 1])
    assert np.array_equal(again[0], first[0]) and np.array_equal(again[1], onward[1])


# -- one action at a time ---------------------------------------------------------------------------------------------


def test_select_action_plays_one_chunk_to_its_end_and_then_asks_again(make):
    policy, plain = fresh(make(), [0, 1]), fresh(make(), [0, 1])
    stream = [observations([0, 1], seed=t, steps=1)[:, 0] for t in range(9)]
    played = [policy.select_action(obs) for obs in stream]
    window = np.stack([stream[0], stream[0]], 1)  # the first window repeats the first observation
    first = plain.predict_action_chunk(window, [0, 1])
    second = plain.predict_action_chunk(np.stack(stream[3:5], 1), [0, 1])
    third = plain.predict_action_chunk(np.stack(stream[7:9], 1), [0, 1])
    wanted = np.concatenate([first, second, third[:, :1]], 1)
    assert np.array_equal(np.stack(played, 1), wanted)


def test_a_reset_lane_asks_for_a_chunk_while_the_others_play_on(make):
    policy, plain = fresh(make(), [0, 1]), fresh(make(), [0, 1])
    stream = [observations([0, 1], seed=t, steps=1)[:, 0] for t in range(3)]
    for obs in stream[:2]:
        policy.select_action(obs)
    policy.reset([0], [55])
    got = policy.select_action(stream[2])
    chunk = plain.predict_action_chunk(np.stack([stream[0], stream[0]], 1), [0, 1])
    plain.reset([0], [55])
    window = np.repeat(stream[2][:1, None], 2, 1)
    assert np.array_equal(got, np.stack([plain.predict_action_chunk(window, [0])[0, 0], chunk[1, 2]]))


@pytest.mark.parametrize("execute", [1, 2, 7])
def test_a_plan_may_execute_fewer_or_more_actions_than_the_checkpoint_says(execute, random_checkpoint, make):
    plan = load_plan(f"ddim-3-every-{execute}")
    policy = fresh(make(plan), [0, 1])
    chunk = policy.predict_action_chunk(observations([0, 1]), [0, 1])
    whole = fresh(make(DDIM_3), [0, 1]).predict_with_tail(observations([0, 1]), [0, 1])
    assert chunk.shape == (2, execute, 2) and np.array_equal(chunk, whole[:, :execute])
    exact = dataclasses.replace(load_plan(f"exact-{plan.name}"), backend="eager")
    stacked = fresh(DiffusionPolicy(random_checkpoint(), exact, 4, accel.build), [0, 1])
    assert stacked.program.rows == stacked.first_row + execute, "rows after the executed ones are not computed"
    np.testing.assert_allclose(stacked.predict_with_tail(observations([0, 1]), [0, 1]), chunk, atol=1e-4)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 2, 4), (1, 3, 3), (2, 2, 3), (2, 3), (1, 1, 2, 3)])
def test_observations_of_another_shape_are_refused(shape, make):
    with pytest.raises(InputError, match="observations have shape"):
        fresh(make(), [0]).predict_action_chunk(np.zeros(shape, "f4"), [0])


def test_no_lane_twice_a_lane_and_a_lane_never_reset_are_refused(make):
    policy = fresh(make(), [0])
    with pytest.raises(InputError, match="at least one lane"):
        policy.predict_action_chunk(np.zeros((0, 2, 3), "f4"), [])
    with pytest.raises(InputError, match="twice"):
        policy.predict_action_chunk(np.zeros((2, 2, 3), "f4"), [0, 0])
    with pytest.raises(InputError, match=r"lanes \[1\] were never reset"):
        policy.predict_action_chunk(np.zeros((2, 2, 3), "f4"), [0, 1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_observations_that_are_not_finite_are_refused_and_name_their_lanes(value, make):
    obs = observations([4, 6, 8])
    obs[1, 0, 2] = value
    policy = fresh(make(), [4, 6, 8])
    with pytest.raises(InputError, match=r"lanes \[6\]"):
        policy.predict_action_chunk(obs, [4, 6, 8])


def test_a_refused_call_is_no_birth(make):
    policy, plain = fresh(make(), [0]), fresh(make(), [0])
    with pytest.raises(InputError):
        policy.predict_action_chunk(np.full((1, 2, 3), np.nan), [0])
    obs = observations([0])
    assert np.array_equal(policy.predict_action_chunk(obs, [0]), plain.predict_action_chunk(obs, [0]))


@pytest.mark.parametrize("bad", [np.full((1, 3), np.nan), np.zeros((1, 4)), np.zeros(3), np.float32(1)])
def test_select_action_refuses_a_bad_observation_and_forgets_it(bad, make):
    policy, plain = fresh(make(), [0]), fresh(make(), [0])
    stream = [observations([0], seed=t, steps=1)[:, 0] for t in range(6)]
    for t, obs in enumerate(stream):
        if t in (0, 2, 4):  # before a chunk, in the middle of one, and where the next is due
            with pytest.raises(InputError):
                policy.select_action(bad)
        assert np.array_equal(policy.select_action(obs), plain.select_action(obs))


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (Plan(name="diagonal", grid=GridSpec(steps=4), solver="ddim", stagger=1), "one level a sample"),
        (Plan(name="cut", grid=GridSpec(steps=4), solver="ddim", view="partitions", pieces=2), "must see all"),
        (Plan(name="warm", grid=GridSpec(steps=4), solver="ddim", birth="guess"), "starts from a guess"),
        (load_plan("ddim-101"), "1 to 100"),
        (load_plan("ddim-3-every-8"), "executes 8 actions of 7"),
        (Plan(name="flow", grid=GridSpec(kind="flow", steps=4), solver="euler"), "does not fit a checkpoint"),
        (Plan(name="euler", grid=GridSpec(steps=4), solver="euler"), "does not fit schedule"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_plan_that_the_checkpoint_cannot_run_is_refused_at_once(plan, complaint, make):
    with pytest.raises(InputError, match=complaint):
        make(plan)


def test_a_width_of_no_lanes_is_refused(make):
    with pytest.raises(InputError, match="width is 0"):
        make(width=0)


# -- what users run today ---------------------------------------------------------------------------------------------


def test_a_ddpm_chunk_is_that_of_the_stock_network_and_the_diffusers_scheduler(make, stock, monkeypatch):
    scheduling = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")
    policy = fresh(make(load_plan("ddpm-100"), width=1), [0])
    network, c = policy.checkpoint.network, policy.checkpoint.network.config
    assert isinstance(network, Denoiser)
    twin = stock.StockTransformer(2, 3, c.horizon, c.n_obs_steps, c.width, c.layers, c.heads)
    twin.load_state_dict(network.state_dict())
    seed, birth = torch.tensor([100]), torch.tensor([0])
    index = torch.arange(c.horizon)[None]

    def noise(level):
        return policy.program.noise(seed, birth, index, torch.full_like(index, level), torch.device("cpu"))

    levels = iter(range(99, 0, -1))
    monkeypatch.setattr(scheduling, "randn_tensor", lambda *a, **k: noise(next(levels)))
    normaliser = policy.checkpoint.normaliser
    obs = observations([0])
    with torch.inference_mode():
        normalised = normaliser.normalise("obs", torch.from_numpy(obs))
        rows = stock.sample(twin.eval(), stock.ddpm_scheduler(), normalised, noise(100))
    wanted = normaliser.unnormalise("action", rows)[:, c.n_obs_steps - 1 :]
    np.testing.assert_allclose(policy.predict_with_tail(obs, [0]), wanted.numpy(), atol=1e-4)
