"""Block caching on a diagonal: features are kept a shift period and belong to positions."""

import dataclasses

import numpy as np
import pytest
import torch

from ontick.accel.caching.staggered import CachedTicks, cached_ticks
from ontick.accel.conformance import LAWS, Case
from ontick.diffusion import Block, Denoiser, GridSpec, Inputs, Plan, build, run_chunk, run_stream, schedule
from ontick.errors import InputError

STEPS, LANES = 6, 3
CONTEXT = torch.linspace(-1, 1, LANES * 8).reshape(LANES, 8)
STAIRS = [(2, 1), (3, 1), (2, 2), (3, 2), (4, 1), (9, 2)]  # stagger, block; at stagger 4 births fall between starts
ENDS = [None, 12]


class Residual(Denoiser):
    """A random residual stream over positions: it sees their order and levels, and keeps lanes apart."""

    levels, clip = "position", 1.0

    def __init__(self, layers=2, width=8):
        g = torch.Generator().manual_seed(5)
        self.inner, self.outer = torch.randn(2, width, generator=g), torch.randn(width, 2, generator=g) * 0.3
        self.weights = torch.randn(2 * layers, width, width, generator=g) * 0.4
        self.schedule = schedule("squaredcos_cap_v2", 100)
        self.calls = np.zeros(2 * layers, dtype=int)

    def prepare(self, obs):
        return obs

    def enter(self, x, asked):
        return torch.tanh(x @ self.inner) + 0.2 * torch.cos(asked.label[..., None] * torch.arange(1.0, 9))

    def tell(self, asked):
        return asked.context[:, None] + asked.label[..., None] / 100

    def blocks(self):
        kinds = ("self_attention", "feed_forward")
        return [Block(f"{i}", kinds[i % 2], i // 2, self._branch(i)) for i in range(len(self.weights))]

    def leave(self, h, asked):
        return torch.tanh(h) @ self.outer

    def _branch(self, i):
        def mixing(h, told):
            self.calls[i] += 1
            mean = h.cumsum(1) / torch.arange(1.0, h.shape[1] + 1)[:, None]
            return torch.sin((mean + told) @ self.weights[i])

        def feed_forward(h, told):
            self.calls[i] += 1
            return torch.tanh((h * told) @ self.weights[i])

        return feed_forward if i % 2 else mixing


class Remembering(Denoiser):
    """The slow reference: it computes every block in every call, and keeps features in a dictionary by position id, or,
    wrongly, by the slot of the queue. It counts ticks by itself, so its lanes begin together."""

    def __init__(self, network, refresh, first_shift, slots=False):
        self.levels, self.clip, self.schedule = network.levels, network.clip, network.schedule
        self.network, self.refresh, self.first_shift, self.slots = network, refresh, first_shift, slots
        self.tick, self.features, self.missing = 0, {}, 0

    def prepare(self, obs):
        return obs

    def enter(self, x, asked):
        self.tick += 1
        return self.network.enter(x, asked)

    def tell(self, asked):
        return self.network.tell(asked), asked.rows.index

    def leave(self, h, asked):
        return self.network.leave(h, asked)

    def blocks(self):
        inner = self.network.blocks()
        return [dataclasses.replace(b, branch=self._kept(i, b.branch)) for i, b in enumerate(inner)]

    def _kept(self, i, branch):
        def kept(h, told):
            told, index = told
            new, tick = branch(h, told), self.tick - 1
            due = tick == 0 or self.refresh[i, (tick - self.first_shift) % self.refresh.shape[1]]
            return torch.stack([self._lane(i, lane, new[lane], index[lane], due) for lane in range(len(h))])

        return kept

    def _lane(self, i, lane, new, index, due):
        out = []
        for slot, (feature, position) in enumerate(zip(new, index.tolist(), strict=True)):
            key = (i, lane, slot if self.slots else position)
            if due:
                self.features[key] = feature
            self.missing += key not in self.features
            out.append(self.features.get(key, torch.zeros_like(feature)))
        return torch.stack(out)


def plan(stagger=2, block=1, **changes):
    changes = {"solver": "ddim", **changes}
    return Plan(name="law", grid=GridSpec(steps=STEPS), stagger=stagger, block=block, **changes)


def some(program, seed=0):
    """[blocks, lag]: a column of refreshes and then about a third."""
    refresh = np.random.default_rng(seed).random((4, program.staircase.lag)) < 0.35
    refresh[:, 0] = True
    return refresh


def across(program):
    """[blocks, lag]: what no plan may have, reuse at the shift, of features from the tick before it."""
    refresh = np.zeros((4, program.staircase.lag), dtype=bool)
    refresh[:, -1] = True
    return refresh


def reference(program, refresh, slots=False):
    network = Remembering(program.denoiser, refresh, STEPS if program.endless else 0, slots)
    return dataclasses.replace(program, denoiser=network)


def run(program, state, ticks):
    """The state after `ticks` ticks, and x after each: [ticks, B, R, D]."""
    seen = []
    for _ in range(ticks):
        state, out = program.tick(state, Inputs(CONTEXT))
        seen.append(out.x)
    return state, torch.stack(seen)


def begun(program, keys, ticks=16):
    return run(program, program.start(*keys(LANES)), ticks)[1]


# -- equalities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ENDS)
@pytest.mark.parametrize(("stagger", "block"), STAIRS)
@pytest.mark.parametrize("solver", ["ddim", "unipc"])
def test_a_schedule_that_refreshes_everything_gives_the_dense_bits(keys, positions, stagger, block, solver):
    dense = build(Residual(), plan(stagger, block, solver=solver), (2,), positions)
    cached = cached_ticks(dense, np.ones((4, dense.staircase.lag), dtype=bool))
    assert torch.equal(begun(cached, keys), begun(dense, keys))


def test_chunks_and_streams_run_on_a_schedule(keys):
    finite, endless = (build(Residual(), plan(), (2,), positions) for positions in (8, None))
    full = np.ones((4, 2), dtype=bool)
    cached, dense = (run_chunk(p, CONTEXT, *keys(LANES)) for p in (cached_ticks(finite, full), finite))
    assert torch.equal(cached, dense)
    streams = (
        run_stream(p, Inputs(CONTEXT), *keys(LANES), positions=8) for p in (cached_ticks(endless, full), endless)
    )
    assert all(torch.equal(a, b) for a, b in zip(*streams, strict=True))


@pytest.mark.parametrize("positions", ENDS)
@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_a_schedule_keeps_features_as_a_dictionary_by_position_does(keys, positions, stagger, block):
    dense = build(Residual(), plan(stagger, block), (2,), positions)
    refresh = some(dense)
    slow = reference(dense, refresh)
    result = begun(cached_ticks(dense, refresh), keys)
    assert torch.equal(result, begun(slow, keys))
    assert not torch.equal(result, begun(dense, keys))
    assert slow.denoiser.missing == 0  # a newborn position is computed before it is reused


@pytest.mark.parametrize(("stagger", "block"), STAIRS[:5])
def test_features_follow_the_position_and_slot_keys_fail_after_a_shift(keys, stagger, block):
    """No plan may reuse across a shift, but if one did: position 1 has its own features, not those of position 0."""
    dense = build(Residual(), plan(stagger, block), (2,), None)
    refresh = across(dense)
    result = begun(dataclasses.replace(dense, ticked=CachedTicks(dense, refresh)), keys)
    by_position, by_slot = (begun(reference(dense, refresh, slots), keys) for slots in (False, True))
    assert torch.equal(result, by_position)
    assert torch.equal(result[:STEPS], by_slot[:STEPS])
    assert not torch.equal(result[STEPS], by_slot[STEPS])  # the tick after the first block left


# -- births ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_a_birth_clears_what_its_row_carried(keys, stagger, block):
    dense = build(Residual(), plan(stagger, block), (2,), None)
    program = cached_ticks(dense, some(dense))
    state = program.start(*keys(LANES))
    for _ in range(14):
        held = program.index(state.tick)
        state, _ = program.tick(state, Inputs(CONTEXT))
        reborn = program.index(state.tick) != held
        assert (state.carry[reborn] == 0).all() and (state.carry[~reborn] != 0).any(-1).all()


@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_a_newborn_position_never_reads_what_its_row_carried(keys, stagger, block):
    dense = build(Residual(), plan(stagger, block), (2,), None)
    program = cached_ticks(dense, some(dense))
    state, seen = program.start(*keys(LANES)), []
    for _ in range(14):
        held = program.index(state.tick)
        state, out = program.tick(state, Inputs(CONTEXT))
        state.carry[program.index(state.tick) != held] = torch.nan
        seen.append(out.x)
    assert torch.equal(torch.stack(seen), begun(program, keys, 14))


# -- streams with positions behind and ahead -------------------------------------------------------


@pytest.mark.parametrize(("behind", "ahead"), [(3, 0), (0, 3), (4, 2)])
@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_features_are_kept_by_position_behind_and_ahead_too(keys, stagger, block, behind, ahead):
    dense = build(Residual(), plan(stagger, block, behind=behind, ahead=ahead), (2,), None)
    full = cached_ticks(dense, np.ones((4, dense.staircase.lag), dtype=bool))
    refresh = some(dense)
    slow = reference(dense, refresh)
    result = begun(cached_ticks(dense, refresh), keys)
    assert torch.equal(result, begun(slow, keys)) and slow.denoiser.missing == 0
    assert torch.equal(begun(full, keys), begun(dense, keys))


@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_after_a_clip_and_after_a_prompt_all_is_computed_first(keys, stagger, block):
    dense = build(Residual(), plan(stagger, block, behind=2, ahead=1), (2,), None)
    cached = cached_ticks(dense, some(dense))
    clip = torch.linspace(-1, 1, LANES * 6).reshape(LANES, 3, 2)
    for state in (dense.start_from_clip(*keys(LANES), clip), dense.start(*keys(LANES), before=clip)):
        before = cached.ticked.computed.copy()
        a, b = (run(p, state, 1)[1] for p in (cached, dense))
        assert torch.equal(a, b) and (cached.ticked.computed == before + 1).all()


def test_what_has_nothing_cached_is_not_put_beside_what_has(keys):
    dense = build(Residual(), plan(3, behind=2), (2,), None)
    program = cached_ticks(dense, some(dense))
    fresh, mask = program.start_from_clip(*keys(LANES), torch.zeros(LANES, 1, 2)), torch.tensor([True, False, False])
    state, _ = run(program, program.start(*keys(LANES)), 4)
    with pytest.raises(InputError, match="carry nothing"):
        program.reset(state, mask, fresh)
    with pytest.raises(InputError, match="carry nothing"):
        program.reset(fresh, mask, state)
    ticked, _ = run(program, fresh, 1)
    mixed = program.reset(state, mask, ticked)
    _, x = run(program, mixed, 6)
    _, alone = run(program, ticked, 6)
    _, undisturbed = run(program, state, 6)
    assert torch.equal(x[:, 0], alone[:, 0]) and torch.equal(x[:, 1:], undisturbed[:, 1:])


def test_a_part_of_the_ring_and_a_stride_are_refused_beside_features(keys):
    dense = build(Residual(), plan(2, behind=2), (2,), None)
    program = cached_ticks(dense, some(dense))
    fresh = program.start(*keys(LANES))
    ticked, _ = run(program, fresh, 2)
    for state in (fresh, ticked):
        for changes in ({"stride": 2}, {"shown": slice(2, 5)}):
            with pytest.raises(InputError, match="carries features"):
                program.tick(state, Inputs(CONTEXT), **changes)
    dropped, _ = dense.tick(ticked._replace(carry=None), Inputs(CONTEXT), stride=2)
    assert torch.equal(run(program, dropped, 1)[1], run(dense, dropped, 1)[1])


# -- lanes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ticks", [0, 1, 7])
@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_a_lane_reset_in_flight_is_a_fresh_lane_and_the_others_do_not_notice(keys, stagger, block, ticks):
    dense = build(Residual(), plan(stagger, block), (2,), None)
    program = cached_ticks(dense, some(dense))
    fresh, mask = program.start(*keys(LANES, birth=1)), torch.tensor([False, True, False])
    state = program.start(*keys(LANES))
    if ticks:
        state, _ = run(program, state, ticks)
    _, undisturbed = run(program, state, 12)
    _, mixed = run(program, program.reset(state, mask, fresh), 12)
    _, anew = run(program, fresh, 12)
    assert torch.equal(mixed[:, [0, 2]], undisturbed[:, [0, 2]])
    assert torch.equal(mixed[:, 1], anew[:, 1])


def test_a_lane_may_be_put_into_lanes_that_have_not_ticked(keys):
    dense = build(Residual(), plan(3), (2,), None)
    program = cached_ticks(dense, some(dense))
    start, mask = program.start(*keys(LANES)), torch.tensor([False, True, False])
    running, _ = run(program, start, 7)
    _, mixed = run(program, program.reset(start, mask, running), 12)
    assert torch.equal(mixed[:, [0, 2]], run(program, start, 12)[1][:, [0, 2]])
    assert torch.equal(mixed[:, 1], run(program, running, 12)[1][:, 1])


@pytest.mark.parametrize("positions", ENDS)
@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_lanes_at_different_phases_are_the_lanes_run_in_phase(keys, positions, stagger, block):
    dense = build(Residual(), plan(stagger, block), (2,), positions)
    program = cached_ticks(dense, some(dense))
    start, seen = program.start(*keys(LANES)), []
    state = start
    for tick in range(12):
        if tick in (1, 2):
            state = program.reset(state, torch.arange(LANES) == tick, start)
        state, x = run(program, state, 1)
        seen.append(x[0])
    mixed, together = torch.stack(seen), begun(program, keys, 12)
    for lane in range(LANES):
        assert torch.equal(mixed[lane:, lane], together[: 12 - lane, lane])


def test_lanes_that_have_not_ticked_carry_nothing(keys):
    dense = build(Residual(), plan(), (2,), None)
    program, mask = cached_ticks(dense, some(dense)), torch.tensor([True, False, False])
    start = program.start(*keys(LANES))
    assert start.carry is None and program.reset(start, mask, start).carry is None
    running, _ = run(program, start, 3)
    assert (program.reset(running, mask, start).carry[0] == 0).all()


def test_after_a_dense_tick_nothing_out_of_date_is_reused(keys):
    dense = build(Residual(), plan(3), (2,), None)
    program = cached_ticks(dense, some(dense))
    state, _ = run(program, program.start(*keys(LANES)), 6)
    state, _ = run(dense, state, 1)
    assert state.carry is None
    assert torch.equal(run(program, state, 1)[1], run(dense, state, 1)[1])


# -- counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ENDS)
@pytest.mark.parametrize(("stagger", "block"), STAIRS)
def test_a_period_computes_as_many_branches_as_its_schedule_says(keys, positions, stagger, block):
    network = Residual()
    dense = build(network, plan(stagger, block), (2,), positions)
    refresh = some(dense)
    program = cached_ticks(dense, refresh)
    state, _ = run(program, program.start(*keys(LANES)), 5)
    counted, called = program.ticked.computed.copy(), network.calls.copy()
    run(program, state, 2 * dense.staircase.lag)
    assert (program.ticked.computed - counted == 2 * refresh.sum(1)).all()
    assert (network.calls - called == 2 * refresh.sum(1)).all()


def test_a_branch_is_computed_once_for_all_lanes_that_are_due(keys):
    network = Residual()
    program = cached_ticks(build(network, plan(3), (2,), None), np.array([[True, False, False]] * 4))
    start = program.start(*keys(LANES))
    state, _ = run(program, start, 1)
    state, _ = run(program, program.reset(state, torch.tensor([False, True, False]), start), 1)
    assert (network.calls == 2).all()
    run(program, state, 3)
    assert (network.calls == 4).all()  # lanes 0 and 2 at one tick, lane 1 at the next, none at the third


# -- what cannot run is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "positions", "reason"),
    [
        (plan(0), 6, "stagger is 0"),
        (plan(1), None, "shifts at every tick"),
        (plan(2, view="partitions", pieces=3), None, "view is partitions"),
        (plan(3, 2, view="lookahead", pieces=1), None, "view is lookahead"),
    ],
)
def test_programs_that_cannot_cache_are_refused_with_the_reason(spec, positions, reason):
    program = build(Residual(), spec, (2,), positions)
    with pytest.raises(InputError, match=reason):
        cached_ticks(program, np.ones((4, max(1, program.staircase.lag)), dtype=bool))


def test_a_network_without_blocks_is_refused(mixer):
    with pytest.raises(InputError, match="Mixer lists no blocks"):
        cached_ticks(build(mixer(), plan(), (2,), None), np.ones((0, 2), dtype=bool))


@pytest.mark.parametrize(
    ("refresh", "reason"),
    [
        (np.ones((4, 3), dtype=bool), r"bool \(4, 3\), wanted bool \(4, 2\)"),
        (np.ones((3, 2), dtype=bool), r"bool \(3, 2\), wanted bool \(4, 2\)"),
        (np.ones((4, 2)), "float64"),
        (np.array([[True, False]] * 3 + [[False, True]]), "reuses at its first tick"),
    ],
)
def test_schedules_that_do_not_fit_are_refused_with_the_reason(refresh, reason):
    with pytest.raises(InputError, match=reason):
        cached_ticks(build(Residual(), plan(), (2,), None), refresh)


def test_a_second_cache_is_refused():
    once = cached_ticks(build(Residual(), plan(), (2,), None), np.array([[True, False]] * 4))
    with pytest.raises(InputError, match="another accelerator"):
        cached_ticks(once, np.array([[True, False]] * 4))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_cached_queue_conforms(law):
    cached = plan(stagger=3, accelerators={"cache": {"scheduler": "uniform", "refreshes": 1}})
    law(
        Case(
            make_denoiser=Residual,
            make_obs=lambda lanes: torch.linspace(-1, 1, 64).reshape(8, 8)[:lanes],
            shape=(2,),
            positions=12,
            plan=cached,
            accelerator="cache",
            idle=({"scheduler": "uniform", "refreshes": 3},),
        )
    )


def test_a_cached_queue_tells_how_often_a_branch_is_computed_in_a_positions_steps():
    program = cached_ticks(build(Residual(), plan(stagger=3), (2,), 12), np.eye(1, 3, dtype=bool).repeat(4, 0))
    assert program.refreshes == STEPS / 3
