import dataclasses
import functools
import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ontick import accel
from ontick.accel import Use
from ontick.accel.backends import backend_for
from ontick.accel.backends.cuda_graph import CudaGraph
from ontick.accel.backends.cuda_graph_call import CudaGraphCall
from ontick.accel.backends.thread import OneThread
from ontick.diffusion import Plan, begin, build, load_plan, run_chunk, unroll
from ontick.errors import InputError

SOLVERS = ("ddpm-6", "ddim-6", "dpmpp-6", "unipc-6")
EXACT = {"exact": {}}
RUN_HERE = ("eager", "openvino")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def has_openvino():
    pytest.importorskip("openvino")


@pytest.fixture
def without_openvino(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "openvino" else found(name, *a))


def planned(name="ddpm-6", accelerators=EXACT, **changes) -> Plan:
    return dataclasses.replace(load_plan(name), accelerators=accelerators, **changes)


def program(network, plan, device="cpu"):
    return accel.build(network, plan, (network.config.action_dim,), network.config.horizon, device=device)


def chunk(program, obs, keys, first=11):
    return run_chunk(program, program.prepare(obs), *keys(len(obs), first=first), device=obs.device)


# -- OpenVINO ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(randomised_network):
    """One layer: converting and compiling are what takes time here."""
    return randomised_network(layers=1)


@pytest.fixture(scope="module")
def pair(small):
    """pair(name) -> the same program run eagerly and by OpenVINO, made once."""

    @functools.cache
    def make(name):
        return [program(small, planned(name, backend=backend)) for backend in RUN_HERE]

    return make


def assert_equal_actions(eager, fast, obs, keys, first=11, atol=2e-5):
    want, got = (chunk(p, obs, keys, first) for p in (eager, fast))
    torch.testing.assert_close(got, want, rtol=0, atol=atol)


@pytest.mark.parametrize("name", SOLVERS)
def test_openvino_equals_eager_for_every_width_and_observation(has_openvino, pair, observation, keys, name):
    for lanes, seed in ((1, 0), (3, 1), (1, 2), (3, 3), (3, 3)):
        assert_equal_actions(*pair(name), observation(lanes, seed), keys, first=seed)


@pytest.mark.parametrize(
    ("changes", "accelerators"),
    [
        ({}, {}),
        ({"causal": False, "n_obs_steps": 3}, EXACT),
        ({"n_cond_layers": 1}, {"exact": {"memory": False, "time_table": False, "fold": False}}),
    ],
    ids=["plain", "not causal", "mixed memory"],
)
def test_openvino_equals_eager_for_other_networks(
    has_openvino, randomised_network, observation, keys, changes, accelerators
):
    network = randomised_network(layers=1, **changes)
    eager, fast = (program(network, planned("dpmpp-6", accelerators, backend=backend)) for backend in RUN_HERE)
    for seed in range(2):
        assert_equal_actions(eager, fast, observation(2, seed, network.config.n_obs_steps), keys)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [2, 4])
@pytest.mark.parametrize("horizon", [2, 3, 4, 5])
def test_openvino_equals_eager_with_as_many_rows_as_heads_and_otherwise(
    has_openvino, randomised_network, observation, keys, heads, horizon, causal
):
    network = randomised_network(layers=1, heads=heads, horizon=horizon, n_obs_steps=1, n_action_steps=1, causal=causal)
    whole = {"exact": {"rows": False}}
    eager, fast = (program(network, planned("ddim-3", whole, backend=backend)) for backend in RUN_HERE)
    assert fast.rows == horizon
    assert_equal_actions(eager, fast, observation(2, 0, 1), keys)


def test_openvino_is_deterministic_and_keeps_nothing_between_chunks(has_openvino, pair, observation, keys):
    _, fast = pair("unipc-6")
    first = chunk(fast, observation(1, 0), keys)
    kept = first.clone()
    other = chunk(fast, observation(1, 1), keys)
    assert torch.equal(first, kept) and not torch.equal(first, other)
    assert torch.equal(chunk(fast, observation(1, 0), keys), kept)


@pytest.mark.parametrize(("precision", "atol"), [("int8", 2e-5), ("bf16", 0.2)])
def test_openvino_runs_lower_precisions(openvino_for, small, observation, keys, precision, atol):
    openvino_for(precision)
    eager, fast = (program(small, planned(precision=precision, backend=backend)) for backend in RUN_HERE)
    assert_equal_actions(eager, fast, observation(2), keys, atol=atol)


@torch.inference_mode()
def test_openvino_in_bf16_finds_its_level_in_a_long_grid(openvino_for, randomised_network, observation, keys):
    """bf16 has 8 significant bits, so a place above 256 must not be told in it."""
    openvino_for("bf16")
    network = randomised_network(train_levels=1000, layers=1)
    plan = planned("ddim-400", precision="bf16")
    eager, compiled = (
        accel.build(network, dataclasses.replace(plan, backend=b), (2,), 8) for b in ("eager", "openvino")
    )
    wanted, got = (run_chunk(p, p.prepare(observation(2)), *keys(2)) for p in (eager, compiled))
    assert (got - wanted).abs().mean() < 0.05  # two ways to round in bf16 part over 400 steps


def test_openvino_refuses_a_second_thread(has_openvino, pair, observation, keys):
    _, fast = pair("ddpm-6")
    chunk(fast, observation(1), keys)
    with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="build a program for each thread"):
        pool.submit(chunk, fast, observation(1), keys).result()


# -- compile -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("accelerators", [EXACT, {}], ids=["exact", "plain"])
def test_compiled_steps_equal_eager_ones(randomised_network, observation, keys, name, accelerators):
    network = randomised_network()
    eager = program(network, planned(name, accelerators))
    fast = program(network, planned(name, accelerators, backend="compile"))
    for lanes, seed in ((1, 0), (3, 1), (1, 2)):
        want, got = (chunk(p, observation(lanes, seed), keys) for p in (eager, fast))
        torch.testing.assert_close(got, want, rtol=0, atol=2e-5)


# -- the CUDA graph, recorded by a stand-in --------------------------------------------------------------------------


class Recordings:
    """Records as a graph does: work is told once where its inputs lie, and every replay writes to the same place."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, work):
        self.count += 1
        out = work()
        out = out._replace(x=out.x.clone())
        return lambda: out.x.copy_(work().x), out


def graphed(eager, recordings):
    return dataclasses.replace(eager, executor=CudaGraph(eager, record=recordings))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("accelerators", [EXACT, {}], ids=["exact", "plain"])
@pytest.mark.parametrize("causal", [True, False])
def test_a_graph_gives_the_bits_of_its_eager_twin(randomised_network, observation, keys, name, accelerators, causal):
    eager = program(randomised_network(causal=causal), planned(name, accelerators))
    graph = graphed(eager, Recordings())
    for lanes, seed in ((1, 0), (3, 1), (1, 2), (3, 3)):
        want, got = (chunk(p, observation(lanes, seed), keys, first=seed) for p in (eager, graph))
        assert torch.equal(want, got)


def test_a_graph_is_captured_once_a_width(randomised_network, observation, keys):
    recordings = Recordings()
    graph = graphed(program(randomised_network(), planned()), recordings)
    for lanes, captured in ((1, 1), (1, 1), (3, 2), (1, 2), (3, 2)):
        chunk(graph, observation(lanes, seed=lanes), keys)
        assert recordings.count == captured


@pytest.mark.parametrize("accelerators", [EXACT, {}], ids=["exact", "plain"])
def test_a_graph_holds_its_inputs_by_itself(randomised_network, observation, keys, accelerators):
    eager = program(randomised_network(), planned(accelerators=accelerators))
    graph = graphed(eager, Recordings())

    def start(seed):
        return begin(eager, eager.prepare(observation(2, seed)), *keys(2, first=seed))

    first = start(0)
    graph.executor.chunk(graph, first)
    context = first.context if isinstance(first.context, tuple) else (first.context,)
    given = [first.x, first.noise, *context]
    for tensor in given:
        tensor.fill_(torch.nan)
    assert torch.equal(graph.executor.chunk(graph, start(1)).x, unroll(eager, start(1), bool(accelerators)).x)
    assert all(tensor.isnan().all() for tensor in given), "the caller's tensors were written to"


def test_a_graphs_result_outlives_the_next_chunk(randomised_network, observation, keys):
    graph = graphed(program(randomised_network(), planned()), Recordings())
    first = chunk(graph, observation(1, 0), keys)
    kept = first.clone()
    assert not torch.equal(chunk(graph, observation(1, 1), keys), kept)
    assert torch.equal(first, kept)


def test_a_graph_refuses_a_second_thread(randomised_network, observation, keys):
    recordings = Recordings()
    graph = graphed(program(randomised_network(), planned()), recordings)
    chunk(graph, observation(1), keys)
    with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="build a program for each thread"):
        pool.submit(chunk, graph, observation(3), keys).result()
    assert recordings.count == 1


# -- a real CUDA device ----------------------------------------------------------------------------------------------

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def on_cuda(network, plan):
    return program(network.to("cuda"), plan, device="cuda")


@cuda
@pytest.mark.parametrize("name", SOLVERS)
def test_a_cuda_graph_gives_the_bits_of_its_eager_twin(randomised_network, observation, keys, name):
    network = randomised_network()
    eager, graph = (on_cuda(network, planned(name, backend=backend)) for backend in ("eager", "cudagraph"))
    assert on_cuda(network, planned(name, backend="best")).backend == "cudagraph"
    for lanes, seed in ((1, 0), (3, 1), (1, 2), (3, 3)):
        obs = observation(lanes, seed).cuda()
        assert torch.equal(*(chunk(p, obs, keys, first=seed) for p in (eager, graph)))


@cuda
def test_exact_on_cuda_equals_the_plain_network(randomised_network, observation, keys):
    network = randomised_network()
    plain, graph = on_cuda(network, planned(accelerators={})), on_cuda(network, planned(backend="cudagraph"))
    want, got = (chunk(p, observation(2).cuda(), keys) for p in (plain, graph))
    torch.testing.assert_close(got, want[:, : graph.rows], rtol=0, atol=1e-4)


@cuda
@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_compiled_steps_equal_eager_ones_on_cuda(randomised_network, observation, keys, name):
    network = randomised_network()
    eager, fast = (on_cuda(network, planned(name, backend=backend)) for backend in ("eager", "compile"))
    for lanes in (1, 3, 1):
        want, got = (chunk(p, observation(lanes).cuda(), keys) for p in (eager, fast))
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


@cuda
@pytest.mark.parametrize("precision", ["tf32", "bf16", "int8"])
def test_lower_precisions_run_as_a_cuda_graph(randomised_network, observation, keys, precision):
    before = torch.backends.cuda.matmul.allow_tf32
    network = randomised_network()
    eager, graph = (
        on_cuda(network, planned(precision=precision, backend=backend)) for backend in ("eager", "cudagraph")
    )
    assert torch.equal(*(chunk(p, observation(2).cuda(), keys) for p in (eager, graph)))
    assert torch.backends.cuda.matmul.allow_tf32 == before


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "device", "reason"),
    [
        ({"backend": "cudagraph"}, "cpu", "needs a CUDA device, and this runs on cpu; use best"),
        ({"backend": "openvino"}, "cuda:0", "is for the CPU, and this runs on cuda:0; use best"),
        ({"precision": "tf32"}, "cpu", "precision tf32 is for CUDA devices, and this runs on cpu"),
        ({"precision": "int8", "accelerators": {}}, "cpu", "precision int8 needs the accelerator exact.*add `exact"),
        ({"precision": "bf16", "accelerators": {}}, "cpu", "precision bf16 needs the accelerator exact.*add `exact"),
        (
            {"backend": "compile", "accelerators": {"exact": {"noise": False}}},
            "cpu",
            "takes all noise before the loop; leave the switch noise on",
        ),
    ],
)
def test_what_cannot_run_here_is_refused_with_the_reason(randomised_network, changes, device, reason):
    plan = dataclasses.replace(planned(), **changes)
    with pytest.raises(InputError, match=f"plan 'ddpm-6': .*{reason}") as caught:
        program(randomised_network(), plan, device)
    assert "\n" not in str(caught.value)


def test_openvino_is_refused_where_it_is_not_installed(without_openvino, randomised_network):
    with pytest.raises(InputError, match=r'pip install "ontick\[openvino\]", or use best'):
        program(randomised_network(), planned(backend="openvino"))


@pytest.mark.parametrize("backend", ["compile", "openvino"])
def test_one_graph_a_step_cannot_run_changed_steps(has_openvino, randomised_network, backend):
    plain = build(randomised_network(), load_plan("ddpm-6"), (2,), 8)
    changed = dataclasses.replace(plain, plan=planned(backend=backend), rewritten=plain._plain_look)
    with pytest.raises(InputError, match="an accelerator changes the steps; use eager"):
        backend_for(changed, Use())


@pytest.mark.parametrize("changes", [{"stagger": 2}, {"view": "partitions", "pieces": 2}])
def test_compile_refuses_staggered_plans_and_a_graph_is_of_their_calls(has_openvino, mixer, changes):
    plan = planned(accelerators={}, backend="compile", **changes)
    with pytest.raises(InputError, match="positions move together, and this plan is staggered; use eager"):
        accel.build(mixer(), plan, (2,), 8)
    for backend in ("eager", "cudagraph"):
        built = accel.build(mixer(), dataclasses.replace(plan, backend=backend), (2,), 8, device="cuda")
        assert built.backend == backend
    assert isinstance(built.ticked, CudaGraphCall)


def test_best_is_openvino_where_it_is_installed(has_openvino, randomised_network):
    assert program(randomised_network(), planned(backend="best")).backend == "openvino"


def test_best_is_eager_where_nothing_better_is_installed(without_openvino, randomised_network):
    built = program(randomised_network(), planned(backend="best"))
    assert built.backend == "eager" and built.executor.fused


def test_best_is_a_graph_on_cuda(randomised_network):
    assert program(randomised_network(), planned(backend="best"), "cuda:0").backend == "cudagraph"


def test_a_program_belongs_to_the_first_thread_that_runs_it():
    rule = OneThread("this thing")
    first = threading.Thread(target=rule.check)
    first.start()
    first.join()
    with pytest.raises(InputError, match="this thing was set up on another thread"):
        rule.check()
    mine = OneThread("mine")
    mine.check()
    mine.check()
