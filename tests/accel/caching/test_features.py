import dataclasses

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.accel.caching.features import (
    Features,
    adjacent,
    cosine,
    l1,
    measure_maps,
    mse,
    record,
    similarities,
)
from ontick.diffusion import Block, Denoiser, Plan, load_plan, run_chunk, schedule
from ontick.errors import InputError

METRICS = {"cosine": cosine, "l1": l1, "mse": mse}


def planned(name="ddpm-6", exact=True, **settings) -> Plan:
    return dataclasses.replace(load_plan(name), accelerators={"exact": settings} if exact else {})


def built(network, plan: Plan | None = None):
    c = network.config
    return accel.build(network, plan or planned(), (c.action_dim,), c.horizon)


def toy(values: torch.Tensor) -> Features:
    """[b, K, B, N, E] as features."""
    b, K, B, N, _ = values.shape
    x = torch.zeros(K, B, N, 2)
    return Features(names=("?",) * b, kinds=("?",) * b, layers=(0,) * b, values=values, x=x, chunk=x[-1])


@pytest.fixture
def recorded(randomised_network, observation):
    return record(built(randomised_network()), observation(3), torch.arange(3))


@pytest.mark.parametrize("name", ["ddpm-6", "ddim-6", "dpmpp-6", "unipc-6"])
@pytest.mark.parametrize(
    "plan", [{"exact": False}, {}, {"solver": False}, {"noise": False}, {"fold": False}], ids=lambda p: str(p)
)
def test_the_recorded_chunk_is_run_chunks_bit_for_bit(randomised_network, observation, name, plan):
    program = built(randomised_network(), planned(name, **plan))
    obs, seeds, births = observation(3), torch.arange(5, 8), torch.tensor([0, 2, 9])
    with torch.inference_mode():
        for given, used in ((births, births), (None, torch.zeros_like(births))):
            want = run_chunk(program, program.prepare(obs), seeds, used)
            assert torch.equal(record(program, obs, seeds, given).chunk, want)


def test_a_step_is_made_of_its_recorded_branches(randomised_network, observation):
    """The stream after the last block is what entered and all branches, and step 0 is given what was born."""
    network = randomised_network()
    program = built(network, planned(exact=False))
    obs, seeds = observation(3), torch.arange(3)
    features = record(program, obs, seeds)
    assert torch.equal(features.x[0], program.start(seeds, torch.zeros_like(seeds)).x)
    with torch.no_grad():
        context = program.prepare(obs)
        for k in range(6):
            label = torch.full((3, 8), float(program.grid.label[6 - k]))
            h = network.input_emb(features.x[k]) + network.pos_emb + features.values[:, k].sum(0)
            want = network.predict(features.x[k], label, context).x
            torch.testing.assert_close(network.head(network.ln_f(h)), want, rtol=0, atol=2e-5)


def test_blocks_are_told_in_the_networks_order(recorded, randomised_network):
    blocks = randomised_network().blocks()
    assert recorded.names == tuple(block.name for block in blocks)
    assert recorded.kinds == tuple(block.kind for block in blocks)
    assert recorded.layers == tuple(block.layer for block in blocks)
    assert recorded.values.shape[:3] == (len(blocks), 6, 3) and recorded.values.dtype == torch.float32
    assert recorded.x.shape == (6, *recorded.chunk.shape)


def test_recording_leaves_the_program_as_it_was(randomised_network, observation):
    program = built(randomised_network())
    record(program, observation(2), torch.arange(2))
    assert program.rewritten is None


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_other_precisions_are_recorded_as_float32(randomised_network, observation, precision):
    program = built(randomised_network(), dataclasses.replace(planned(), precision=precision))
    obs, seeds = observation(2), torch.arange(2)
    features = record(program, obs, seeds)
    assert features.values.dtype == torch.float32
    with torch.inference_mode():
        assert torch.equal(features.chunk, run_chunk(program, program.prepare(obs), seeds, torch.zeros_like(seeds)))


# -- refusals ----------------------------------------------------------------------------------------------------------


class Stream(Denoiser):
    """A residual stream that reads levels by position, so that it may be staggered."""

    levels = "position"

    def __init__(self):
        self.schedule = schedule("squaredcos_cap_v2", 100)

    def prepare(self, obs):
        return obs

    def enter(self, x, asked):
        return x

    def tell(self, asked):
        return ()

    def leave(self, h, asked):
        return h

    def blocks(self):
        return [Block("0.feed_forward", "feed_forward", 0, lambda h, told: 0.1 * h)]


def test_networks_without_blocks_are_refused(mixer, observation):
    program = accel.build(mixer(), planned(exact=False), (2,), 8)
    with pytest.raises(InputError, match="Mixer lists no blocks"):
        record(program, observation(2), torch.arange(2))


def test_positions_that_do_not_move_together_are_refused(observation):
    staggered = dataclasses.replace(planned(exact=False), stagger=1)
    parts = dataclasses.replace(planned(exact=False), view="partitions", pieces=2)
    for plan, reason in ((staggered, "stagger 1, view all"), (parts, "stagger 0, view partitions")):
        with pytest.raises(InputError, match=f"do not move together .{reason}.*use stagger 0, view all"):
            record(accel.build(Stream(), plan, (2,), 8), observation(2), torch.arange(2))


def test_programs_that_skip_work_or_hide_it_are_refused(randomised_network, observation):
    program = built(randomised_network())
    skipping = dataclasses.replace(program, rewritten=program.look)
    with pytest.raises(InputError, match="already skips work"):
        record(skipping, observation(2), torch.arange(2))

    class Hidden:
        name = "compiled"

    with pytest.raises(InputError, match="backend compiled hides the branches"):
        record(dataclasses.replace(program, executor=Hidden()), observation(2), torch.arange(2))


def test_lanes_without_a_seed_and_unknown_metrics_are_refused(randomised_network, observation):
    program = built(randomised_network())
    for run in (record, similarities, measure_maps):
        with pytest.raises(InputError, match="got 2 observations and 3 seeds"):
            run(program, observation(2), torch.arange(3))
        with pytest.raises(InputError, match="one at least"):
            run(program, observation(2)[:0], torch.arange(0))
    for metrics in (("cosine", "wasserstein"), ()):
        with pytest.raises(InputError, match="wanted some of cosine, l1, mse"):
            similarities(program, observation(2), torch.arange(2), metrics)


# -- likeness ----------------------------------------------------------------------------------------------------------


def test_what_never_changes_is_wholly_alike():
    g = torch.Generator().manual_seed(0)
    constant = torch.randn(3, 1, 2, 4, 5, generator=g).expand(-1, 6, -1, -1, -1).clone()
    constant[2] = 0  # a branch that adds nothing
    features = toy(constant)
    torch.testing.assert_close(cosine(features), torch.ones(3, 6, 6))
    for difference in (l1, mse):
        assert torch.equal(difference(features), torch.zeros(3, 6, 6))


def test_nothing_is_unlike_something():
    values = torch.zeros(1, 2, 1, 1, 3)
    values[0, 1] = 1
    assert torch.equal(cosine(toy(values))[0], torch.eye(2))


def test_likeness_is_symmetric_and_whole_with_itself(recorded):
    for metric, itself in ((cosine, 1.0), (l1, 0.0), (mse, 0.0)):
        got = metric(recorded)
        torch.testing.assert_close(got, got.mT)
        diagonal = got.diagonal(dim1=1, dim2=2)
        torch.testing.assert_close(diagonal, torch.full_like(diagonal, itself))
    assert cosine(recorded).abs().max() <= 1 + 1e-6
    off = ~torch.eye(6, dtype=bool)
    assert (l1(recorded)[:, off] > 0).all()


def test_the_metrics_are_what_their_names_say(recorded):
    """Of two steps, lane by lane, over tokens x channels, and then the mean over lanes."""
    b, i, j = 4, 1, 5
    X, Y = (recorded.values[b, k].flatten(1).double() for k in (i, j))
    by_hand = {
        "cosine": torch.nn.functional.cosine_similarity(X, Y, dim=1).mean(),
        "l1": (X - Y).abs().mean(),
        "mse": (X - Y).square().mean(),
    }
    for name, want in by_hand.items():
        torch.testing.assert_close(METRICS[name](recorded)[b, i, j], want.float())


def test_cosine_is_blind_to_a_lanes_scale_and_the_differences_are_not(recorded):
    scaled = dataclasses.replace(recorded, values=recorded.values * torch.tensor([1.0, 3.0, 0.1])[:, None, None])
    torch.testing.assert_close(cosine(scaled), cosine(recorded))
    doubled = dataclasses.replace(recorded, values=2 * recorded.values)
    torch.testing.assert_close(l1(doubled), 2 * l1(recorded))
    torch.testing.assert_close(mse(doubled), 4 * mse(recorded))


def test_small_differences_of_large_features_are_not_lost():
    values = torch.full((1, 2, 1, 4, 4), 1000.0)
    values[0, 1] += 2.0**-8
    assert l1(toy(values))[0, 0, 1] == 2.0**-8
    assert mse(toy(values))[0, 0, 1] == 2.0**-16


def test_the_adjacent_likeness_is_that_to_the_step_before(recorded):
    full = cosine(recorded)
    got = adjacent(full)
    assert got.shape == (6, 6) and (got[:, 0] == 0).all()
    for k in range(1, 6):
        np.testing.assert_array_equal(got[:, k], full[:, k, k - 1].numpy())
    assert adjacent(np.ones((2, 1, 1))).tolist() == [[0.0], [0.0]]


# -- of many lanes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_lane_by_lane_is_all_lanes_at_once(randomised_network, observation, exact):
    program = built(randomised_network(), planned(exact=exact))
    obs, seeds = observation(4), torch.arange(4)
    features, measured = record(program, obs, seeds), similarities(program, obs, seeds, tuple(METRICS))
    maps = measure_maps(program, obs, seeds)
    assert measured.keys() == METRICS.keys()
    for name, metric in METRICS.items():
        torch.testing.assert_close(measured[name], metric(features), rtol=1e-4, atol=1e-5)
    assert (maps.names, maps.kinds, maps.layers) == (features.names, features.kinds, features.layers)
    for name in ("cosine", "l1"):
        got = getattr(maps, name)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, measured[name].numpy())


def test_one_lane_in_memory_at_a_time(randomised_network, observation):
    network = randomised_network()
    program, widths = built(network, planned(exact=False)), []
    network.prepare = lambda obs: widths.append(len(obs)) or type(network).prepare(network, obs)
    measure_maps(program, observation(3), torch.arange(3))
    assert widths == [1, 1, 1]


def test_the_order_of_lanes_does_not_matter(randomised_network, observation):
    program = built(randomised_network())
    obs, seeds, order = observation(4), torch.arange(4), torch.tensor([2, 0, 3, 1])
    maps, turned = (measure_maps(program, obs[o], seeds[o]) for o in (torch.arange(4), order))
    np.testing.assert_allclose(turned.cosine, maps.cosine, rtol=0, atol=1e-6)
    np.testing.assert_allclose(turned.l1, maps.l1, rtol=1e-6)
    alone = measure_maps(program, obs[:1], seeds[:1])
    assert np.abs(alone.cosine - maps.cosine).max() > 1e-3, "lanes must differ for this to show anything"
