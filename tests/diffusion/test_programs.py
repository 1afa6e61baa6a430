"""The laws of the engine."""

import itertools

import pytest
import torch

from ontick.diffusion import GridSpec, Inputs, Plan, build, run_chunk, run_stream
from ontick.errors import InputError

SOLVERS = ("ddpm", "ddim", "dpmpp", "unipc")


def plan(steps=6, solver="ddim", **changes):
    return Plan(name="law", grid=GridSpec(steps=steps), solver=solver, **changes)


# -- the oracle: every combination returns the truth -----------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v"])
@pytest.mark.parametrize(("stagger", "block"), [(0, 1), (1, 1), (2, 1), (4, 3), (6, 1), (9, 2)])
def test_an_oracle_leads_every_finite_plan_to_the_truth(oracle, keys, solver, prediction, stagger, block):
    truth = torch.linspace(-0.9, 0.9, 24).reshape(12, 2)
    program = build(oracle(truth, prediction), plan(solver=solver, stagger=stagger, block=block), (2,), 12)
    chunk = run_chunk(program, None, *keys(3))
    torch.testing.assert_close(chunk, truth.expand(3, -1, -1), atol=2e-5, rtol=0)


@pytest.mark.parametrize("birth", ["noise", "noised", "guess"])
@pytest.mark.parametrize("view", [("all", 1), ("partitions", 3), ("lookahead", 3)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_an_oracle_leads_every_endless_plan_to_the_truth(oracle, keys, solver, birth, view):
    truth = torch.linspace(-0.9, 0.9, 40).reshape(20, 2)
    spec = plan(steps=12, solver=solver, stagger=1, birth=birth, view=view[0], pieces=view[1])
    program = build(oracle(truth), spec, (2,), None)
    guess = torch.full((2, program.rows, 2), 0.3)
    frames = list(run_stream(program, Inputs(None, guess), *keys(2), positions=20))
    torch.testing.assert_close(torch.stack(frames, 1), truth.expand(2, -1, -1), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("stagger", "block"), [(2, 1), (5, 1), (3, 2), (12, 3), (20, 2)])
def test_streams_of_any_stagger_and_block_come_out_in_order(oracle, keys, stagger, block):
    truth = torch.linspace(-0.9, 0.9, 36).reshape(36, 1)
    program = build(oracle(truth), plan(steps=12, stagger=stagger, block=block), (1,), None)
    frames = list(run_stream(program, Inputs(None), *keys(1), positions=36))
    torch.testing.assert_close(torch.stack(frames, 1)[0], truth, atol=2e-5, rtol=0)


def test_an_oracle_leads_flow_matching_to_the_truth(oracle, keys):
    truth = torch.linspace(-0.9, 0.9, 8).reshape(8, 1)
    spec = Plan(name="flow", grid=GridSpec(kind="flow", steps=5), solver="euler", stagger=2)
    program = build(oracle(truth, "velocity", "flow"), spec, (1,), 8)
    torch.testing.assert_close(run_chunk(program, None, *keys(2)), truth.expand(2, -1, -1), atol=1e-5, rtol=0)


# -- the two ways to run one program ---------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_chunk_is_the_tick_unrolled_bit_for_bit(mixer, keys, solver):
    program = build(mixer(), plan(steps=20, solver=solver), (2,), 8)
    state = program.start(*keys(3))
    for _ in range(program.ticks):
        state, out = program.tick(state, Inputs(None))
    assert out.clean.all()
    assert torch.equal(state.x, run_chunk(program, None, *keys(3)))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_stagger_of_all_steps_is_one_position_after_another(mixer, keys, solver):
    """With a network that sees each position alone, block autoregression equals each position by itself."""
    alone = plan(steps=6, solver=solver, view="partitions", pieces=4)
    staggered = plan(steps=6, solver=solver, view="partitions", pieces=4, stagger=6)
    a, b = (run_chunk(build(mixer(), p, (2,), 4), None, *keys(2)) for p in (alone, staggered))
    assert torch.equal(a, b)


def test_an_endless_stream_begins_like_a_finite_one_until_its_window_ends(mixer, keys):
    """Each position alone in sight: what else is in flight cannot matter, nor can the ring."""
    for solver in SOLVERS:
        finite = build(mixer(), plan(solver=solver, stagger=2, view="partitions", pieces=9), (2,), 9)
        endless = build(mixer(), plan(solver=solver, stagger=2, view="partitions", pieces=3), (2,), None)
        frames = torch.stack(list(run_stream(endless, Inputs(None), *keys(2), positions=9)), 1)
        torch.testing.assert_close(frames, run_chunk(finite, None, *keys(2)), atol=1e-6, rtol=0)


# -- masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_clean_and_unborn_positions_are_untouched_bit_for_bit(mixer, keys, solver):
    program = build(mixer(), plan(steps=5, solver=solver, stagger=2), (2,), 6)
    state = program.start(*keys(2))
    for tick in range(program.ticks):
        before = program.staircase.done(tick, program.index(state.tick))
        old = state
        state, _ = program.tick(state, Inputs(None))
        after = program.staircase.done(tick + 1, program.index(state.tick))
        still = before == after
        assert torch.equal(state.x[still], old.x[still])
        assert not torch.equal(state.x[~still], old.x[~still])
        for new, past in zip(state.history, old.history, strict=True):
            assert new is None or torch.equal(new[still], past[still])


# -- lanes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [plan(solver="ddpm"), plan(solver="unipc", stagger=2), plan(solver="ddpm", stagger=1)])
def test_a_lane_is_bit_equal_whatever_its_neighbours_hold(mixer, keys, spec):
    program = build(mixer(), spec, (2,), 6)
    seed, birth = keys(4)
    others = seed.clone()
    others[[0, 1, 3]] += 1000
    a, b = run_chunk(program, None, seed, birth), run_chunk(program, None, others, birth)
    assert torch.equal(a[2], b[2]) and not torch.equal(a[1], b[1])


def test_across_widths_a_lane_agrees_to_rounding(mixer, keys):
    program = build(mixer(), plan(solver="ddpm"), (2,), 6)
    seed, birth = keys(5)
    wide = run_chunk(program, None, seed, birth)
    for lane in range(5):
        alone = run_chunk(program, None, seed[lane : lane + 1], birth[lane : lane + 1])
        torch.testing.assert_close(alone[0], wide[lane], atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_lanes_reset_one_by_one(mixer, keys, solver):
    """A lane that is reset in the middle of a stream goes on as if it had just begun, and the others do not notice."""
    program = build(mixer(), plan(solver=solver, stagger=2), (2,), None)
    seed, birth = keys(3)
    fresh = program.start(seed, birth + 1)
    mask = torch.tensor([False, True, False])

    def run(state, ticks):
        seen = []
        for _ in range(ticks):
            state, out = program.tick(state, Inputs(None))
            seen.append(out.x)
        return state, torch.stack(seen)

    state, _ = run(program.start(seed, birth), 7)
    _, undisturbed = run(state, 10)
    _, mixed = run(program.reset(state, mask, fresh), 10)
    _, begun = run(fresh, 10)
    assert torch.equal(mixed[:, [0, 2]], undisturbed[:, [0, 2]])
    assert torch.equal(mixed[:, 1], begun[:, 1])


# -- noise and births ------------------------------------------------------------------------------


def test_every_birth_has_its_own_noise_and_equal_births_repeat(mixer, keys):
    program = build(mixer(), plan(solver="ddpm"), (2,), 6)
    first, again, next_birth = (run_chunk(program, None, *keys(2, birth=b)) for b in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, next_birth)


def test_a_warm_start_is_a_guess_at_a_low_level(mixer, keys):
    spec = Plan(name="warm", grid=GridSpec(kind="custom", labels=(0, 1, 2)), solver="ddpm", birth="guess")
    program = build(mixer(), spec, (2,), 6)
    guess = torch.full((2, 6, 2), 0.25)
    assert torch.equal(program.start(*keys(2), guess).x, guess)
    with pytest.raises(InputError, match="guess"):
        run_chunk(program, None, *keys(2))


def test_a_noised_guess_sits_at_its_own_level(mixer, keys):
    spec = Plan(name="noised", grid=GridSpec(kind="custom", labels=(0, 20)), solver="ddpm", birth="noised")
    program = build(mixer(), spec, (2000,), 1)
    x = program.start(*keys(1), torch.full((1, 1, 2000), 0.5)).x
    assert x.mean().item() == pytest.approx(0.5 * program.grid.alpha[-1], abs=0.03)
    assert x.std().item() == pytest.approx(program.grid.sigma[-1], rel=0.06)


def test_histories_follow_the_position_through_the_ring_and_births_clear_them(mixer, keys):
    program = build(mixer(), plan(steps=4, solver="unipc", stagger=1), (2,), None)
    state = program.start(*keys(1))
    for _ in range(9):
        held = program.index(state.tick)
        state, _ = program.tick(state, Inputs(None))
        reborn = (program.index(state.tick) != held)[0]
        for past in state.history:
            assert past is None or (past[0, reborn] == 0).all()
    assert (program.index(state.tick).sort(1).values == torch.arange(6, 10)).all()


# -- what cannot run is refused --------------------------------------------------------------------


def test_mixed_levels_on_a_network_with_one_level_a_sample_are_refused(mixer):
    network = mixer()
    network.levels = "sample"
    with pytest.raises(InputError, match="one level a sample"):
        build(network, plan(stagger=1), (2,), 6)
    assert build(network, plan(), (2,), 6)


@pytest.mark.parametrize(
    ("spec", "positions", "reason"),
    [
        (plan(block=4), 6, "do not divide"),
        (plan(view="lookahead", pieces=1, stagger=1), 6, "endless"),
        (plan(), None, "stagger 0"),
        (plan(steps=101), 6, "1 to 100"),
        (plan(solver="euler"), 6, "flow matching"),
        (Plan(name="f", grid=GridSpec(kind="flow", steps=3), solver="euler"), 6, "flow"),
        (plan(view="partitions", pieces=4), 6, "equal partitions"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(mixer, spec, positions, reason):
    with pytest.raises(InputError, match=reason):
        build(mixer(), spec, (2,), positions)


def test_counted_calls_are_what_the_program_says(oracle, keys):
    truth = torch.zeros(12, 1)
    for stagger, (view, pieces) in itertools.product((0, 1, 3), (("all", 1), ("partitions", 3))):
        network = oracle(truth)
        program = build(network, plan(stagger=stagger, view=view, pieces=pieces), (1,), 12)
        run_chunk(program, None, *keys(1))
        assert network.calls == program.ticks * program.calls_per_tick


def test_finite_and_endless_programs_are_not_taken_for_each_other(mixer, keys):
    finite, endless = build(mixer(), plan(stagger=1), (2,), 6), build(mixer(), plan(stagger=1), (2,), None)
    with pytest.raises(InputError, match="run_chunk"):
        next(run_stream(finite, Inputs(None), *keys(1), positions=9))
    with pytest.raises(InputError, match="run_stream"):
        run_chunk(endless, None, *keys(1))


def test_a_call_is_told_the_conditioning_of_the_positions_it_sees(mixer, keys):
    seen = []

    class Conditioned(mixer):
        def predict(self, x, label, context, rows):
            seen.append((rows.index, rows.conditioning))
            return super().predict(x, label, context, rows)

    program = build(Conditioned(), plan(stagger=2, view="partitions", pieces=3), (2,), None)
    state = program.start(*keys(1))
    for _ in range(9):
        marks = program.index(state.tick) * 10  # a mark a position, laid out by row
        state, _ = program.tick(state, Inputs(None, conditioning=marks))
    assert all(torch.equal(index * 10, marks) for index, marks in seen)
