import dataclasses

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.accel.caching.costs import CostModel, fit
from ontick.accel.caching.evaluator import ActionError
from ontick.diffusion import Asked, Rows, begin, build, load_plan, solver_step
from ontick.diffusion.steps import empty_history
from ontick.errors import InputError

KINDS = ("self_attention", "cross_attention", "feed_forward")
COST = CostModel(
    base_ms=0.5, tick_ms=0.06, active_ms=0.02, run_ms=0.004, block_ms=dict(zip(KINDS, (0.09, 0.01, 0.12), strict=True))
)


def program_of(network, name="ddpm-10", exact=True):
    c = network.config
    plan = dataclasses.replace(load_plan(name), accelerators={"exact": {}} if exact else {})
    return accel.build(network, plan, (c.action_dim,), c.horizon)


def drawn(count, blocks, steps, share=0.4, seed=0):
    candidates = np.random.default_rng(seed).random((count, blocks, steps)) < share
    candidates[:, :, 0] = True
    return candidates


@torch.no_grad()
def one_after_another(program, obs, seeds, refresh):
    """The cached chunk, written down plainly: [n, T, D]."""
    denoiser, seed = program.denoiser, torch.as_tensor(seeds)
    start = begin(program, program.prepare(obs), seed, torch.zeros_like(seed))
    x, history, cache = start.x, empty_history(program.table, start.x), {}
    for k in range(program.grid.steps):
        level = program.grid.steps - k
        label = torch.full(x.shape[:2], float(program.grid.label[level]))
        asked = Asked(label, start.context, Rows(start.index, step=level))
        h, told = denoiser.enter(x, asked), denoiser.tell(asked)
        for i, block in enumerate(denoiser.blocks()):
            if refresh[i, k]:
                cache[i] = block.branch(h, told)
            h = h + cache[i]
        z = None if start.noise is None else start.noise[level - 1]
        x, history = solver_step(x, denoiser.leave(h, asked), history, z, program.uniform[level], denoiser.clip)
    return x


@pytest.fixture
def seeds():
    return np.arange(3) + 40


@pytest.fixture(params=["exact", "plain"])
def program(request, randomised_network):
    return program_of(randomised_network(), exact=request.param == "exact")


def test_computing_everything_is_the_dense_chunk(program, observation, seeds):
    error = ActionError(program, observation(3), seeds)
    everything = np.ones((1, error.blocks, error.steps), dtype=bool)
    assert error(everything)[0] < 1e-5
    assert error.largest(everything)[0] < 1e-5


@pytest.mark.parametrize("name", ["ddpm-10", "ddim-10", "dpmpp-10", "unipc-10"])
@pytest.mark.parametrize("exact", [True, False])
def test_it_equals_the_chunk_computed_one_step_and_one_block_after_another(
    randomised_network, observation, seeds, name, exact
):
    program = program_of(randomised_network(), name, exact)
    error = ActionError(program, observation(3), seeds, lanes=12)
    candidates = drawn(9, error.blocks, error.steps)
    candidates[3] = drawn(1, error.blocks, error.steps, share=0)[0]
    candidates[4:6, :, :5] = candidates[6, :, :5]  # alike, and then not
    dense = one_after_another(program, observation(3), seeds, np.ones_like(candidates[0]))
    wanted = [one_after_another(program, observation(3), seeds, c) - dense for c in candidates]
    wanted = torch.stack(wanted).double().numpy()
    np.testing.assert_allclose(error.differences(candidates), wanted, atol=2e-5)
    np.testing.assert_allclose(error(candidates), np.sqrt((wanted**2).mean((1, 2, 3))), atol=1e-5)
    np.testing.assert_allclose(error.per_sample(candidates), np.sqrt((wanted**2).mean((2, 3))), atol=2e-5)
    np.testing.assert_allclose(error.largest(candidates), np.abs(wanted).max((1, 2, 3)), atol=2e-5)


def test_a_candidate_does_not_depend_on_the_others(program, observation, seeds):
    error = ActionError(program, observation(3), seeds, lanes=15)
    candidates = drawn(8, error.blocks, error.steps)
    candidates[1, :, :6] = candidates[0, :, :6]
    alone = np.concatenate([error(c[None]) for c in candidates])
    np.testing.assert_allclose(error(candidates), alone, atol=1e-6)
    np.testing.assert_allclose(error(candidates[[5, 2, 2, 7]]), alone[[5, 2, 2, 7]], atol=1e-6)


def test_rows_that_are_not_executed_do_not_count(randomised_network, observation, seeds):
    program = program_of(randomised_network(), exact=False)
    whole, part = (ActionError(program, observation(3), seeds, rows=rows) for rows in (None, slice(1, 5)))
    candidates = drawn(2, whole.blocks, whole.steps)
    assert whole.dense.shape == (3, 8, 2) and part.dense.shape == (3, 4, 2)
    np.testing.assert_array_equal(part.differences(candidates), whole.differences(candidates)[:, :, 1:5])


def test_noise_is_that_of_seed_and_birth(randomised_network, observation, seeds):
    program = program_of(randomised_network())
    first, later = (ActionError(program, observation(3), seeds, births=[b] * 3) for b in (0, 1))
    assert torch.equal(first.dense, ActionError(program, observation(3), seeds).dense)
    assert not torch.equal(first.dense, later.dense)


def test_what_cannot_be_measured_is_refused(program, observation, seeds, mixer):
    with pytest.raises(InputError, match="a seed each"):
        ActionError(program, observation(3), seeds[:2])
    with pytest.raises(InputError, match="lists no blocks"):
        ActionError(build(mixer(), load_plan("ddpm-10"), (2,), 4), torch.zeros(3, 1), seeds)
    error = ActionError(program, observation(3), seeds)
    with pytest.raises(InputError, match="wanted bool"):
        error(np.ones((1, error.blocks, 3), dtype=bool))
    with pytest.raises(InputError, match="step 0"):
        error(np.zeros((1, error.blocks, error.steps), dtype=bool))


# -- costs ------------------------------------------------------------------------------------------------------------


def schedules_of_many_lengths():
    shares = np.linspace(0.02, 0.9, 10)
    made = [drawn(1, 6, K, share, K)[0] for K in (10, 20, 50) for share in shares]
    aligned = [np.repeat(drawn(1, 1, K, share, K)[0], 6, 0) for K in (10, 20, 50) for share in shares]
    return made + aligned


def test_a_fit_recovers_what_the_times_were_made_from():
    schedules = schedules_of_many_lengths()
    found = fit(schedules, KINDS * 2, [COST(s, KINDS * 2) for s in schedules])
    for name, wanted in COST.to_dict().items():
        assert found.to_dict()[name] == pytest.approx(wanted, abs=1e-8)


def test_no_fitted_cost_is_below_zero_and_no_refresh_makes_a_chunk_cheaper():
    schedules, rng = schedules_of_many_lengths(), np.random.default_rng(3)
    for _ in range(20):
        found = fit(schedules, KINDS * 2, rng.random(len(schedules)) * 5)
        assert min(found.base_ms, found.tick_ms, found.active_ms, found.run_ms, *found.block_ms.values()) >= 0
        refresh = drawn(1, 6, 20, 0.3, int(rng.integers(1000)))[0]
        for b, k in np.argwhere(~refresh):
            more = refresh.copy()
            more[b, k] = True
            assert found(more, KINDS * 2) >= found(refresh, KINDS * 2) - 1e-9


def test_a_piece_is_a_run_of_reused_blocks_at_a_step_that_computes_something():
    only = CostModel(run_ms=1.0, block_ms=dict.fromkeys(KINDS, 0.0))
    columns = {"######": 0, "......": 0, "..#...": 2, "#.#.#.": 3, "#....#": 1, ".####.": 2}
    for text, pieces in columns.items():
        refresh = np.array([[True, c == "#"] for c in text])
        assert only(refresh, KINDS * 2) == pieces


def test_costs_of_many_are_those_of_each_and_survive_a_file():
    many = drawn(5, 6, 20)
    again = CostModel.from_dict(COST.to_dict())
    np.testing.assert_allclose(again(many, KINDS * 2), [COST(s, KINDS * 2) for s in many])


def test_bad_costs_are_refused():
    with pytest.raises(InputError, match="cost of tick"):
        CostModel(tick_ms=-1.0)
    with pytest.raises(InputError, match="no cost of convolution"):
        COST(drawn(1, 1, 4)[0], ["convolution"])
    with pytest.raises(InputError, match="unknown"):
        CostModel.from_dict({"tock_ms": 1})
