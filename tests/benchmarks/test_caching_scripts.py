"""The scripts about predictors and fronts: their documents, pictures and files, of a tiny policy."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.accel.caching import CacheSchedule, sampler_of
from ontick.accel.caching.costs import CostModel
from ontick.accel.caching.evolution import evolve
from ontick.accel.caching.predictors import PREDICTORS
from ontick.accel.fingerprint import fingerprint
from ontick.benchmarks import caching_front, caching_predictors
from ontick.benchmarks.caching_predictors import Subject, compared, document_of, write
from ontick.diffusion import load_plan
from ontick.errors import InputError
from ontick.policy import TransformerConfig, TransformerForDiffusion

SAMPLERS = {"ddim-8": 3}
COST = CostModel(
    tick_ms=0.1, active_ms=0.5, block_ms={"self_attention": 1.0, "cross_attention": 1.0, "feed_forward": 1.0}
)


@pytest.fixture
def subject(tmp_path):
    torch.manual_seed(0)
    config = TransformerConfig(
        action_dim=2, observation_dim=3, horizon=8, n_obs_steps=2, n_action_steps=4, width=16, layers=1, heads=2
    )
    network = TransformerForDiffusion(config).eval().requires_grad_(False)
    obs = torch.randn(12, 2, 3)
    (tmp_path / "schedules").mkdir()
    return Subject("tiny", SimpleNamespace(network=network), tmp_path / "schedules", obs[:6], obs[6:])


def scheduled(subject, name, network=None):
    """A schedule beside the checkpoint, for ddim-8."""
    program = subject.program("ddim-8")
    refresh = np.zeros((3, 8), bool)
    refresh[:, [0, 5]] = True
    told = {"sampler": sampler_of(program.plan), "network": network or fingerprint(subject.checkpoint.network)}
    names = tuple(block.name for block in program.denoiser.blocks())
    CacheSchedule(refresh=refresh, blocks=names, **told).save(subject.folder / f"{name}.json")


def test_every_predictor_is_judged_on_every_schedule_that_is_there(subject, tmp_path):
    scheduled(subject, "bac-3-ddim-8")
    document = document_of(subject, SAMPLERS)
    rows = document["rows"]
    assert {row["schedule"] for row in rows} == {"uniform-last-3", "power-3", "bac-3"}
    assert set(PREDICTORS) | {"affine-dense"} <= {row["predictor"] for row in rows}
    assert all(np.isfinite(row["rms"]) for row in rows)
    assert all(("verdict" in row) == (row["predictor"] != "reuse") for row in rows)
    write(document, tmp_path / "a.json")
    assert len(json.loads((tmp_path / "a.json").read_text())["rows"]) == len(rows)
    caching_predictors.draw(document, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    caching_predictors.tell(document)


def test_schedules_of_another_network_are_refused(subject):
    scheduled(subject, "bac-3-ddim-8", network="0123")
    with pytest.raises(InputError, match="is for the network 0123"):
        document_of(subject, SAMPLERS)


def test_a_predictor_that_is_nearer_everywhere_helps():
    reuse = np.linspace(1, 2, 20)
    assert compared(reuse * 0.9, reuse)["verdict"] == "helps"
    assert compared(reuse * 1.1, reuse)["verdict"] == "hurts"
    told = compared(reuse + np.tile([0.1, -0.1], 10), reuse)
    assert told["verdict"] == "open" and told["nearer"] == 0.5


def test_affine_and_reuse_are_timed_on_the_same_backend(subject, monkeypatch):
    monkeypatch.setattr(caching_predictors, "TIMED", 1)
    program = subject.program("ddim-8")
    refresh = np.zeros((3, 8), bool)
    refresh[:, [0, 5]] = True
    tables = caching_predictors.fits(subject, program, refresh)["affine"]
    took = caching_predictors.timed(subject, program, refresh, tables)
    assert set(took) == {"reuse", "affine"} and min(took.values()) > 0


def test_a_front_is_judged_beside_the_others_and_its_schedules_are_files_that_a_plan_takes(subject, tmp_path):
    program = subject.program("ddim-8")
    kinds = [block.kind for block in program.denoiser.blocks()]
    seeds = caching_front.others(subject, program, budgets=(2, 4))
    assert set(seeds) == {"uniform-last-2", "uniform-last-4", "power-2", "power-4"}
    error = caching_front.MeanError(caching_front.error_of(subject, program, held_out=False))
    front = evolve(error, COST, kinds, list(seeds.values()), generations=1, population=4, seed=0)
    document = caching_front.document_of(subject, program, COST, front, seeds)
    assert len(document["rows"]) == len(front.ms) + len(seeds)
    assert {row["other"] for row in document["against"]} == set(seeds)
    cost = {row["schedule"]: row["predicted_ms"] for row in document["rows"]}
    assert all(cost[row["front"]] <= cost[row["other"]] + 1e-6 for row in document["against"])
    caching_front.draw(document, tmp_path / "front.png")
    caching_front.tell(document)
    caching_front.save_front(subject, program, front, tmp_path, "tiny")
    plan = load_plan("exact-ddim-8")
    settings = {"exact": {}, "cache": {"schedule": str(tmp_path / "front-tiny-0.json")}}
    plan = type(plan).from_dict({**plan.to_dict(), "accelerators": settings})
    built = accel.build(subject.checkpoint.network, plan, (2,), 8)
    assert (built.rewritten.refresh == front.refresh[0]).all()


def test_costs_are_read_of_a_model_or_of_a_schedule_made_with_one(subject, tmp_path):
    program = subject.program("ddim-8")
    for name, data in (("a", COST.to_dict()), ("b", {"about": {"cost_model": COST.to_dict()}})):
        (tmp_path / name).write_text(json.dumps(data))
        assert caching_front.cost_of(subject, program, tmp_path / name) == COST
    with pytest.raises(InputError, match="cannot be read"):
        caching_front.cost_of(subject, program, tmp_path / "c")
