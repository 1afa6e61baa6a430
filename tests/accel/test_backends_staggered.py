"""Staggered programs on a backend: the call of a tick is one OpenVINO model, and nothing else changes."""

import dataclasses
import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.accel import Use
from ontick.accel.backends import backend_for
from ontick.accel.backends.openvino_call import OpenVinoCall
from ontick.accel.caching.staggered import cached_ticks
from ontick.diffusion import GridSpec, Inputs, Plan, Prediction, load_plan, run_chunk
from ontick.errors import InputError
from ontick.policy import StreamingTransformer

WIDTH = 3
TICKS = 7
RUN_HERE = ("eager", "openvino")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture
def has_openvino():
    pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def streaming(tiny_config):
    """One layer, every parameter random, the level of a row included."""
    network = StreamingTransformer(tiny_config(layers=1, horizon=16)).eval().requires_grad_(False)
    g = torch.Generator().manual_seed(0)
    for name, value in network.named_parameters():
        noise = torch.randn(value.shape, generator=g)
        value.copy_(noise / value.shape[1] ** 0.5 if value.dim() == 2 else 0.3 * noise + ("norm" in name))
    return network


def queue(network, plan="diagonal-4", backend="eager", device="cpu", **changes):
    plan = dataclasses.replace(load_plan(plan), backend=backend, **changes)
    return accel.build(network, plan, (2,), None, device=device)


def ticked(program, obs, seed, ticks=TICKS):
    """[ticks, B, R, D] after every tick."""
    state, inputs, after = program.start(seed, seed + 1), Inputs(program.prepare(obs)), []
    for _ in range(ticks):
        state, out = program.tick(state, inputs)
        after.append(out.x)
    return torch.stack(after)


# -- equal to the eager tick ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["diagonal-4", "diagonal-8"])
def test_a_queue_equals_its_eager_twin_at_every_tick_and_width(has_openvino, streaming, observation, name):
    eager, fast = (queue(streaming, name, backend) for backend in RUN_HERE)
    assert (eager.backend, fast.backend) == RUN_HERE
    for lanes, first in ((1, 5), (WIDTH, 6), (1, 7)):
        want, got = (ticked(p, observation(lanes, first), torch.arange(first, first + lanes)) for p in (eager, fast))
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stagger", [1, 2, 9], ids=["diagonal", "wide diagonal", "one after another"])
def test_a_finite_program_equals_its_eager_twin(has_openvino, streaming, observation, keys, stagger):
    plan = Plan(name="p", grid=GridSpec(steps=4), solver="dpmpp", stagger=stagger, block=4)
    eager, fast = (accel.build(streaming, dataclasses.replace(plan, backend=backend), (2,), 16) for backend in RUN_HERE)
    want, got = (run_chunk(p, p.prepare(observation(2)), *keys(2)) for p in (eager, fast))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


def test_a_network_that_reads_position_ids_is_told_them(has_openvino, oracle):
    """The oracle knows the truth by position id: a model that took the first call's ids for all would not find it."""
    truth = torch.linspace(-0.8, 0.8, 40).reshape(20, 2)
    program = accel.build(oracle(truth), dataclasses.replace(load_plan("diagonal-4"), backend="openvino"), (2,), None)
    state, inputs, given = program.start(torch.tensor([3]), torch.tensor([0])), Inputs(torch.zeros(1, 1)), {}
    for _ in range(2 * TICKS):
        state, out = program.tick(state, inputs)
        given |= {int(i): x for i, x, clean in zip(out.index[0], out.x[0], out.clean[0], strict=True) if clean}
    assert len(given) > len(truth)
    for i, x in given.items():
        torch.testing.assert_close(x, truth[i % len(truth)], rtol=0, atol=1e-4)


def test_conditioning_is_an_input(has_openvino, mixer):
    class Steered(mixer):
        def predict(self, x, label, context, rows):
            return Prediction(super().predict(x, label, context, rows).x + rows.conditioning)

    plan = Plan(name="p", grid=GridSpec(steps=3), solver="ddim", stagger=1)
    after = []
    for backend in RUN_HERE:
        program = accel.build(Steered(), dataclasses.replace(plan, backend=backend), (2,), 6)
        state = program.start(torch.tensor([1]), torch.tensor([0]))
        for seed in range(program.ticks):
            steer = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(seed))
            state, _ = program.tick(state, Inputs(torch.zeros(1, 1), conditioning=steer))
        after.append(state.x)
    torch.testing.assert_close(*after, rtol=0, atol=1e-4)


# -- the laws ------------------------------------------------------------------------------------------------------


def test_a_lane_does_not_depend_on_its_neighbours(has_openvino, streaming, observation):
    program, obs, seed = queue(streaming, backend="openvino"), observation(WIDTH), torch.tensor([3, 4, 5])
    alone = ticked(program, obs, seed)
    beside = obs.clone()
    beside[1:] = 7.0
    among = ticked(program, beside, torch.tensor([3, 90, 91]))
    assert torch.equal(alone[:, 0], among[:, 0]) and not torch.equal(alone[:, 1], among[:, 1])


def test_streams_that_take_turns_on_a_program_do_not_meet(has_openvino, streaming, observation):
    program = queue(streaming, backend="openvino")
    alone = [ticked(program, observation(1, i), torch.tensor([i])) for i in range(2)]
    states = [program.start(torch.tensor([i]), torch.tensor([i + 1])) for i in range(2)]
    inputs = [Inputs(program.prepare(observation(1, i))) for i in range(2)]
    for tick in range(TICKS):
        for i in range(2):
            states[i], out = program.tick(states[i], inputs[i])
            assert torch.equal(out.x, alone[i][tick])


def test_what_a_call_gave_outlives_the_next_and_nothing_given_is_written_to(has_openvino, streaming, observation):
    program = queue(streaming, backend="openvino")
    context = program.prepare(observation(1))
    state, before = program.start(torch.tensor([1]), torch.tensor([0])), context.clone()
    x = state.x.clone()
    after, first = program.tick(state, Inputs(context))
    kept = first.x.clone()
    program.tick(after, Inputs(program.prepare(observation(1, 9))))
    assert torch.equal(first.x, kept) and torch.equal(state.x, x) and torch.equal(context, before)
    assert after.carry is None


def test_a_shape_is_converted_once(has_openvino, streaming, observation, monkeypatch):
    made = []
    monkeypatch.setattr(
        "ontick.accel.backends.openvino_call._Model", lambda *a: made.append(a) or (lambda leaves: leaves[0])
    )
    program = queue(streaming, backend="openvino")
    for lanes in (1, 1, 2, 1, 2):
        ticked(program, observation(lanes), torch.arange(lanes), 2)
    assert len(made) == 2


def test_a_second_thread_is_refused(has_openvino, streaming, observation):
    program = queue(streaming, backend="openvino")
    ticked(program, observation(1), torch.tensor([1]), 1)
    with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="build a program for each thread"):
        pool.submit(ticked, program, observation(1), torch.tensor([1]), 1).result()


# -- where it cannot run -------------------------------------------------------------------------------------------


def test_best_is_openvino_for_a_queue(has_openvino, streaming):
    for name in ("exact-diagonal-1", "exact-diagonal-4"):
        program = accel.build(streaming, load_plan(name), (2,), None)
        assert program.backend == "openvino" and isinstance(program.ticked, OpenVinoCall)


def test_best_is_eager_where_it_is_not_installed(streaming, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "openvino" else found(name, *a))
    assert queue(streaming, backend="best").backend == "eager"
    with pytest.raises(InputError, match="needs the package openvino"):
        queue(streaming, backend="openvino")


def test_on_cuda_best_is_eager_and_openvino_is_refused(has_openvino, streaming):
    program = queue(streaming, backend="best", device="cuda:0")
    assert program.backend == "eager" and program.ticked is None
    with pytest.raises(InputError, match="is for the CPU, and this runs on cuda:0; use best"):
        queue(streaming, backend="openvino", device="cuda:0")


def test_beside_a_cached_tick_best_is_eager_and_openvino_is_refused(has_openvino, streaming):
    plan = Plan(name="p", grid=GridSpec(steps=4), solver="ddim", stagger=2, block=4)
    plain = accel.build(streaming, plan, (2,), 16)
    refresh = np.ones((len(streaming.blocks()), 2), bool)
    refresh[0, 1] = False
    cached = cached_ticks(plain, refresh)
    best = dataclasses.replace(cached, plan=dataclasses.replace(plan, backend="best"))
    assert backend_for(best, Use()) is best
    strict = dataclasses.replace(cached, plan=dataclasses.replace(plan, backend="openvino"))
    with pytest.raises(InputError, match="accelerator decides already what is asked at each tick; use eager") as caught:
        backend_for(strict, Use())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("view", ["partitions", "lookahead"])
def test_where_several_calls_see_parts_best_is_eager_and_openvino_is_refused(has_openvino, mixer, view):
    plan = Plan(name="p", grid=GridSpec(steps=4), solver="ddim", stagger=1, view=view, pieces=2, backend="best")
    assert accel.build(mixer(), plan, (2,), None).backend == "eager"
    with pytest.raises(InputError, match="this plan is staggered; use eager"):
        accel.build(mixer(), dataclasses.replace(plan, backend="openvino"), (2,), None)


def test_other_backends_refuse_a_queue(streaming):
    with pytest.raises(InputError, match="this plan is staggered; use eager"):
        queue(streaming, backend="compile")
    with pytest.raises(InputError, match="needs a CUDA device"):
        queue(streaming, backend="cudagraph")


def test_a_state_of_tensors_is_an_input(has_openvino, mixer):
    class Shifted(mixer):
        def predict(self, x, label, context, rows):
            shift, scale = rows.state["shift"], rows.state["more"][0]
            return Prediction(super().predict(x, label, context, rows).x * scale + shift[:, None])

    plan = Plan(name="p", grid=GridSpec(steps=3), solver="ddim", stagger=1)
    after = []
    for backend in RUN_HERE:
        program = accel.build(Shifted(), dataclasses.replace(plan, backend=backend), (2,), 6)
        state = program.start(torch.tensor([1]), torch.tensor([0]))
        for seed in range(program.ticks):
            shift = torch.randn(1, 2, generator=torch.Generator().manual_seed(seed))
            told = {"shift": shift, "more": (torch.tensor(0.5 + seed), None)}
            state, _ = program.tick(state, Inputs(torch.zeros(1, 1), state=told))
        assert program.backend == backend
        after.append(state.x)
    torch.testing.assert_close(*after, rtol=0, atol=1e-4)


def test_a_call_that_is_shown_a_part_of_the_ring_is_a_model_of_its_own_shape(has_openvino, streaming, observation):
    plan = Plan(name="p", grid=GridSpec(steps=4), solver="ddim", stagger=2, block=2, behind=3, ahead=2)
    after = []
    for backend in RUN_HERE:
        program = accel.build(streaming, dataclasses.replace(plan, backend=backend), (2,), None)
        state, inputs = program.start(torch.tensor([1]), torch.tensor([0])), Inputs(program.prepare(observation(1)))
        for tick in range(6):
            state, _ = program.tick(state, inputs, shown=slice(3, 7) if tick % 2 else None)
        state, out = program.tick(state, inputs, stride=2, shown=slice(3, 8))
        after.append(out.x)
    torch.testing.assert_close(*after, rtol=0, atol=1e-4)


def test_a_state_of_more_than_tensors_is_refused_and_under_best_the_denoisers_own(has_openvino, mixer):
    plan = Plan(name="p", grid=GridSpec(steps=3), solver="ddim", stagger=1)
    plain, strict, best = (
        accel.build(mixer(), dataclasses.replace(plan, backend=backend), (2,), 6) for backend in (*RUN_HERE, "best")
    )
    assert best.backend == "openvino"
    inputs = Inputs(torch.zeros(1, 1), state={"kv": torch.zeros(1), "name": "a"})
    start = plain.start(torch.tensor([1]), torch.tensor([0]))
    assert torch.equal(best.tick(start, inputs)[1].x, plain.tick(start, inputs)[1].x)
    assert best.backend == "eager"
    with pytest.raises(
        InputError, match=r"plan 'p': backend openvino: the denoiser is given a state of str.*use eager"
    ):
        strict.tick(start, inputs)


def test_a_network_that_cannot_be_traced_is_refused_and_under_best_runs_by_itself(has_openvino, mixer):
    class Chosen(mixer):
        def predict(self, x, label, context, rows):
            if torch.jit.is_tracing():
                raise RuntimeError("as a network does that leaves torch")
            return super().predict(x, label, context, rows)

    plan = Plan(name="p", grid=GridSpec(steps=3), solver="ddim", stagger=1)
    strict, best = (
        accel.build(Chosen(), dataclasses.replace(plan, backend=backend), (2,), 6) for backend in ("openvino", "best")
    )
    start = best.start(torch.tensor([1]), torch.tensor([0]))
    assert best.tick(start, Inputs(torch.zeros(1, 1)))[1].x.isfinite().all() and best.backend == "eager"
    with pytest.raises(InputError, match=r"cannot trace this network.*; use eager"):
        strict.tick(start, Inputs(torch.zeros(1, 1)))
