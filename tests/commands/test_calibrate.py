"""`ontick calibrate`: what it writes, what it refuses, and that the others find it."""

import json
import shutil

import pytest

from ontick.accel.caching import load_schedule
from ontick.accel.fingerprint import fingerprint
from ontick.commands import calibrate, main
from ontick.commands.observations import demonstrated, played
from ontick.envs import demonstration_seeds
from ontick.errors import InputError
from ontick.policy import load_checkpoint


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path, monkeypatch):
    """A copy of the tiny checkpoint, of which episodes are short and few samples are held out."""
    monkeypatch.setattr(calibrate, "HELD_OUT", 2)
    monkeypatch.setattr(calibrate, "EVALUATIONS", 60)
    monkeypatch.setattr("ontick.benchmarks.cost_model.CHUNKS", 2)
    folder = tmp_path / "policy"
    shutil.copytree(tiny_checkpoint, folder)
    return folder


@pytest.fixture
def data(random_demonstrations):
    """3 episodes of 12 steps."""
    return random_demonstrations([12, 24, 36])


def run(checkpoint, plan, data, *more):
    return main(["calibrate", str(checkpoint), "--plan", plan, "--data", str(data), *more])


@pytest.mark.parametrize("plan", ["bac-3-ddpm-12", "global-3-ddpm-12", "uniform-last-3-ddpm-12", "power-4-ddim-12"])
def test_it_writes_a_schedule_beside_the_checkpoint_and_draws_it(checkpoint, data, plan, capsys):
    assert run(checkpoint, plan, data, *([] if plan.startswith(("u", "p")) else ["--samples", "3"])) == 0
    schedule = load_schedule(checkpoint / "schedules" / f"{plan}.json")
    assert schedule.network == fingerprint(load_checkpoint(checkpoint).network)
    assert schedule.steps == 12 and len(schedule.blocks) == 3
    about = schedule.about
    assert about["plan"] == plan and about["held_out"]["samples"] == 2
    assert 0 <= about["held_out"]["action_rms"] <= about["held_out"]["action_error"]
    assert (checkpoint / "schedules" / f"{plan}.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert f"{plan}: {schedule.refreshes:.1f} refreshes a block of 12 steps" in out
    if plan.startswith("global"):
        assert about["predicted_ms"] <= about["budget_ms"] * (1 + 1e-9)
        assert set(about["cost_model"]["block_ms"]) == {"self_attention", "cross_attention", "feed_forward"}


def test_the_switches_of_bac_change_what_they_say(checkpoint, data, tmp_path):
    def refresh(*more):
        assert run(checkpoint, "bac-3-ddpm-12", data, "--samples", "2", "--out", str(tmp_path / "s.json"), *more) == 0
        return load_schedule(tmp_path / "s.json").refresh

    assert refresh("--united", "0")[:, -1].all()
    bare = refresh("--united", "0", "--no-tail")
    assert (bare.sum(1) == 3).all()
    assert (refresh("--united", "3", "--no-tail") >= bare).all()
    assert (refresh("--united", "0", "--no-tail", "--form", "adjacent").sum(1) == 3).all()


def test_evaluate_and_the_same_command_again_agree(checkpoint, data, tmp_path, monkeypatch):
    monkeypatch.setattr("ontick.commands.evaluate.TIMING_SECONDS", 0.01)
    assert run(checkpoint, "bac-3-ddpm-12", data, "--samples", "2") == 0
    first = (checkpoint / "schedules" / "bac-3-ddpm-12.json").read_text()
    assert run(checkpoint, "bac-3-ddpm-12", data, "--samples", "2") == 0
    assert (checkpoint / "schedules" / "bac-3-ddpm-12.json").read_text() == first
    out = tmp_path / "e.json"
    wanted = ["--tasks", "metaworld/pick-place-v3", "--plans", "bac-3-ddpm-12", "--episodes", "1", "--json", str(out)]
    assert main(["evaluate", "--checkpoint", str(checkpoint), *wanted]) == 0
    [row] = json.loads(out.read_text())["rows"]
    assert row["refreshes"] == pytest.approx(load_schedule(checkpoint / "schedules" / "bac-3-ddpm-12.json").refreshes)


def test_observations_are_of_episodes_that_the_policy_plays_on_seeds_of_no_evaluation(checkpoint, monkeypatch):
    seeds = []
    monkeypatch.setattr(
        "ontick.commands.observations.demonstration_seeds",
        lambda base, n: (seeds.append(s) or s for s in demonstration_seeds(base, n)),
    )
    policy = load_checkpoint(checkpoint)
    obs = played(policy, 5, 0)
    assert obs.shape == (5, 2, 39) and obs.isfinite().all()
    assert 2 <= len(seeds) <= 3 and all(seed % 2 for seed in seeds)
    assert len({tuple(window.flatten().tolist()) for window in obs}) == 5


def test_demonstrations_give_windows_of_single_episodes(checkpoint, data):
    policy = load_checkpoint(checkpoint)
    assert demonstrated(policy, 33, data).shape == (33, 2, 39)  # 11 windows of each of 3 episodes
    with pytest.raises(InputError, match=r"has 33 windows of 2 observations, wanted 34"):
        demonstrated(policy, 34, data)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--plan", "ddim-10"], "--plan ddim-10: wanted bac-M"),
        (["--plan", "bac-3", "--samples", "0"], "--samples is 0, wanted at least 1"),
        (["--plan", "bac-3", "--out", "x.yaml"], "wanted the name of a .json file"),
        (["--plan", "bac-3", "--data", "none.zarr"], "got no demonstrations at none.zarr"),
    ],
)
def test_bad_input_is_told_in_one_line(checkpoint, given, complaint, capsys):
    assert main(["calibrate", str(checkpoint), *given]) == 2
    told = capsys.readouterr().err
    assert complaint in told and told.count("\n") == 1


def test_a_budget_beyond_the_steps_is_refused(checkpoint, data, capsys):
    for plan in ("bac-13-ddpm-12", "uniform-13-ddpm-12", "global-13-ddpm-12"):
        assert run(checkpoint, plan, data) == 2
        assert "13" in capsys.readouterr().err


def test_a_checkpoint_without_a_task_wants_data(checkpoint, capsys):
    config = json.loads((checkpoint / "config.json").read_text())
    del config["about"]["task"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert main(["calibrate", str(checkpoint), "--plan", "bac-3"]) == 2
    assert "give --data FILE" in capsys.readouterr().err


def test_affine_tables_are_fitted_beside_the_schedule_and_a_plan_uses_them(checkpoint, data, tmp_path, monkeypatch):
    monkeypatch.setattr("ontick.commands.evaluate.TIMING_SECONDS", 0.01)
    out = tmp_path / "s.json"
    assert run(checkpoint, "bac-3-ddpm-12", data, "--samples", "4", "--affine", "--out", str(out)) == 0
    assert out.with_suffix(".safetensors").is_file()
    rows = []
    for predictor in ("reuse", "affine"):
        plan = tmp_path / f"{predictor}.yaml"
        cache = f"cache: {{schedule: {out}, predictor: {predictor}}}"
        plan.write_text(
            f"name: {predictor}\ngrid: {{steps: 12}}\nsolver: ddpm\naccelerators: {{exact: {{}}, {cache}}}\n"
        )
        told = tmp_path / f"{predictor}.out.json"
        wanted = ["--tasks", "metaworld/pick-place-v3", "--plans", str(plan), "--episodes", "1", "--json", str(told)]
        assert main(["evaluate", "--checkpoint", str(checkpoint), *wanted]) == 0
        rows += json.loads(told.read_text())["rows"]
    assert rows[0]["action_rms"] != rows[1]["action_rms"]
    assert run(checkpoint, "power-3-ddpm-12", data, "--affine") == 2
