"""The story of block-wise caching is told from a network to the end, and what it looks at is what runs."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from ontick import accel
from ontick.accel.caching import cached
from ontick.accel.caching.evaluator import ActionError
from ontick.accel.caching.features import measure_maps
from ontick.benchmarks import caching_story, story_measures, story_pictures, story_surge
from ontick.diffusion import load_plan, run_chunk
from ontick.policy import TransformerConfig, TransformerForDiffusion

KINDS = ("self_attention", "cross_attention", "feed_forward")


@pytest.fixture(scope="module")
def subject() -> story_measures.Subject:
    torch.manual_seed(0)
    config = TransformerConfig(
        action_dim=2, observation_dim=3, horizon=8, n_action_steps=4, width=16, layers=2, heads=2
    )
    network = TransformerForDiffusion(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.dim() < 2:
            parameter.add_(torch.randn(parameter.shape) * 0.2)
        else:
            parameter.mul_(8)  # fresh ones hardly differ from step to step
    plan = dataclasses.replace(load_plan("exact-ddim-20"), backend="eager")
    program = accel.build(network, plan, (2,), 8)
    obs = torch.randn(20, 2, 3, generator=torch.Generator().manual_seed(1))
    return story_measures.Subject("tiny", program, obs[:16], obs[16:], slice(1, 5), budgets=(2, 4))


@pytest.fixture(scope="module")
def drawn(subject) -> np.ndarray:
    refresh = np.random.default_rng(0).random((6, 20)) < 0.4
    refresh[:, 0] = True
    return refresh


@torch.inference_mode()
def test_the_traced_chunk_is_the_one_that_the_cache_runs(subject, drawn):
    seen = story_surge.trace(subject.program, subject.held_out, subject.seeds, [(drawn, ())])[0]
    program = cached(subject.program, drawn)
    births = torch.zeros_like(subject.seeds)
    chunk = run_chunk(program, program.prepare(subject.held_out), subject.seeds, births)
    assert np.abs(seen.chunk - chunk.double().numpy()).max() < 1e-5
    assert np.abs(seen.chunk - seen.dense).max() > 1e-3


def test_where_everything_is_computed_nothing_is_off(subject, drawn):
    seen = story_surge.trace(subject.program, subject.held_out, subject.seeds, [(np.ones_like(drawn), ())])[0]
    assert seen.same_input.max() == 0 and seen.dense_run.max() < 1e-5


def test_on_the_same_input_the_first_branch_and_exact_ones_are_right_where_they_are_computed(subject, drawn):
    plainly, exactly = story_surge.trace(
        subject.program, subject.held_out, subject.seeds, [(drawn, ()), (drawn, KINDS)]
    )
    assert plainly.same_input[0][drawn[0]].max() == 0
    assert plainly.same_input[-1][drawn[-1]].max() > 1e-3
    assert exactly.same_input[drawn].max() == 0 and exactly.same_input[~drawn].max() > 1e-3


def test_lanes_in_parts_are_lanes_at_once(subject, drawn, monkeypatch):
    whole = story_surge.trace(subject.program, subject.held_out, subject.seeds, [(drawn, ())])[0]
    monkeypatch.setattr(story_surge, "AT_ONCE", 3)
    parts = story_surge.trace(subject.program, subject.held_out, subject.seeds, [(drawn, ())])[0]
    assert np.abs(whole.dense_run - parts.dense_run).max() < 1e-5 and whole.chunk.shape == parts.chunk.shape


def test_a_difference_is_told_only_where_its_interval_leaves_zero():
    noise = np.random.default_rng(1).normal(size=40)
    assert story_measures.paired(noise + 2, noise)["verdict"] == "holds"
    assert story_measures.paired(noise, noise + 2)["verdict"] == "opposite"
    assert story_measures.paired(np.append(noise, -noise), np.zeros(80))["verdict"] == "open"


def test_sets_of_observations_are_of_their_size_and_do_not_overlap():
    for name, group in story_measures.observation_sets(64).items():
        chosen = [i for one in group for i in one]
        assert {len(one) for one in group} == {int(name.split(",")[0])}
        assert len(set(chosen)) == len(chosen) and max(chosen) < 64 and len(group) <= story_measures.DRAWS


def test_schedules_of_one_comparison_cost_the_same_but_for_one_refresh(subject):
    maps = measure_maps(subject.program, subject.calibration[:2], torch.arange(2))
    error = ActionError(subject.program, subject.held_out, subject.seeds, rows=subject.rows)
    rows = story_measures.ablation(error, maps, [4])["rows"]
    union = next(row for row in rows if row["method"] == story_measures.UNION and row["kind"] == "tail")
    equal = [row for row in rows if row["kind"] == "equal"]
    assert equal and all(abs(row["refreshes"] - union["refreshes"]) < 1 for row in equal)


def test_the_story_is_told_and_drawn(subject, tmp_path):
    saved = []
    document, maps = caching_story.story(subject, lambda document: saved.append(sorted(document)))
    path = tmp_path / "story.json"
    caching_story.write(document, path)
    read = json.loads(path.read_text())
    assert read == document and len(saved) == 6 and saved[-1] == sorted(document)
    surge, ablation = read["surge"], read["ablation"]["rows"]
    by_name = {row["method"]: row for row in ablation if row["M"] == 4 and row["kind"] == "none"}
    for name in (story_measures.BLOCKWISE, story_measures.UNION, story_measures.UNIFIED):
        assert surge["actions"][name]["rms"] == pytest.approx(by_name[name]["rms"], rel=1e-3)
    assert all(seen["update"] == 0 for seen in surge[story_measures.UNIFIED]["same_input"].values())
    story_pictures.draw_similarity(read, maps, tmp_path / "similarity.png")
    story_pictures.draw_errors(read, tmp_path / "errors.png")
    caching_story.tell(read)
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in ("similarity", "errors"))
