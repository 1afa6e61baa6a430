"""Gates decide lane by lane, step by step; what they decide is counted, and what they refuse is explained."""

import dataclasses

import pytest
import torch

from ontick import accel
from ontick.accel import registry
from ontick.accel.conformance import LAWS, Case
from ontick.accel.gates import Gate, GatedTaylor, ThirdOrderSkip
from ontick.diffusion import Block, Denoiser, GridSpec, Plan, Prediction, run_chunk, schedule
from ontick.diffusion import build as build_plain
from ontick.errors import InputError

PLAN = Plan(name="law", grid=GridSpec(steps=10), solver="ddim")
STEPS = 10
TINY, HUGE = 1e-9, 1e9
FREE = {"gated-taylor": 3, "third-order-skip": 4}  # first steps that are whole
GATES = {
    "taylor": {"gated-taylor": {"threshold": 0.3}},
    "taylor of order 2": {"gated-taylor": {"threshold": 0.3, "order": 2}},
    "taylor of order 0": {"gated-taylor": {"threshold": 0.3, "order": 0, "warmup": 1}},
    "taylor on exact": {"gated-taylor": {"threshold": 0.3}, "exact": {}},
    "skip": {"third-order-skip": {"threshold": 0.2}},
    "skip on exact": {"third-order-skip": {"threshold": 0.2, "most": 2}, "exact": {}},
}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry, "OWN", tuple({*registry.OWN, GatedTaylor, ThirdOrderSkip}))


def with_gate(name: str, **settings) -> Plan:
    return dataclasses.replace(PLAN, accelerators={name: settings})


def chunk(program, obs, keys):
    with torch.inference_mode():
        return run_chunk(program, program.prepare(obs), *keys)


# -- the laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", GATES)
def test_gates_conform(law, name, randomised_network, observation, gaussian):
    accelerators = GATES[name]
    gate = next(key for key in accelerators if key != "exact")
    plan = dataclasses.replace(PLAN, accelerators=accelerators)
    impossible = [(randomised_network, dataclasses.replace(plan, grid=GridSpec(steps=FREE[gate] + 1)))]
    if gate == "gated-taylor":
        impossible = [(gaussian, with_gate(gate, threshold=1)), (lambda: randomised_network(layers=1), plan)]
    law(
        Case(
            make_denoiser=randomised_network,
            make_obs=observation,
            shape=(2,),
            positions=8,
            plan=plan,
            accelerator=gate,
            idle=({"threshold": 0}, {}),
            impossible=tuple(impossible),
            rows=slice(1, 5),
        )
    )


# -- what they compute -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
@pytest.mark.parametrize("name", FREE)
def test_a_gate_that_skips_nothing_is_the_plain_program_bit_for_bit(
    name, solver, randomised_network, observation, keys
):
    network, obs = randomised_network(), observation(3)
    plan = dataclasses.replace(with_gate(name, threshold=TINY), solver=solver)
    program = accel.build(network, plan, (2,), 8)
    plain = build_plain(network, plan.plain(), (2,), 8)
    assert torch.equal(chunk(program, obs, keys(3)), chunk(plain, obs, keys(3)))
    counts = program.rewritten.counts
    assert (counts.calls, counts.skips, counts.lane_skips) == (STEPS, 0, 0)
    assert counts.host_syncs == STEPS - FREE[name] - 1  # the first ones and the last are not decided


def test_a_taylor_gate_that_trusts_everything_computes_the_warm_up_and_the_last_step(
    randomised_network, observation, keys
):
    network = randomised_network()
    program = accel.build(network, with_gate("gated-taylor", threshold=HUGE, warmup=4), (2,), 8)
    computed = watched(program.rewritten)
    chunk(program, observation(2), keys(2))
    counts = program.rewritten.counts
    assert (counts.calls, counts.skips, counts.lane_skips, counts.host_syncs) == (5, 5, 10, 5)
    assert computed == [10, 9, 8, 7, 1]


def watched(gate):
    """The steps whose last layers are computed, as they are run."""
    computed, whole = [], gate._whole

    def watching(h, told, step, held):
        computed.append(step)
        return whole(h, told, step, held)

    gate._whole = watching
    return computed


@pytest.mark.parametrize("most", [1, 2, 4])
def test_a_skip_gate_skips_at_most_so_many_in_a_row(most, randomised_network, observation, keys):
    network = randomised_network()
    program = accel.build(network, with_gate("third-order-skip", threshold=HUGE, most=most), (2,), 8)
    asked = []
    ask = program.rewritten._ask
    program.rewritten._ask = lambda x, step, *more: asked.append(step) or ask(x, step, *more)
    chunk(program, observation(2), keys(2))
    wanted = {1: [10, 9, 8, 7, 5, 3, 1], 2: [10, 9, 8, 7, 4, 1], 4: [10, 9, 8, 7, 2, 1]}[most]
    assert asked == wanted
    assert program.rewritten.counts.calls == len(wanted)
    assert program.rewritten.counts.skips == STEPS - len(wanted)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_taylor_forecast_of_order_n_is_right_where_the_next_difference_is_zero(order, keys):
    """The stream is linear in the step, which any order from 1 forecasts: nothing is lost by skipping."""
    network = Linear()
    settings = {"threshold": 1e-4, "order": order, "warmup": 4}
    program = accel.build(network, with_gate("gated-taylor", **settings), (2,), 8)
    plain = build_plain(network, PLAN, (2,), 8)
    obs = torch.zeros(2)
    torch.testing.assert_close(chunk(program, obs, keys(2)), chunk(plain, obs, keys(2)), rtol=0, atol=1e-5)
    assert program.rewritten.counts.skips == STEPS - 5


class Linear(Denoiser):
    """Its two layers add what is linear in the step, to a stream that does not see x."""

    def __init__(self):
        self.schedule = schedule("squaredcos_cap_v2", 100)

    def prepare(self, obs):
        return obs

    def enter(self, x, asked):
        return torch.zeros_like(x)

    def tell(self, asked):
        return asked.rows.step

    def leave(self, h, asked):
        return h * 0.1

    def blocks(self):
        return [Block(str(i), "feed_forward", i, lambda h, step: torch.ones_like(h) * 0.1 * step) for i in range(2)]


def test_smooth_moves_are_skipped_and_jerks_are_not(keys):
    """Without outputs x shrinks as the levels do, smoothly; outputs that change sign at each step jerk it."""
    for size, skips in ((0.0, 4), (1.0, 0)):
        program = accel.build(Jerks(), with_gate("third-order-skip", threshold=0.1), (2,), 8)
        chunk(program, torch.full((1,), size), keys(1))
        assert program.rewritten.counts.skips == skips


class Jerks(Denoiser):
    """Plus and minus what it observes, by turns."""

    def __init__(self):
        self.schedule = schedule("squaredcos_cap_v2", 100)

    def prepare(self, obs):
        return obs

    def predict(self, x, label, context, rows=None):
        return Prediction(torch.zeros_like(x) + context[:, None, None] * (-1.0) ** rows.step)


# -- lanes and chunks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FREE)
def test_lanes_decide_for_themselves_and_a_step_is_saved_where_all_agree(name, randomised_network, observation, keys):
    """At one width a lane gets its own bits beside copies of itself, which agree, and beside others, which do not."""
    threshold = {"gated-taylor": 0.3, "third-order-skip": 0.1}[name]
    program = accel.build(randomised_network(), with_gate(name, threshold=threshold), (2,), 8)
    counts = program.rewritten.counts
    obs, (seed, birth) = observation(4), keys(4)
    together = chunk(program, obs, (seed, birth))
    mixed = dataclasses.replace(counts)
    assert 0 < mixed.lane_skips < 4 * mixed.host_syncs
    alone_skips = 0
    for lane in range(4):
        before = dataclasses.replace(counts)
        alone = chunk(program, obs[lane].repeat(4, 1, 1), (seed[lane].repeat(4), birth))
        assert torch.equal(alone[lane], together[lane])
        saved = counts.skips - before.skips
        assert counts.lane_skips - before.lane_skips == 4 * saved
        alone_skips += saved
    assert alone_skips == mixed.lane_skips
    assert mixed.skips < alone_skips / 4


@pytest.mark.parametrize("name", FREE)
def test_counts_of_a_chunk_add_up(name, randomised_network, observation, keys):
    program = accel.build(randomised_network(), with_gate(name, threshold=0.3), (2,), 8)
    counts = program.rewritten.counts
    for chunks in (1, 2):
        chunk(program, observation(1), keys(1))
        assert counts.calls + counts.skips == STEPS * chunks
        assert counts.calls <= program.calls * chunks
    assert program.calls == STEPS


def test_a_gate_says_that_it_is_dynamic(randomised_network):
    for name in FREE:
        look = accel.build(randomised_network(), with_gate(name, threshold=1), (2,), 8).rewritten
        assert isinstance(look, Gate) and look.dynamic


@pytest.mark.parametrize("name", FREE)
def test_a_gate_runs_eagerly_or_is_refused(name, randomised_network):
    plan = with_gate(name, threshold=1)
    best = accel.build(randomised_network(), dataclasses.replace(plan, backend="best"), (2,), 8)
    assert best.backend == "eager"
    for backend, device in (("compile", "cpu"), ("cudagraph", "cuda")):
        with pytest.raises(InputError, match=f"backend {backend}"):
            accel.build(randomised_network(), dataclasses.replace(plan, backend=backend), (2,), 8, device=device)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("gated-taylor", {"threshold": 0}, "would do nothing"),
        ("gated-taylor", {"threshold": True}, "threshold is True"),
        ("gated-taylor", {"threshold": float("nan")}, "above 0"),
        ("gated-taylor", {"threshold": 0.1, "order": 3}, "set it to 4"),
        ("gated-taylor", {"threshold": 0.1, "order": -1}, "from 0"),
        ("gated-taylor", {"threshold": 0.1, "warmup": 9}, "all 10 steps"),
        ("gated-taylor", {"threshold": 0.1, "depth": 2}, "unknown depth; settings: threshold, order, warmup"),
        ("third-order-skip", {}, "threshold is None"),
        ("third-order-skip", {"threshold": 0.1, "first": 2}, "from 3"),
        ("third-order-skip", {"threshold": 0.1, "most": 0}, "from 1"),
        ("third-order-skip", {"threshold": 0.1, "first": 9}, "all 10 steps"),
    ],
)
def test_settings_are_refused_with_a_reason(name, settings, reason, randomised_network):
    with pytest.raises(InputError, match=reason):
        accel.build(randomised_network(), with_gate(name, **settings), (2,), 8)


def test_two_gates_are_refused(randomised_network):
    both = {"gated-taylor": {"threshold": 0.1}, "third-order-skip": {"threshold": 0.1}}
    with pytest.raises(InputError, match="another accelerator decides already"):
        accel.build(randomised_network(), dataclasses.replace(PLAN, accelerators=both), (2,), 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", FREE)
def test_a_gate_runs_on_cuda(name, randomised_network, observation, keys):
    network = randomised_network().to("cuda")
    program = accel.build(network, with_gate(name, threshold=0.3), (2,), 8)
    with torch.inference_mode():
        obs = observation(2).to("cuda")
        assert run_chunk(program, program.prepare(obs), *keys(2), device="cuda").isfinite().all()
    assert program.rewritten.counts.host_syncs == STEPS - FREE[name] - 1
