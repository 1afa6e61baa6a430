"""The laws of endless programs: clean positions behind, unborn ones ahead, prompts, clips, strides and shown parts.

Their positions are frames, (C, H, W), except where a position's shape does not matter.
"""

import pytest
import torch

from ontick.diffusion import Denoiser, GridSpec, Inputs, Plan, Prediction, build, keyed_normal, run_stream, schedule
from ontick.diffusion.solvers import SINGLE_STEP, jump_table, solver_table
from ontick.errors import InputError

S = 6
STAIRS = [(1, 1), (2, 1), (4, 1), (2, 3), (3, 2), (6, 4), (9, 2)]  # stagger, block; from 6 on one block after another
SIGHTS = [(0, 0), (3, 0), (0, 2), (4, 5), (1, 1)]  # behind, ahead


def plan(steps=S, solver="ddim", **changes):
    return Plan(name="law", grid=GridSpec(steps=steps), solver=solver, **changes)


class Alone(Denoiser):
    """Looks at each element by itself, so that its bits do not depend on what else a call sees. It keeps what it is
    told: (x, label, ids) a call."""

    levels, clip = "position", 1.0

    def __init__(self, prediction="epsilon", schedule_name="squaredcos_cap_v2"):
        self.prediction, self.schedule, self.told = prediction, schedule(schedule_name, 100), []

    def prepare(self, obs):
        return obs

    def predict(self, x, label, context, rows):
        self.told.append((x.clone(), label, rows.index))
        level = label.reshape(*label.shape, *([1] * (x.dim() - 2)))
        return Prediction(torch.sin(2 * x + level / 100) + 0.1 * x)


def frames(program, keys, count, lanes=2, state=None, **changes):
    """[B, count, D...]: the first positions that come out, put in order."""
    state, found = state or program.start(*keys(lanes)), {}
    while len(found) < count:
        state, out = program.tick(state, Inputs(None), **changes)
        ready = out.clean[0].nonzero()[:, 0]
        found |= {int(out.index[0, row]): out.x[:, row] for row in ready}
    return torch.stack([found[i] for i in sorted(found)[:count]], 1)


def in_order(program, state):
    """x [B, R, D...] and ids [B, R] in position order."""
    index = program.index(state.tick)
    order = index.argsort(1)
    lanes = torch.arange(len(index))[:, None]
    return state.x[lanes, order], index[lanes, order]


# -- behind and ahead ------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmpp", "unipc"])
@pytest.mark.parametrize(("behind", "ahead"), SIGHTS)
@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_an_oracle_leads_every_stream_to_the_truth(oracle, keys, stagger, block, behind, ahead, solver):
    truth = torch.linspace(-0.9, 0.9, 40).reshape(20, 2)
    spec = plan(solver=solver, stagger=stagger, block=block, behind=behind, ahead=ahead)
    program = build(oracle(truth), spec, (2,), None)
    assert program.rows == behind + program.staircase.blocks_in_flight * block + ahead
    torch.testing.assert_close(frames(program, keys, 20), truth.expand(2, -1, -1), atol=2e-5, rtol=0)


@pytest.mark.parametrize("solver", ["ddpm", "unipc"])
@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_what_comes_out_does_not_depend_on_what_else_is_in_sight(keys, stagger, block, solver):
    def run(behind, ahead):
        spec = plan(solver=solver, stagger=stagger, block=block, behind=behind, ahead=ahead)
        return frames(build(Alone(), spec, (2, 3, 4), None), keys, 14)

    first, *others = (run(*sight) for sight in SIGHTS)
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_clean_positions_are_untouched_and_unborn_ones_their_own_noise(keys, stagger, block):
    program = build(Alone(), plan(stagger=stagger, block=block, behind=5, ahead=3, solver="ddpm"), (2, 2, 2), None)
    seed, birth = keys(2)
    state, finished = program.start(seed, birth), {}
    for _ in range(20):
        x, ids = in_order(program, state)
        level = program.level(state.tick, ids)
        assert torch.equal(ids[0], torch.arange(ids[0, 0], ids[0, 0] + program.rows))
        assert (level[:, : program.behind] == 0).all() and (level[:, program.behind :] > 0).all()
        assert (level[:, program.rows - program.ahead :] == S).all()
        for i, done in enumerate(ids[0].tolist()):
            want = finished.get(done, torch.zeros(2, 2, 2, 2)) if i < program.behind else None
            if level[0, i] == S:
                want = keyed_normal(seed, birth, done, S, 8).reshape(2, 2, 2, 2)
            assert want is None or torch.equal(x[:, i], want)
        state, out = program.tick(state, Inputs(None))
        finished |= {int(out.index[0, r]): out.x[:, r] for r in out.clean[0].nonzero()[:, 0]}


def test_one_block_after_another_sees_the_clean_ones_and_the_next_ones_noise(keys):
    network = Alone()
    program = build(network, plan(stagger=S, block=4, behind=6, ahead=2), (2,), None)
    state = program.start(*keys(1))
    for tick in range(4 * S):
        state, _ = program.tick(state, Inputs(None))
        _, label, ids = network.told[-1]
        first, k = tick // S * 4, S - tick % S
        assert ids[0].tolist() == list(range(first - 6, first + 6))
        levels = torch.tensor([0] * 6 + [k] * 4 + [S] * 2)
        assert torch.equal(label[0], torch.from_numpy(program.grid.label).float()[levels])


@pytest.mark.parametrize(("behind", "ahead"), SIGHTS)
def test_lanes_at_different_ticks_keep_apart(mixer, keys, behind, ahead):
    program = build(mixer(), plan(solver="ddpm", stagger=2, behind=behind, ahead=ahead), (2,), None)
    seed, birth = keys(2)
    fresh, state = program.start(seed, birth + 1), program.start(seed, birth)
    for _ in range(9):
        state, _ = program.tick(state, Inputs(None))
    mixed, undisturbed = program.reset(state, torch.tensor([False, True]), fresh), state
    for _ in range(9):
        (mixed, a), (undisturbed, b), (fresh, c) = (program.tick(s, Inputs(None)) for s in (mixed, undisturbed, fresh))
        assert torch.equal(a.x[0], b.x[0]) and torch.equal(a.x[1], c.x[1])


def test_streams_with_more_in_sight_run_as_others_do(oracle, keys):
    truth = torch.linspace(-0.9, 0.9, 16).reshape(8, 2)
    program = build(oracle(truth), plan(stagger=2, block=2, behind=4, ahead=2), (2,), None)
    out = torch.stack(list(run_stream(program, Inputs(None), *keys(2), positions=8)), 1)
    torch.testing.assert_close(out, truth.expand(2, -1, -1), atol=2e-5, rtol=0)


# -- prompts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1, 3, 5, 9])
@pytest.mark.parametrize(("stagger", "block"), [(1, 1), (2, 3), (6, 4)])
def test_the_denoiser_sees_the_last_positions_of_a_prompt(keys, stagger, block, k):
    network, behind = Alone(), 5
    program = build(network, plan(stagger=stagger, block=block, behind=behind, ahead=2), (2, 3, 3), None)
    prompt = torch.randn(2, k, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    state = program.start(*keys(2), before=prompt)
    program.tick(state, Inputs(None))
    x, _, ids = network.told[-1]
    assert ids[0].tolist() == list(range(-behind, program.rows - behind))
    kept = min(k, behind)
    assert torch.equal(x[:, behind - kept : behind], prompt[:, k - kept :])
    assert (x[:, : behind - kept] == 0).all()
    assert torch.equal(x[:, behind:], in_order(program, program.start(*keys(2)))[0][:, behind:])


def test_a_prompt_stays_in_sight_until_enough_has_come_after_it(keys):
    network = Alone()
    program = build(network, plan(stagger=2, behind=3), (2,), None)
    prompt = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0))
    state = program.start(*keys(1), before=prompt)
    for _ in range(S + 8):
        state, _ = program.tick(state, Inputs(None))
        x, _, ids = network.told[-1]
        for i in range(-3, 0):
            assert torch.equal(x[ids == i], prompt[:, i][(ids == i).any(1)])


def test_lookaheads_clean_context_may_be_a_prompt(keys):
    program = build(Alone(), plan(stagger=1, view="lookahead", pieces=1), (2,), None)
    prompt = torch.ones(1, 2, 2)
    x, ids = in_order(program, program.start(*keys(1), before=prompt))
    assert ids[0, :4].tolist() == [-3, -2, -1, 0]
    assert (x[0, 0] == 0).all() and (x[0, 1:3] == 1).all()


# -- clips -----------------------------------------------------------------------------------------

VIEWS = [{"view": "all"}, {"view": "all", "behind": 3, "ahead": 2}]
VIEWS += [{"view": "partitions", "pieces": 2}, {"view": "lookahead", "pieces": 1}]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmpp", "unipc"])
@pytest.mark.parametrize("f", [1, 4, 20])
def test_a_stream_from_a_clip_ends_in_the_truth_and_its_clip_is_noised_by_level(oracle, keys, view, solver, f):
    truth = torch.linspace(-0.9, 0.9, 40).reshape(20, 2)
    program = build(oracle(truth), plan(solver=solver, stagger=1, **view), (2,), None)
    clip = torch.rand(2, f, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seed, birth = keys(2)
    state = program.start_from_clip(seed, birth, clip)
    x, ids = in_order(program, state)
    warm_up = program.warm_up_positions(f)
    assert (program.moving, warm_up) == (S, max(0, S - f)) and (state.tick == S - 1).all()
    for column, i in enumerate(ids[0].tolist()):
        k = min(max(0, i + 1), S)
        frame = clip[:, min(max(0, i - (S - f)), f - 1)]
        z = keyed_normal(seed, birth, i, k, 2)
        alpha, sigma = program.grid.alpha[k], program.grid.sigma[k]
        want = z if i >= S else frame if i < 0 else alpha * frame + sigma * z
        torch.testing.assert_close(x[:, column], want.float(), atol=1e-6, rtol=0)
        assert i >= 0 or torch.equal(x[:, column], frame)
    torch.testing.assert_close(frames(program, keys, 20, state=state), truth.expand(2, -1, -1), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_a_ring_of_any_staircase_starts_from_a_clip(oracle, keys, stagger, block):
    truth = torch.linspace(-0.9, 0.9, 48).reshape(24, 2)
    program = build(oracle(truth), plan(stagger=stagger, block=block, behind=2, ahead=1), (2,), None)
    state = program.start_from_clip(*keys(2), truth[None, :3].expand(2, -1, -1))
    index = program.index(state.tick)
    level = program.level(state.tick, index)
    assert (level[index == 0] == 1).all() and program.moving == program.staircase.blocks_in_flight * block
    state, out = program.tick(state, Inputs(None))
    assert out.clean.sum(1).tolist() == [block, block]
    out = frames(program, keys, 18, state=state)
    torch.testing.assert_close(out, truth[block : block + 18].expand(2, -1, -1), atol=2e-5, rtol=0)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp", "unipc"])
def test_where_the_clip_is_the_truth_a_solver_goes_on_as_if_it_had_come_from_the_top(oracle, keys, solver):
    """The history that a clip gives a position is that of a path on which the network told the clip."""
    truth = torch.tensor([[0.3, -0.7]])
    program = build(oracle(truth), plan(solver=solver, stagger=2), (2,), None)
    state = program.start_from_clip(*keys(1), truth[None])
    index, entry = program.index(state.tick), program.level(state.tick, program.index(state.tick))
    z = keyed_normal(*(key[:, None] for key in keys(1)), index, entry, 2)
    for _ in range(2):
        state, out = program.tick(state, Inputs(None))
        level = program.level(state.tick, index)
        alpha, sigma = (torch.from_numpy(v)[level][..., None] for v in (program.grid.alpha, program.grid.sigma))
        same = out.index == index
        torch.testing.assert_close(out.x[same], (alpha * truth + sigma * z).float()[same], atol=1e-5, rtol=0)
    assert same.any()


def test_the_noise_of_a_clip_is_keyed(keys):
    program = build(Alone(), plan(stagger=1), (2,), None)
    clip = torch.zeros(2, 3, 2)
    seed, birth = keys(2)
    first, again, other = (program.start_from_clip(seed, birth + b, clip).x for b in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first[1:], program.start_from_clip(seed[1:], birth[1:], clip[1:]).x)


# -- strides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SINGLE_STEP)
@pytest.mark.parametrize(
    ("stride", "stagger", "block"), [(2, 2, 1), (2, 4, 3), (3, 3, 1), (6, 6, 4), (2, 9, 1), (3, 6, 2)]
)
def test_an_oracle_leads_to_the_truth_in_a_strides_share_of_the_calls(oracle, keys, solver, stride, stagger, block):
    kind = "flow" if solver == "euler" else "trained"
    spec = Plan(name="p", grid=GridSpec(kind=kind, steps=S), solver=solver, stagger=stagger, block=block, behind=2)
    truth = torch.linspace(-0.9, 0.9, 48).reshape(24, 2)
    network = oracle(truth, *(("velocity", "flow") if solver == "euler" else ()))
    program = build(network, spec, (2,), None)
    state = program.start(*keys(2))
    for _ in range(S // stride):
        assert not program.level(state.tick, program.index(state.tick))[:, :block].eq(0).all()
        state, out = program.tick(state, Inputs(None), stride=stride)
    assert network.calls == S // stride and out.index[out.clean].unique().tolist() == list(range(block))
    torch.testing.assert_close(
        frames(program, keys, 20, stride=stride), truth[:20].expand(2, -1, -1), atol=2e-5, rtol=0
    )


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 12, 40])
@pytest.mark.parametrize("stagger", [0, 1, 2, 5])
def test_a_finite_program_takes_any_stride_and_late_ones_move_less(oracle, keys, stagger, stride):
    truth = torch.linspace(-0.9, 0.9, 24).reshape(12, 2)
    network = oracle(truth)
    program = build(network, plan(solver="ddpm", stagger=stagger, block=2), (2,), 12)
    state = program.start(*keys(2))
    while network.calls * stride < program.ticks:
        old = state
        state, _ = program.tick(state, Inputs(None), stride=stride)
        level, target = (program.level(s.tick, program.index(s.tick)) for s in (old, state))
        assert torch.equal(state.x[level == target], old.x[level == target])
    torch.testing.assert_close(state.x, truth.expand(2, -1, -1), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("stride", "stagger"), [(2, 4), (4, 4), (3, 3), (3, 6), (2, 12), (12, 12)])
@pytest.mark.parametrize("flows", [False, True])
def test_a_stride_is_the_plan_on_every_strides_level(mixer, keys, stride, stagger, flows):
    network = mixer()
    network.clip = None
    if flows:
        network.prediction, network.schedule = "velocity", schedule("flow", 100)
    labels = tuple(range(0, 96, 8))
    grids = [GridSpec(kind="custom", labels=labels), GridSpec(kind="custom", labels=labels[stride - 1 :: stride])]
    if flows:
        grids = [GridSpec(kind="flow", steps=steps) for steps in (12, 12 // stride)]
    solver = "euler" if flows else "ddim"
    more = {"solver": solver, "birth": "guess", "behind": 2, "ahead": 1}
    fine = build(network, Plan(name="f", grid=grids[0], stagger=stagger, **more), (2,), None)
    coarse = build(network, Plan(name="c", grid=grids[1], stagger=stagger // stride, **more), (2,), None)
    assert fine.rows == coarse.rows
    inputs = Inputs(None, torch.linspace(-1, 1, 4 * fine.rows).reshape(2, fine.rows, 2))
    a, b = (p.start(*keys(2), inputs.guess) for p in (fine, coarse))
    for _ in range(3 * 12 // stride):
        a, out = fine.tick(a, inputs, stride=stride)
        b, want = coarse.tick(b, inputs)
        torch.testing.assert_close(out.x, want.x, atol=1e-6, rtol=0)
        torch.testing.assert_close(a.x, b.x, atol=1e-6, rtol=0)
        assert torch.equal(out.clean, want.clean) and torch.equal(out.index, want.index)


@pytest.mark.parametrize(("solver", "eta"), [("ddpm", None), ("ddim", 0.0), ("ddim", 0.7), ("euler", None)])
def test_a_jump_of_one_level_is_the_solvers_step(solver, eta):
    kind = "flow" if solver == "euler" else "trained"
    grid = GridSpec(kind=kind, steps=7).build(schedule("flow" if kind == "flow" else "squaredcos_cap_v2", 100))
    assert (jump_table(solver, grid, 1, eta or 0.0).next == solver_table(solver, grid, eta).next).all()


def test_a_stride_of_all_levels_is_one_step_whose_noise_is_of_its_target(keys):
    program = build(Alone(), plan(solver="ddpm", stagger=0), (2,), 3)
    state = program.start(*keys(1))
    half, _ = program.tick(state, Inputs(None), stride=4)
    again = build(Alone(), plan(solver="ddpm", stagger=0, gamma=0.0), (2,), 3)
    still, _ = again.tick(state, Inputs(None), stride=4)
    spread = jump_table("ddpm", program.grid, 4).next[S, -1]
    z = keyed_normal(*(k[:, None] for k in keys(1)), torch.arange(3)[None], S - 4, 2)
    torch.testing.assert_close(half.x - still.x, (spread * z).float(), atol=1e-6, rtol=0)


# -- shown -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["ddpm", "unipc"])
@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_a_shown_part_gives_the_bits_of_the_whole(keys, stagger, block, solver):
    network = Alone()
    program = build(network, plan(solver=solver, stagger=stagger, block=block, behind=4, ahead=3), (2, 3, 4), None)
    whole = part = program.start(*keys(2))
    for tick in range(15):
        shown = slice(4, program.rows - 3) if tick % 3 else slice(2, -1)
        whole, a = program.tick(whole, Inputs(None))
        part, b = program.tick(part, Inputs(None), shown=shown)
        x, _, ids = network.told[-1]
        assert x.shape[1] == ids.shape[1] == len(range(program.rows)[shown])
        assert all(torch.equal(p, q) for p, q in zip((*a, whole.x), (*b, part.x), strict=True))


def test_a_shown_part_is_told_the_conditioning_of_its_positions(keys):
    seen = []

    class Conditioned(Alone):
        def predict(self, x, label, context, rows):
            seen.append((rows.index, rows.conditioning, rows.state))
            return super().predict(x, label, context, rows)

    program = build(Conditioned(), plan(stagger=2, behind=2, ahead=2), (2,), None)
    state = program.start(*keys(1))
    for _ in range(12):
        marks = program.index(state.tick) * 10  # a mark a position, laid out by row
        state, _ = program.tick(state, Inputs(None, conditioning=marks, state="kv"), shown=slice(1, 6))
    assert all(torch.equal(index * 10, marks) and kept == "kv" for index, marks, kept in seen)


# -- what cannot run is refused --------------------------------------------------------------------


@pytest.mark.parametrize(("behind", "ahead"), [(1, 0), (0, 1)])
def test_finite_programs_have_nothing_behind_and_ahead(behind, ahead):
    with pytest.raises(InputError, match="endless streams"):
        build(Alone(), plan(stagger=2, behind=behind, ahead=ahead), (2,), 6)


@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 2), (2, 3, 3), (2,), (2, 3, 2, 1)])
def test_prompts_and_clips_of_another_shape_are_refused(keys, shape):
    program = build(Alone(), plan(stagger=2, behind=2), (2,), None)
    with pytest.raises(InputError, match=r"before is .*, wanted \[2, positions, 2\]"):
        program.start(*keys(2), before=torch.zeros(shape))
    with pytest.raises(InputError, match=r"clip is .*, wanted \[2, positions, 2\]"):
        program.start_from_clip(*keys(2), torch.zeros(shape))


def test_prompts_that_nobody_would_see_and_empty_clips_are_refused(keys):
    streams = build(Alone(), plan(stagger=2), (2,), None), build(Alone(), plan(stagger=2), (2,), 6)
    for program in streams:
        with pytest.raises(InputError, match="use behind"):
            program.start(*keys(2), before=torch.zeros(2, 1, 2))
        assert torch.equal(program.start(*keys(2), before=torch.zeros(2, 0, 2)).x, program.start(*keys(2)).x)
    with pytest.raises(InputError, match="no frames"):
        streams[0].start_from_clip(*keys(2), torch.zeros(2, 0, 2))
    for refused in (lambda p: p.start_from_clip(*keys(2), torch.zeros(2, 1, 2)), lambda p: p.warm_up_positions(1)):
        with pytest.raises(InputError, match="endless"):
            refused(streams[1])


def test_unborn_positions_that_start_from_a_guess_are_not_started_from_a_clip(keys):
    program = build(Alone(), plan(stagger=2, ahead=1, birth="noised"), (2,), None)
    with pytest.raises(InputError, match="starts from a guess"):
        program.start_from_clip(*keys(1), torch.zeros(1, 1, 2))


@pytest.mark.parametrize(
    ("changes", "ticked", "stride", "reason"),
    [
        ({}, 0, 0, "wanted 1 tick or more"),
        ({}, 0, 3, "a divisor of the 4"),
        ({}, 0, 8, "a divisor of the 4"),
        ({}, 1, 2, "stride of 2 from tick 1"),
        ({}, 2, 4, "stride of 4 from tick 2"),
        ({"solver": "dpmpp"}, 0, 2, "cannot jump"),
        ({"solver": "unipc"}, 0, 2, "cannot jump"),
    ],
)
def test_strides_that_cannot_be_are_refused(keys, changes, ticked, stride, reason):
    network = Alone()
    program = build(network, plan(stagger=4, **changes), (2,), None)
    state = program.start(*keys(1))
    for _ in range(ticked):
        state, _ = program.tick(state, Inputs(None))
    with pytest.raises(InputError, match=reason) as caught:
        program.tick(state, Inputs(None), stride=stride)
    assert "\n" not in str(caught.value) and len(network.told) == ticked


@pytest.mark.parametrize("shown", [slice(3, 5), slice(2, 4), slice(0, 2), slice(4, 4), slice(0, 8, 2), slice(5, 2)])
def test_parts_that_leave_out_a_moving_position_are_refused(keys, shown):
    program = build(Alone(), plan(stagger=2, behind=2, ahead=3), (2,), None)
    state = program.start(*keys(1))
    for _ in range(S):
        state, _ = program.tick(state, Inputs(None))
    with pytest.raises(InputError, match=r"move; show these|slice of step 1"):
        program.tick(state, Inputs(None), shown=shown)


def test_other_views_and_carried_features_are_not_shown_in_part(keys):
    for view in ("partitions", "lookahead"):
        program = build(Alone(), plan(stagger=1, view=view), (2,), None)
        with pytest.raises(InputError, match="use view all"):
            program.tick(program.start(*keys(1)), Inputs(None), shown=slice(0, 6))
    program = build(Alone(), plan(stagger=2, behind=1), (2,), None)
    state = program.start(*keys(1))
    for more in ({"shown": slice(1, 4)}, {"stride": 2}):
        with pytest.raises(InputError, match="carries features"):
            program.tick(state._replace(carry=torch.zeros(1, program.rows, 3)), Inputs(None), **more)
