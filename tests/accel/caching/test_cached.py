"""The accelerator `cache`: inert when it is off or full, static, its own chunk's and lane's, on every backend."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.accel.backends.cuda_graph import CudaGraph
from ontick.accel.backends.openvino import OpenVino
from ontick.accel.backends.openvino_chunk import OpenVinoChunk
from ontick.accel.caching import CacheSchedule, cached, load_schedule, sampler_of, schedule_from, with_schedules
from ontick.accel.caching.evaluator import ActionError
from ontick.accel.caching.features import measure_maps
from ontick.accel.conformance import LAWS, Case
from ontick.accel.fingerprint import fingerprint
from ontick.diffusion import Asked, Denoiser, Plan, Rows, begin, load_plan, run_chunk
from ontick.diffusion.steps import empty_history, solver_step
from ontick.errors import InputError

PLAN = dataclasses.replace(load_plan("uniform-last-3-ddpm-10"), backend="eager")
SHAPE, POSITIONS = (2,), 8


def chunk(program, obs, birth=0):
    seed = torch.arange(11, 11 + len(obs))
    with torch.inference_mode():
        return run_chunk(program, program.prepare(obs), seed, torch.full_like(seed, birth)).clone()


def built(network, plan=PLAN, **changes):
    return accel.build(network, dataclasses.replace(plan, **changes), SHAPE, POSITIONS)


def scattered(program, seed=0):
    """A schedule without any order."""
    rng = np.random.default_rng(seed)
    refresh = rng.random((len(program.denoiser.blocks()), program.grid.steps)) < 0.3
    refresh[:, 0] = True
    return refresh


def by_hand(program, obs, refresh):
    """The chunk with a dictionary of features."""
    seed = torch.arange(11, 11 + len(obs))
    with torch.inference_mode():
        start = begin(program, program.prepare(obs), seed, torch.zeros_like(seed))
        x, history, cache = start.x, empty_history(program.table, start.x), {}
        for k in range(program.grid.steps):
            step = program.grid.steps - k
            label = x.new_full(x.shape[:2], float(program.grid.label[step]))
            asked = Asked(label, start.context, Rows(start.index, step=step))
            h, told = program.denoiser.enter(x, asked), program.denoiser.tell(asked)
            for b, block in enumerate(program.denoiser.blocks()):
                if refresh[b, k]:
                    cache[b] = block.branch(h, told)
                h = h + cache[b]
            out, z = program.denoiser.leave(h, asked), start.noise[step - 1]
            x, history = solver_step(x, out, history, z, program.uniform[step], program.denoiser.clip)
    return x


@pytest.mark.parametrize("accelerators", [{}, {"exact": {}}])
@pytest.mark.parametrize("plan", ["ddpm-10", "ddim-6", "dpmpp-6", "unipc-5"])
def test_a_schedule_that_refreshes_everything_gives_the_dense_bits(randomised_network, observation, plan, accelerators):
    dense = built(randomised_network(), load_plan(plan), accelerators=accelerators)
    full = np.ones((6, dense.grid.steps), bool)
    assert torch.equal(chunk(cached(dense, full), observation(4)), chunk(dense, observation(4)))


@pytest.mark.parametrize("accelerators", [{}, {"exact": {}}])
def test_it_is_the_chunk_with_a_dictionary_of_features(randomised_network, observation, accelerators):
    dense = built(randomised_network(), load_plan("ddpm-10"), accelerators=accelerators)
    refresh = scattered(dense)
    wanted = by_hand(dense, observation(4), refresh)
    torch.testing.assert_close(chunk(cached(dense, refresh), observation(4)), wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(wanted, chunk(dense, observation(4)), atol=1e-3)


def test_branches_are_computed_as_often_as_the_schedule_says(randomised_network, observation, monkeypatch):
    dense = built(randomised_network(), load_plan("ddpm-10"))
    refresh, counts = scattered(dense), np.zeros(6, int)
    plain = type(dense.denoiser).blocks

    def counting(self):
        def branch(i, block):
            return lambda h, told: (counts.__setitem__(i, counts[i] + 1), block.branch(h, told))[1]

        return [dataclasses.replace(block, branch=branch(i, block)) for i, block in enumerate(plain(self))]

    monkeypatch.setattr(type(dense.denoiser), "blocks", counting)
    program = cached(dense, refresh)
    chunk(program, observation(2))
    assert (counts == refresh.sum(1)).all()
    assert program.calls == refresh.any(0).sum()
    assert program.refreshes == refresh.sum(1).mean()


def test_a_cache_belongs_to_one_chunk(randomised_network, observation):
    program = built(randomised_network())
    first = chunk(program, observation(3))
    chunk(program, observation(3, seed=5), birth=4)
    assert torch.equal(chunk(program, observation(3)), first)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("predictor", ["reuse", "taylor-2"])
def test_openvino_runs_the_whole_chunk_as_one_model(
    randomised_network, observation, openvino_for, precision, predictor
):
    openvino_for(precision)
    network = randomised_network()
    settings = {**PLAN.accelerators, "cache": {**PLAN.accelerators["cache"], "predictor": predictor}}
    eager = built(network, accelerators=settings, precision=precision)
    program = built(network, accelerators=settings, precision=precision, backend="openvino")
    tolerance = {"fp32": 2e-5, "int8": 2e-5, "bf16": 0.3}[precision]
    for lanes in (1, 4):
        got, wanted = chunk(program, observation(lanes)), chunk(eager, observation(lanes))
        torch.testing.assert_close(got, wanted, atol=tolerance, rtol=0)
    assert program.backend == "openvino"


def test_openvino_takes_a_plain_network_and_any_solver(randomised_network, observation, openvino_for):
    openvino_for("fp32")
    for plan in ("uniform-2-unipc-6", "uniform-2-dpmpp-6", "uniform-2-ddim-6"):
        for network in (randomised_network(), randomised_network(causal=False), randomised_network(n_cond_layers=1)):
            cache = {"cache": load_plan(plan).accelerators["cache"]}
            programs = [built(network, load_plan(plan), accelerators=cache, backend=b) for b in ("eager", "openvino")]
            wanted, got = (chunk(program, observation(2)) for program in programs)
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_a_full_schedule_on_openvino_gives_the_bits_of_the_dense_chunk_there(
    randomised_network, observation, openvino_for
):
    openvino_for("fp32")
    network = randomised_network()
    dense = built(network, load_plan("exact-ddpm-6"), backend="openvino")
    eager = built(network, load_plan("exact-ddpm-6"), backend="eager")
    plan = dataclasses.replace(load_plan("exact-ddpm-6"), backend="openvino")
    full = accel.backends.backend_for(dataclasses.replace(cached(eager, np.ones((6, 6), bool)), plan=plan), accel.Use())
    assert torch.equal(chunk(full, observation(2)), chunk(dense, observation(2)))


def test_a_dense_chunk_is_one_model_where_it_has_few_branches_and_bytes(randomised_network, openvino_for, monkeypatch):
    openvino_for("fp32")
    network, plan = randomised_network(), load_plan("exact-ddim-4")
    assert isinstance(built(network, plan, backend="openvino").executor, OpenVinoChunk)
    for limit in ("ONE_MODEL", "ONE_MODEL_BYTES"):
        with monkeypatch.context() as patched:
            patched.setattr(accel.backends, limit, 10)
            assert isinstance(built(network, plan, backend="openvino").executor, OpenVino)


@pytest.mark.slow
def test_torch_compile_runs_its_parts(randomised_network, observation):
    network = randomised_network(layers=1)
    plan = load_plan("uniform-last-2-ddpm-5")
    wanted = chunk(built(network, plan, backend="eager"), observation(2))
    got = chunk(built(network, plan, backend="compile"), observation(2))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_a_graph_records_it(randomised_network, observation):
    """Replayed by a stand-in that calls what was recorded: nothing in it depends on data."""
    program = built(randomised_network())
    out = {}

    def record(work):
        out["x"] = work()
        return lambda: out["x"].x.copy_(work().x), out["x"]

    graphed = dataclasses.replace(program, executor=CudaGraph(program, record=record))
    for seed in (0, 1):
        assert torch.equal(chunk(graphed, observation(2, seed=seed)), chunk(program, observation(2, seed=seed)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ["cudagraph", "compile"])
def test_cuda_runs_it_as_one_graph(randomised_network, observation, backend):
    network = randomised_network().cuda()
    seed, zero = torch.arange(4), torch.zeros(4, dtype=torch.int64)
    chunks = []
    for name in ("eager", backend):
        program = accel.build(network, dataclasses.replace(PLAN, backend=name), SHAPE, POSITIONS, device="cuda")
        context = program.prepare(observation(4).cuda())
        chunks.append(run_chunk(program, context, seed, zero, device="cuda").clone())
    torch.testing.assert_close(chunks[1], chunks[0], atol=1e-4, rtol=0)


# -- schedules as files -----------------------------------------------------------------------------------------------


@pytest.fixture
def beside(tmp_path, randomised_network):
    """A network and a folder with a schedule for it, called bac-3-ddpm-10."""
    network = randomised_network()
    plan = load_plan("bac-3-ddpm-10")
    dense = built(network, load_plan("ddpm-10"))
    schedule = CacheSchedule(
        refresh=scattered(dense),
        blocks=tuple(block.name for block in dense.denoiser.blocks()),
        sampler=sampler_of(plan),
        network=fingerprint(network),
        about={"samples": 1},
    )
    (tmp_path / "schedules").mkdir()
    schedule.save(tmp_path / "schedules" / "bac-3-ddpm-10.json")
    return network, plan, schedule, tmp_path


def test_a_schedule_survives_the_file(beside):
    _, _, schedule, folder = beside
    loaded = load_schedule(folder / "schedules" / "bac-3-ddpm-10.json")
    assert (loaded.refresh == schedule.refresh).all()
    assert loaded.to_dict() == schedule.to_dict()


def test_the_schedule_beside_a_checkpoint_is_taken_into_the_plan(beside, observation):
    network, plan, schedule, folder = beside
    whole = Plan.from_dict(with_schedules(plan, folder).to_dict())
    program = built(network, whole, backend="eager")
    assert (program.rewritten.refresh == schedule.refresh).all()
    file = {"exact": {}, "cache": {"schedule": str(folder / "schedules" / "bac-3-ddpm-10.json")}}
    by_file = built(network, plan, accelerators=file, backend="eager")
    assert torch.equal(chunk(program, observation(2)), chunk(by_file, observation(2)))
    assert with_schedules(load_plan("uniform-3"), folder) == load_plan("uniform-3")


def test_a_schedule_that_is_not_there_is_told_with_the_command_that_makes_it(beside):
    _, _, _, folder = beside
    with pytest.raises(InputError, match=r"make it with `ontick calibrate .* --plan bac-9`"):
        with_schedules(load_plan("bac-9"), folder)
    with pytest.raises(InputError, match="beside no checkpoint here"):
        built(beside[0], load_plan("bac-9-ddpm-10"), backend="eager")


def test_a_schedule_of_another_network_sampler_or_shape_is_refused(beside, randomised_network):
    network, plan, _, folder = beside
    whole = with_schedules(plan, folder)
    other = randomised_network(seed=1)
    with pytest.raises(InputError, match=f"is for the network {fingerprint(network)}, this is {fingerprint(other)}"):
        built(other, whole, backend="eager")
    ddim = dataclasses.replace(whole, solver="ddim")
    with pytest.raises(InputError, match="is for the sampler"):
        built(network, ddim, backend="eager")
    with pytest.raises(InputError, match=r"is for 6 blocks, .* this network has 3"):
        built(randomised_network(layers=1), whole, backend="eager")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": "x"}, "format is 'x', wanted 'ontick-cache-schedule-1'"),
        ({"refresh": {}}, "wanted refresh"),
        ({"refresh": {"a": "##", "b": "#"}}, "all of one length"),
        ({"refresh": {"a": "#x"}}, "strings of # "),
        ({"refresh": {"a": ".#"}}, "every block at its first step"),
        ({"network": 3}, "wanted a fingerprint or null"),
    ],
)
def test_a_broken_schedule_is_refused_in_one_line(beside, change, complaint):
    data = json.loads(json.dumps(beside[2].to_dict())) | change
    with pytest.raises(InputError, match=complaint) as told:
        schedule_from(data, "bac.json")
    assert str(told.value).startswith("bac.json: ")
    assert "\n" not in str(told.value)


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a.json is not JSON"):
        load_schedule(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "got nothing; wanted schedule"),
        ({"scheduler": "uniform"}, "wanted schedule, or scheduler and refreshes"),
        ({"scheduler": "bac", "refreshes": 3}, "scheduler is 'bac', wanted one of uniform, uniform-last, power"),
        ({"scheduler": "uniform", "refreshes": 0}, "refreshes is 0, wanted a whole number from 1 to 10"),
        ({"scheduler": "uniform", "refreshes": 11}, "refreshes is 11"),
        ({"scheduler": "uniform", "refreshes": 3, "predictor": "x"}, "predictor is 'x'"),
        ({"scheduler": "uniform", "refreshes": 3, "predictor": ["x"]}, r"predictor is \['x'\]"),
        ({"scheduler": ["uniform"], "refreshes": 3}, r"scheduler is \['uniform'\]"),
        ({"scheduler": "uniform", "refreshes": 10}, "would do nothing"),
    ],
)
def test_settings_that_mean_nothing_are_refused(randomised_network, settings, complaint):
    with pytest.raises(InputError, match=complaint):
        built(randomised_network(), accelerators={"cache": settings})


def test_a_network_without_blocks_is_refused(mixer):
    with pytest.raises(InputError, match=r"Mixer lists no blocks"):
        built(mixer(), accelerators={"cache": {"scheduler": "uniform", "refreshes": 3}})


class Listing(Denoiser):
    """Lists blocks and writes predict, and so cannot be run branch by branch."""

    def __init__(self, inner):
        self.inner, self.schedule, self.clip = inner, inner.schedule, inner.clip
        self.prediction, self.windows = inner.prediction, inner.windows

    def prepare(self, obs):
        return self.inner.prepare(obs)

    def predict(self, x, label, context, rows=None):
        return self.inner.predict(x, label, context, rows)

    def blocks(self):
        return self.inner.blocks()


def test_a_network_that_only_lists_blocks_is_refused_and_runs_on_openvino_as_before(
    randomised_network, observation, openvino_for
):
    network = Listing(randomised_network())
    for gate in ({"cache": {"scheduler": "uniform", "refreshes": 3}}, {"gated-taylor": {"threshold": 0.1}}):
        with pytest.raises(InputError, match=r"Listing writes no Denoiser.enter, tell and leave"):
            built(network, accelerators=gate)
    dense, seeds = built(network, load_plan("ddim-4")), torch.arange(2)
    for look in (measure_maps, ActionError):
        with pytest.raises(InputError, match=r"Listing writes no Denoiser.enter"):
            look(dense, observation(2), seeds)
    openvino_for("fp32")
    wanted = chunk(built(network, load_plan("ddim-4")), observation(2))
    got = chunk(built(network, load_plan("ddim-4"), backend="openvino"), observation(2))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_a_calibrated_schedule_wants_weights_that_can_be_told_apart(beside):
    network, plan, _, folder = beside
    schedule = with_schedules(plan, folder).accelerators["cache"]["schedule"]

    class Hidden(Listing):
        enter, tell, leave = (
            lambda self, *a, name=name: getattr(self.inner, name)(*a) for name in ("enter", "tell", "leave")
        )

    with pytest.raises(InputError, match="shows none"):
        built(Hidden(network), plan, accelerators={"cache": {"schedule": schedule}}, backend="eager")


def test_a_schedule_of_a_chunk_is_refused_for_a_queue(beside):
    """A lag as long as the chunk has as many steps, and is something else."""
    staggered = sampler_of(dataclasses.replace(beside[1], stagger=9))
    assert staggered != sampler_of(beside[1])


# -- conformance ------------------------------------------------------------------------------------------------------


def without_blocks(mixer):
    return mixer(), dataclasses.replace(PLAN, accelerators={"cache": {"scheduler": "uniform", "refreshes": 3}})


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("accelerators", ["alone", "exact", "exact on openvino"])
def test_it_conforms(law, accelerators, randomised_network, observation, mixer, openvino_for):
    backend = "eager"
    if accelerators.endswith("openvino"):
        openvino_for("fp32")
        backend = "openvino"
    cache = {"cache": {"scheduler": "uniform-last", "refreshes": 3}}
    plan = dataclasses.replace(
        PLAN, accelerators=cache if accelerators == "alone" else {"exact": {}, **cache}, backend=backend
    )
    network, bad = without_blocks(mixer)
    law(
        Case(
            make_denoiser=randomised_network,
            make_obs=observation,
            shape=SHAPE,
            positions=POSITIONS,
            plan=plan,
            accelerator="cache",
            idle=({"scheduler": "uniform", "refreshes": 10},),
            impossible=((lambda: network, bad),),
            rows=slice(5),
        )
    )
