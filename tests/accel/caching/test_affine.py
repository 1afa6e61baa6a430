"""Affine corrections: nothing where the tables say nothing, exact where features are, their own schedule's alone."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.accel.caching import CacheSchedule, cached, sampler_of, with_schedules
from ontick.accel.caching.affine import Affine, fit_affine, load_affine, runs_of
from ontick.accel.fingerprint import fingerprint
from ontick.diffusion import Block, Denoiser, Plan, load_plan, run_chunk, schedule
from ontick.errors import InputError

SHAPE, POSITIONS = (2,), 8
PLAN = load_plan("ddpm-10")


def chunk(program, obs):
    seed = torch.arange(11, 11 + len(obs))
    with torch.inference_mode():
        return run_chunk(program, program.prepare(obs), seed, torch.zeros_like(seed)).clone()


def built(network, plan=PLAN, **changes):
    return accel.build(network, dataclasses.replace(plan, **changes), SHAPE, POSITIONS)


def scattered(blocks=6, steps=10, seed=0):
    refresh = np.random.default_rng(seed).random((blocks, steps)) < 0.3
    refresh[:, 0] = True
    return refresh


def tables(refresh, width=16, scale=1.0, shift=0.0, **told):
    runs = len(runs_of(refresh))
    told = {"sampler": sampler_of(PLAN), **told}
    return Affine(
        refresh=refresh, scale=torch.full((runs, width), scale), shift=torch.full((runs, width), shift), **told
    )


def fitted(program, refresh, obs, **settings):
    return fit_affine(program, refresh, obs, torch.arange(50, 50 + len(obs)), **settings)


class Drifting(Denoiser):
    """Branches that look at the observation and the step alone: block b adds scale[b, k] features + shift[b, k]. The
    features are those of all blocks, so that a sum over blocks of any age is affine in them too."""

    def __init__(self, blocks=3, steps=10, width=5):
        g = torch.Generator().manual_seed(0)
        self.scale = torch.rand(blocks, steps + 1, width, generator=g) + 0.5
        self.shift = torch.randn(blocks, steps + 1, width, generator=g)
        self.features = torch.randn(3, width, generator=g)
        self.head = torch.randn(width, 2, generator=g)
        self.schedule = schedule("squaredcos_cap_v2", 100)
        self.clip = None

    def prepare(self, obs):
        return obs

    def blocks(self):
        def branch(b):
            return lambda h, told: (
                self.scale[b, told[1]] * (told[0].mean(1) @ self.features)[:, None] + self.shift[b, told[1]]
            ).expand(h.shape)

        return [Block(f"{b}", "feed_forward", b, branch(b)) for b in range(len(self.scale))]

    def enter(self, x, asked):
        return x.new_zeros(*x.shape[:2], len(self.head))

    def tell(self, asked):
        return asked.context, asked.rows.step

    def leave(self, h, asked):
        return h @ self.head


# -- laws -------------------------------------------------------------------------------------------------------------


def test_tables_that_change_nothing_give_the_bits_of_reuse(randomised_network, observation):
    dense, refresh = built(randomised_network()), scattered()
    got = chunk(cached(dense, refresh, "affine", tables(refresh)), observation(4))
    assert torch.equal(got, chunk(cached(dense, refresh), observation(4)))


def test_runs_are_those_that_a_schedule_reuses():
    refresh = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]], bool)
    assert runs_of(refresh) == [(1, 0), (1, 2), (2, 0)]


@pytest.mark.parametrize("along", ["cached", "dense"])
def test_features_that_drift_by_scale_and_shift_are_recovered(observation, along):
    dense, refresh = built(Drifting()), scattered(3)
    wanted = chunk(dense, observation(4))
    affine = fitted(dense, refresh, observation(8, seed=3), along=along, ridge=0.0)
    got = chunk(cached(dense, refresh, "affine", affine), observation(4))
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)
    assert (chunk(cached(dense, refresh), observation(4)) - wanted).abs().max() > 0.1


def test_a_stiff_ridge_leaves_the_scale_and_fits_the_shift(observation):
    dense, refresh = built(Drifting()), scattered(3)
    affine = fitted(dense, refresh, observation(8), ridge=1e12)
    torch.testing.assert_close(affine.scale, torch.ones_like(affine.scale))
    assert affine.shift.abs().max() > 0.1


def test_what_it_was_fitted_to_is_nearer_than_with_plain_reuse(randomised_network, observation):
    """The stream at the end of the first step that reuses, where nothing has diverged yet."""
    dense = built(randomised_network())
    refresh = np.ones((6, 10), bool)
    refresh[:, 9] = False
    affine = fitted(dense, refresh, observation(8), ridge=0.0)
    seed = torch.arange(50, 58)
    with torch.inference_mode():
        context = dense.prepare(observation(8))
        programs = dense, cached(dense, refresh), cached(dense, refresh, "affine", affine)
        right, plain, corrected = (run_chunk(p, context, seed, torch.zeros_like(seed)) for p in programs)
    assert (corrected - right).norm() < 0.9 * (plain - right).norm()


def test_a_fit_computes_all_branches_at_every_step_and_is_the_same_twice(randomised_network, observation):
    dense, refresh = built(randomised_network()), scattered()
    one, other = (fitted(dense, refresh, observation(4)) for _ in range(2))
    assert torch.equal(one.scale, other.scale) and torch.equal(one.shift, other.shift)
    assert one.about == {"samples": 4, "along": "cached", "ridge": 0.1}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_gives_what_eager_gives(randomised_network, observation, openvino_for, precision, tmp_path):
    openvino_for(precision)
    network, refresh = randomised_network(), scattered()
    path = fitted(built(network), refresh, observation(8), network=fingerprint(network)).save(
        tmp_path / "a.safetensors"
    )
    names = tuple(block.name for block in network.blocks())
    plain = CacheSchedule(refresh=refresh, blocks=names, sampler=sampler_of(PLAN)).to_dict()
    settings = {"exact": {}, "cache": {"schedule": plain, "predictor": "affine", "tables": str(path)}}
    programs = [built(network, accelerators=settings, precision=precision, backend=b) for b in ("eager", "openvino")]
    for lanes in (1, 4):
        wanted, got = (chunk(program, observation(lanes)) for program in programs)
        torch.testing.assert_close(got, wanted, atol={"fp32": 2e-5, "bf16": 0.3}[precision], rtol=0)


# -- files and plans --------------------------------------------------------------------------------------------------


@pytest.fixture
def beside(randomised_network, observation, tmp_path):
    """A network, its plan, and a folder with a schedule and its tables."""
    network, refresh = randomised_network(), scattered()
    names = tuple(block.name for block in network.blocks())
    (tmp_path / "schedules").mkdir()
    file = tmp_path / "schedules" / "mine.json"
    CacheSchedule(refresh=refresh, blocks=names, sampler=sampler_of(PLAN), network=fingerprint(network)).save(file)
    affine = fitted(built(network), refresh, observation(8), network=fingerprint(network))
    affine.save(file.with_suffix(".safetensors"))
    return network, affine, file


def planned(**cache):
    return dataclasses.replace(PLAN, accelerators={"cache": {"predictor": "affine", **cache}})


def test_tables_survive_the_file(beside):
    _, affine, file = beside
    loaded = load_affine(file.with_suffix(".safetensors"))
    assert torch.equal(loaded.scale, affine.scale) and torch.equal(loaded.shift, affine.shift)
    assert (loaded.refresh == affine.refresh).all()
    assert (loaded.network, loaded.sampler, loaded.about) == (affine.network, affine.sampler, affine.about)


def test_a_plan_finds_the_tables_beside_its_schedule_and_stays_plain_data(beside, observation):
    network, affine, file = beside
    wanted = chunk(cached(built(network), affine.refresh, "affine", affine), observation(2))
    by_file = planned(schedule=str(file))
    assert torch.equal(chunk(built(network, by_file), observation(2)), wanted)
    for plan in (by_file, planned(schedule="mine")):
        sent = json.loads(json.dumps(with_schedules(plan, file.parent.parent).to_dict()))
        assert sent["accelerators"]["cache"]["tables"] == str(file.with_suffix(".safetensors"))
        assert torch.equal(chunk(built(network, Plan.from_dict(sent)), observation(2)), wanted)


def test_tables_are_made_whole_paths(beside, monkeypatch):
    file = beside[2]
    monkeypatch.chdir(file.parent)
    file.with_suffix(".safetensors").rename(file.parent / "other.safetensors")
    for plan in (
        planned(schedule="mine.json", tables="other.safetensors"),
        planned(scheduler="uniform", refreshes=3, tables="other.safetensors"),
    ):
        settings = with_schedules(plan, file.parent.parent).accelerators["cache"]
        assert settings["tables"] == str(file.parent / "other.safetensors")


def test_missing_tables_are_refused(beside):
    network, _, file = beside
    file.with_suffix(".safetensors").unlink()
    with pytest.raises(InputError, match=r"no tables .*mine.safetensors of the predictor affine"):
        with_schedules(planned(schedule="mine"), file.parent.parent)
    with pytest.raises(InputError, match=r"no tables .*mine.safetensors"):
        built(network, planned(schedule=str(file)))
    with pytest.raises(InputError, match=r"predictor affine needs its tables, got None; give tables: FILE.safetensors"):
        built(network, planned(scheduler="uniform", refreshes=3))
    with pytest.raises(InputError, match="predictor affine needs its tables"):
        cached(built(network), scattered(), "affine")


def test_tables_that_do_not_fit_are_refused(beside, randomised_network):
    network, affine, file = beside
    path = file.with_suffix(".safetensors")
    with pytest.raises(InputError, match="fitted for another schedule"):
        built(network, planned(scheduler="uniform", refreshes=3, tables=str(path)))
    with pytest.raises(InputError, match="fitted for another schedule"):
        cached(built(network), scattered(seed=1), "affine", affine)
    dataclasses.replace(affine, network="0123").save(path)
    with pytest.raises(InputError, match="is for the network 0123, this is"):
        built(network, planned(schedule=str(file)))
    dataclasses.replace(affine, sampler={"solver": "ddim"}).save(path)
    with pytest.raises(InputError, match="is for the sampler"):
        built(network, planned(schedule=str(file)))


def test_tables_without_the_predictor_are_refused(beside):
    network, affine, file = beside
    with pytest.raises(InputError, match="tables are for predictor affine, and it is reuse"):
        built(network, planned(schedule=str(file), tables="x.safetensors", predictor="reuse"))
    with pytest.raises(InputError, match="predictor reuse has no tables"):
        cached(built(network), affine.refresh, "reuse", affine)


def test_a_broken_file_is_refused_in_one_line(beside):
    from safetensors.torch import save_file

    _, affine, file = beside
    path = file.with_suffix(".safetensors")
    whole = path.read_bytes()
    cut, other, half = (file.parent / f"{name}.safetensors" for name in ("cut", "other", "half"))
    cut.write_bytes(whole[: len(whole) // 2])
    save_file({"a": torch.zeros(1)}, other)
    save_file({"scale": affine.scale}, half, {"format": "ontick-affine-1"})
    for broken, complaint in ((cut, "is broken"), (other, "format is None"), (half, "is broken")):
        with pytest.raises(InputError, match=complaint) as told:
            load_affine(broken)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"refresh": np.ones((6, 10), bool)}, "nothing to correct"),
        ({"refresh": np.ones((5, 10), bool)}, r"is bool \[5, 10\], wanted bool \[6, 10\]"),
        ({"seeds": [1]}, "4 observations and 1 seeds"),
        ({"along": "both"}, "along is 'both', wanted one of cached, dense"),
        ({"ridge": -1.0}, "ridge is -1.0"),
    ],
)
def test_a_fit_that_means_nothing_is_refused(randomised_network, observation, change, complaint):
    arguments = {"refresh": scattered(), "obs": observation(4), "seeds": range(4), **change}
    with pytest.raises(InputError, match=complaint):
        fit_affine(built(randomised_network()), **arguments)


def test_a_program_with_a_cache_is_not_fitted_to(randomised_network, observation):
    program = cached(built(randomised_network()), scattered())
    with pytest.raises(InputError, match="without a cache of its own"):
        fitted(program, scattered(), observation(2))


def test_tables_of_another_shape_are_refused():
    refresh = scattered()
    with pytest.raises(InputError, match=r"wanted float32 \[\d+ runs, width\]"):
        Affine(refresh=refresh, scale=torch.ones(2, 16), shift=torch.zeros(2, 16), sampler={})
    with pytest.raises(InputError, match="shift is not all finite"):
        tables(refresh, shift=float("nan"))
