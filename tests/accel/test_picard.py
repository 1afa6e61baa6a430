"""Parallel in time: a converged chunk is the sequential one, whatever the window, the first guess and the neighbours;
fewer calls are made than steps; and what cannot run so, or would gain nothing, is refused.

Legend: S steps, P window, B lanes, N positions, D.
"""

import dataclasses

import pytest
import torch

from ontick import accel
from ontick.accel.backends.picard import Picard
from ontick.accel.backends.picard_graph import IterationGraph
from ontick.accel.conformance import LAWS, Case
from ontick.accel.exact_network import ExactDecoder
from ontick.diffusion import Plan, build, load_plan, run_chunk
from ontick.errors import InputError

SHAPE, POSITIONS = (2,), 5
SAMPLERS = {"ddpm": ("ddpm-12", {}), "ddim": ("ddim-12", {}), "noisy ddim": ("ddim-12", {"eta": 0.6, "gamma": 0.8})}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def planned(name="ddpm-12", window=4, tolerance=0.0, **changes) -> Plan:
    accelerators = {"picard": {"window": window, "tolerance": tolerance}, **changes.pop("accelerators", {})}
    return dataclasses.replace(load_plan(name), accelerators=accelerators, **changes)


def pair(denoiser, plan, positions=POSITIONS):
    """The sequential program and the parallel one."""
    plain = build(denoiser, plan.plain(), SHAPE, positions)
    return plain, accel.build(denoiser, plan, SHAPE, positions)


def chunk(program, keys, obs=None, lanes=3, guess=None, first=11):
    return run_chunk(program, program.prepare(obs), *keys(lanes, first=first), guess)


def spent(program):
    return program.executor.spent


# -- a converged chunk is the sequential one --------------------------------------------------------------------------


@pytest.mark.parametrize("window", [2, 5, 12, 40])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("clip", [None, 0.3])
def test_a_converged_chunk_is_the_sequential_one(mixer, keys, sampler, window, clip):
    name, changes = SAMPLERS[sampler]
    denoiser = mixer()
    denoiser.clip = clip
    plain, parallel = pair(denoiser, planned(name, window, **changes))
    torch.testing.assert_close(chunk(parallel, keys), chunk(plain, keys), rtol=1e-5, atol=1e-5)
    assert (spent(parallel).iterations <= 12).all()


@pytest.mark.parametrize("sampler", ["ddpm-30", "ddim-15"])
@pytest.mark.parametrize("lanes", [1, 3])
def test_a_converged_chunk_of_a_transformer_is_the_sequential_one(
    randomised_network, observation, keys, sampler, lanes
):
    network = randomised_network()
    network.clip = 1.0
    plain, parallel = pair(network, planned(sampler, 8), positions=8)
    wanted, got = (chunk(p, keys, observation(lanes), lanes) for p in (plain, parallel))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_window_of_one_step_is_the_sequential_run_bit_for_bit(mixer, randomised_network, observation, keys, sampler):
    name, changes = SAMPLERS[sampler]
    for denoiser, obs, positions in ((mixer(), None, POSITIONS), (randomised_network(), observation(3), 8)):
        plain = build(denoiser, dataclasses.replace(load_plan(name), **changes), SHAPE, positions)
        alone = dataclasses.replace(plain, executor=Picard(plain, 1, 0.1))
        assert torch.equal(chunk(alone, keys, obs), chunk(plain, keys, obs))
        assert spent(alone).iterations.tolist() == spent(alone).evaluations.tolist() == [12] * 3


def test_flow_matching_converges_to_the_sequential_run_too(oracle, keys):
    truth = torch.rand(POSITIONS, *SHAPE)
    plan = Plan(name="f", grid=load_plan("ddim-8").grid, solver="euler", accelerators={"picard": {"window": 4}})
    plan = dataclasses.replace(plan, grid=dataclasses.replace(plan.grid, kind="flow"))
    parallel = accel.build(oracle(truth, "velocity", "flow"), plan, SHAPE, POSITIONS)
    torch.testing.assert_close(chunk(parallel, keys)[0], truth, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["ddpm-12", "ddim-12"])
def test_a_warm_run_that_has_converged_is_the_cold_one(mixer, keys, name):
    plain, parallel = pair(mixer(), planned(name, 6))
    wanted = chunk(plain, keys)
    for guess in (wanted, torch.rand_like(wanted) * 2 - 1):
        torch.testing.assert_close(chunk(parallel, keys, guess=guess), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["ddpm-12", "ddim-12"])
def test_whatever_the_tolerance_the_worst_case_is_the_sequential_number_of_calls(mixer, keys, name):
    class Wild(mixer):
        """Its output jumps with the least change of its input, so that nothing ever converges."""

        def predict(self, x, label, context, rows):
            return super().predict(1e4 * x, label, context, rows)

    _, parallel = pair(Wild(), planned(name, 4))
    chunk(parallel, keys)
    assert (spent(parallel).iterations <= 12).all() and (spent(parallel).iterations > 6).any()


# -- how fast ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("window", [3, 6, 12])
def test_a_truth_that_is_known_takes_as_many_calls_as_windows_stand_side_by_side(oracle, keys, sampler, window):
    """The guess is the truth, so the window is filled with the very states, and slides by its whole width."""
    name, changes = SAMPLERS[sampler]
    truth = torch.rand(POSITIONS, *SHAPE) - 0.5
    plan = planned(name, window, tolerance=0.1, **changes)
    parallel = accel.build(oracle(truth, "sample"), plan, SHAPE, POSITIONS)
    got = chunk(parallel, keys, guess=truth.expand(3, -1, -1))
    torch.testing.assert_close(got, truth.expand(3, -1, -1), rtol=0, atol=1e-5)
    assert spent(parallel).iterations.tolist() == [12 // window] * 3


def test_where_actions_are_spread_as_assumed_one_iteration_finds_what_a_window_holds(gaussian, keys):
    """The slope is then what a step does, and x0 of a Gaussian is linear in x: an iteration is a Newton step."""
    plain, parallel = pair(gaussian(mean=0.4, std=0.1), planned("ddpm-12", 12, tolerance=1e-3))
    wanted = chunk(plain, keys)
    torch.testing.assert_close(chunk(parallel, keys), wanted, rtol=0, atol=1e-4)
    assert (spent(parallel).iterations <= 3).all()  # one finds it, one sees that nothing moves, and rounding


def test_a_tolerance_saves_calls_and_costs_little(randomised_network, observation, keys):
    network = randomised_network()
    network.clip = 1.0
    made = {t: pair(network, planned("ddpm-100", 8, tolerance=t), 8) for t in (0.0, 0.01, 0.1)}
    counts, errors = {}, {}
    for tolerance, (plain, parallel) in made.items():
        errors[tolerance] = (chunk(parallel, keys, observation(3)) - chunk(plain, keys, observation(3))).abs().max()
        counts[tolerance] = spent(parallel).iterations.sum()
    assert counts[0.1] <= counts[0.01] <= counts[0.0] and counts[0.1] < 3 * 60
    assert errors[0.0] < 1e-5 and errors[0.1] < 0.1


# -- lanes, and what is counted ---------------------------------------------------------------------------------------


def test_a_lane_does_not_depend_on_its_neighbours_though_they_take_longer(randomised_network, observation, keys):
    program = accel.build(randomised_network(), planned("ddpm-30", 6, tolerance=0.03), SHAPE, 8)
    context, (seed, birth) = program.prepare(observation(8)), keys(8)
    beside = run_chunk(program, context, seed, birth)
    iterations = spent(program).iterations
    assert len(set(iterations.tolist())) > 1, "they all took the same, so nothing is shown"
    for lane in (int(iterations.argmin()), int(iterations.argmax())):
        among_its_like = run_chunk(program, context, seed[[lane] * 8], birth)
        assert torch.equal(among_its_like[lane], beside[lane])
        assert spent(program).iterations[lane] == iterations[lane]


@pytest.mark.parametrize("lanes", [1, 3])
def test_evaluations_are_what_the_network_was_asked(mixer, keys, lanes):
    denoiser, asked = mixer(), []
    predict = denoiser.predict
    denoiser.predict = lambda x, *rest: (asked.append(len(x)), predict(x, *rest))[1]
    program = accel.build(denoiser, planned("ddpm-12", 5, tolerance=0.1), SHAPE, POSITIONS)
    chunk(program, keys, lanes=lanes)
    counted = spent(program)
    assert counted.iterations.max() == len(asked)
    if lanes == 1:
        assert counted.evaluations.tolist() == [sum(asked)] and asked[-1] < 5, "places past the end are left out"
    else:
        assert asked == [5 * lanes] * len(asked) and torch.equal(counted.evaluations, 5 * counted.iterations)


def test_context_is_repeated_once_a_chunk_and_cut_where_a_call_is_narrower(randomised_network, observation):
    network = randomised_network()
    exact = accel.build(network, load_plan("exact-ddpm-12"), SHAPE, 8).denoiser
    assert isinstance(exact, ExactDecoder)
    obs = torch.cat([observation(1, 0), observation(1, 1)])
    for denoiser in (network, exact):
        context = denoiser.prepare(obs)
        wide, narrow = denoiser.repeated(context, 3), denoiser.first_lanes(denoiser.repeated(context, 3), 2)
        wanted = denoiser.prepare(obs.repeat(3, 1, 1))
        parts = [t if isinstance(t, tuple) else (t,) for t in (wide, wanted, context, narrow)]
        for got, want, one, cut in zip(*parts, strict=True):
            torch.testing.assert_close(got, want)
            assert torch.equal(cut, one)


# -- backends and other accelerators ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "openvino"])
def test_the_exact_network_runs_in_windows_on_the_cpus_backends(randomised_network, observation, keys, backend):
    if backend == "openvino":
        pytest.importorskip("openvino")
    network = randomised_network(layers=1)
    plan = planned("ddpm-12", 4, accelerators={"exact": {}}, backend=backend)
    plain, parallel = pair(network, plan, 8)
    assert parallel.backend == backend and parallel.rows == 5, "rows after the executed ones are left out"
    for lanes in (1, 3):
        wanted, got = (chunk(p, keys, observation(lanes), lanes) for p in (plain, parallel))
        torch.testing.assert_close(got, wanted[:, : parallel.rows], rtol=0, atol=2e-5)


def test_levels_are_never_told_in_bf16(randomised_network):
    pytest.importorskip("openvino")
    plan = planned(accelerators={"exact": {}}, precision="bf16", backend="openvino")
    with pytest.raises(InputError, match="would tell the network its levels in bf16; use eager"):
        accel.build(randomised_network(), plan, SHAPE, 8)
    assert accel.build(randomised_network(), dataclasses.replace(plan, backend="best"), SHAPE, 8).backend == "eager"


def test_a_warm_plan_keeps_the_rows_that_the_next_guess_is_made_of(randomised_network):
    program = accel.build(randomised_network(), load_plan("exact-picard-4-warm"), SHAPE, 8)
    assert program.rows == 8


class Recordings:
    """Records as a graph does: work is told once where its inputs lie, and every replay writes to the same place."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, work):
        self.count += 1
        out = type(work())(*(tensor.clone() for tensor in work()))
        return lambda: [mine.copy_(new) for mine, new in zip(out, work(), strict=True)], out


@pytest.mark.parametrize("accelerators", [{}, {"exact": {}}], ids=["plain", "exact"])
@torch.inference_mode()
def test_an_iteration_is_one_graph_wherever_the_window_stands(randomised_network, observation, keys, accelerators):
    recordings = Recordings()
    eager = accel.build(randomised_network(), planned("ddpm-12", 4, 0.1, accelerators=accelerators), SHAPE, 8)
    graph = dataclasses.replace(eager, executor=eager.executor.recorded(IterationGraph(recordings)))
    for first in (3, 5):
        wanted, got = (chunk(p, keys, observation(3, first), first=first) for p in (eager, graph))
        assert torch.equal(got, wanted) and torch.equal(*(spent(p).iterations for p in (eager, graph)))
    assert recordings.count == 1 and graph.backend == "cudagraph"
    kept = got.clone()
    chunk(graph, keys, observation(3, 9))
    assert torch.equal(got, kept), "a result outlives the next chunk"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_graph_of_an_iteration_gives_the_eager_bits(randomised_network, observation, keys):
    network = randomised_network().cuda()
    programs = [
        accel.build(network, planned("ddpm-12", 4, 0.1, accelerators={"exact": {}}, backend=b), SHAPE, 8, device="cuda")
        for b in ("eager", "best")
    ]
    assert programs[1].backend == "cudagraph"
    results = [run_chunk(p, p.prepare(observation(3).cuda()), *keys(3), device="cuda") for p in programs]
    assert torch.equal(*results)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "changes", "reason"),
    [
        ("ddpm-12", {"window": 1}, {}, "window 1 of 12 steps is the sequential run"),
        ("ddpm-12", {}, {}, "window 0 of 12 steps"),
        ("ddim-1", {"window": 4}, {}, "window 4 of 1 steps"),
        ("ddpm-12", {"window": 2.5}, {}, "window is 2.5, wanted a number of steps"),
        ("ddpm-12", {"window": 4, "tolerance": -1}, {}, "tolerance is -1"),
        ("ddpm-12", {"window": 4, "tolerance": float("nan")}, {}, "tolerance is nan"),
        ("ddpm-12", {"window": 4, "warm": 1}, {}, "warm is 1, wanted true or false"),
        ("ddpm-12", {"window": 4, "stride": 1}, {}, "unknown stride; settings: window, tolerance, warm"),
        ("dpmpp-12", {"window": 4}, {}, "solver dpmpp remembers earlier steps.*use ddpm, ddim or euler"),
        ("unipc-12", {"window": 4}, {}, "solver unipc remembers earlier steps"),
        ("ddpm-12", {"window": 4}, {"backend": "compile"}, "backend compile runs one step after another"),
        ("ddpm-12", {"window": 4}, {"backend": "cudagraph"}, "needs a CUDA device"),
    ],
)
def test_what_cannot_run_or_would_gain_nothing_is_refused(randomised_network, name, settings, changes, reason):
    plan = dataclasses.replace(load_plan(name), accelerators={"picard": settings}, **changes)
    with pytest.raises(InputError, match=reason) as caught:
        accel.build(randomised_network(), plan, SHAPE, 8)
    assert "\n" not in str(caught.value)


def test_queues_late_noise_and_other_schedules_are_refused(mixer, randomised_network):
    with pytest.raises(InputError, match="positions move together"):
        accel.build(mixer(), planned(stagger=2), SHAPE, POSITIONS)
    with pytest.raises(InputError, match="leave the switch noise of exact on"):
        accel.build(randomised_network(), planned(accelerators={"exact": {"noise": False}}), SHAPE, 8)
    with pytest.raises(InputError, match="another accelerator decides already"):
        cache = {"exact": {}, "cache": {"scheduler": "uniform", "refreshes": 3}}
        accel.build(randomised_network(), planned(accelerators=cache), SHAPE, 8)


# -- the laws of accelerators -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_it_keeps_the_laws_of_accelerators(law, randomised_network, observation):
    multistep = dataclasses.replace(
        planned(), **{key: getattr(load_plan("dpmpp-6"), key) for key in ("grid", "solver")}
    )
    case = Case(
        make_denoiser=randomised_network,
        make_obs=observation,
        shape=SHAPE,
        positions=8,
        plan=planned("ddpm-6", 3, tolerance=0.1),
        accelerator="picard",
        idle=({"window": 1}, {"window": 0}),
        impossible=((randomised_network, multistep),),
    )
    law(case)
