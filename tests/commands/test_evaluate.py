"""`ontick evaluate` as a user meets it."""

import json
import math
import subprocess
import sys
import time

import pytest

from ontick.accel.exact_network import _Layer
from ontick.commands import main
from ontick.commands.families import default_plan, parse_candidate
from ontick.commands.request import Entry, Rung
from ontick.commands.table import print_table
from ontick.commands.told import clearance_told, modes_told, other_versions_told
from ontick.envs import find_task
from ontick.envs.disturbances import Disturbance
from ontick.envs.episodes import Episode
from ontick.policy import load_checkpoint, save_checkpoint
from ontick.runtime import LatencyTrace, load_budget

TASK = "metaworld/pick-place-v3"
ROW = {
    "task", "plan", "episodes", "successes", "success_low", "success_high", "outcomes", "calls_per_action",
    "chunk_ms", "deadline_ms", "misses", "starved", "jerk",
}  # fmt: skip


@pytest.fixture
def evaluate(tiny_checkpoint, tmp_path, monkeypatch):
    """Run `ontick evaluate` with short episodes' worth of work; returns (exit code, document)."""
    monkeypatch.setattr("ontick.commands.evaluate.TIMING_SECONDS", 0.01)

    def run(*arguments, episodes="2", plans="ddim-2", tasks=TASK, name="out.json", checkpoint=tiny_checkpoint):
        path = tmp_path / name
        given = ["--checkpoint", str(checkpoint)] if checkpoint else []
        wanted = ["--tasks", tasks, "--plans", plans, "--episodes", episodes, "--json", str(path)]
        code = main(["evaluate", *given, *wanted, *arguments])
        return code, json.loads(path.read_text()) if path.exists() else None

    return run


def test_it_writes_every_number_of_every_row(evaluate, tmp_path, capsys):
    page = tmp_path / "page.html"
    code, document = evaluate("--html", str(page), plans="ddim-2,ddpm-3")
    assert code == 0 and document["complete"] and document["machine"]["cores"] >= 1
    assert [row["plan"] for row in document["rows"]] == ["ddim-2", "ddpm-3"]
    for row, calls in zip(document["rows"], (2, 3), strict=True):
        assert row.keys() >= ROW and row["chunk_ms"].keys() >= {"p50", "p99", "max", "n"}
        assert len(row["outcomes"]) == row["episodes"] == 2 and row["chunk_ms"]["n"] >= 30
        assert row["calls_per_action"] == pytest.approx(calls / 4, rel=0.05)
        assert 0 <= row["success_low"] <= row["successes"] / 2 <= row["success_high"] <= 1
    table = capsys.readouterr().out
    assert "ddpm-3" in table and "95 % interval" in table and str(page) in table
    assert page.read_text().startswith("<!doctype html>")


IN = {"type": 1, "env_name": "Lift", "env_version": "1.4.1"}


@pytest.mark.parametrize(
    ("task", "about", "told"),
    [
        (TASK, {"data": {"versions": {"mujoco": "0.1", "metaworld": "0.1"}}}, ["mujoco 0.1", "metaworld 0.1"]),
        (TASK, {"versions": {"mujoco": "0.1"}}, ["mujoco 0.1"]),  # as robomimic's algorithms note it here
        (TASK, {"data": {"versions": find_task(TASK).version}}, []),
        (TASK, {"data": {"env_args": IN}}, []),  # of another simulator altogether
        (TASK, {}, []),
        ("robosuite/Lift", {"data": {"env_args": IN}}, ["robosuite 1.4.1"]),
        ("robosuite/Lift", {"source": {"versions": {"robosuite": "1.4.1"}}}, ["robosuite 1.4.1"]),  # converted
    ],
)
def test_another_version_of_the_simulator_is_told(task, about, told, tiny_checkpoint, tmp_path):
    if task.startswith("robosuite"):
        pytest.importorskip("robosuite", exc_type=ImportError)
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.about.update(about)
    save_checkpoint(tmp_path / "it", checkpoint)
    rung = Rung(parse_candidate("ddim-2"), tmp_path / "it")
    lines = other_versions_told([Entry(task, (rung,), "cpu")] * 2)  # once, whatever the number of plans
    assert len(lines) == len(told) and all(part in line for part, line in zip(told, lines, strict=True))


def test_a_charged_run_repeats_bit_for_bit_from_its_trace(evaluate, tmp_path):
    _, first = evaluate("--charge", "measured", "--deadline-ms", "0.001", "--period-ms", "1", name="a.json")
    trace = tmp_path / "a.trace.json"
    assert trace.exists() and first["rows"][0]["starved"] > 0
    again = [evaluate("--charge", str(trace), "--deadline-ms", "0.001", "--period-ms", "1", "--workers", w, name=n)[1]
             for w, n in (("1", "b.json"), ("2", "c.json"))]  # fmt: skip
    for row in ("outcomes", "steps", "jerk", "starved", "rest", "misses", "calls_per_action", "chunk_ms"):
        assert again[0]["rows"][0][row] == again[1]["rows"][0][row]
    assert again[0]["rows"][0]["steps"] == first["rows"][0]["steps"]


def test_an_interrupted_evaluation_goes_on_after_its_last_finished_row(evaluate, tmp_path, capsys):
    _, whole = evaluate(plans="ddim-2,ddim-3")
    partial = {**whole, "complete": False, "rows": whole["rows"][:1]}
    partial["rows"][0]["jerk"] = 123.0  # a mark: this row is not played again
    (tmp_path / "out.json").write_text(json.dumps(partial))
    code, document = evaluate(plans="ddim-2,ddim-3")
    assert code == 0 and [row["plan"] for row in document["rows"]] == ["ddim-2", "ddim-3"]
    assert document["rows"][0]["jerk"] == 123.0
    assert "going on after 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"tasks": "metaworld/pick-plac-v3"}, "did you mean metaworld/pick-place-v3"),
        ({"plans": "ddimm-10"}, "unknown plan"),
        ({"plans": "nowhere.yaml"}, "no plan file"),
        ({"plans": "ddim-101"}, "1 to 100"),
        ({"plans": ""}, "empty"),
        ({"plans": "ddim-2,ddim-2"}, "twice"),
        ({"plans": "robomimic-bc"}, "none of --plans"),
        ({"episodes": "0"}, "at least 1"),
        ({"episodes": "-3"}, "at least 1"),
        ({"episodes": "many"}, "many"),
        ({"checkpoint": "nowhere"}, "not a checkpoint"),
        ({"tasks": "metaworld/sweep-v3", "checkpoint": None}, "no diffusion-transformer checkpoint"),
    ],
)
def test_bad_arguments_give_one_line_and_exit_code_2(evaluate, capsys, arguments, complaint):
    code, document = evaluate(**arguments)
    error = capsys.readouterr().err
    assert code == 2 and document is None
    assert complaint in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--workers", "0"], "at least 1"),
        (["--budget", "cpu-21hz"], "cpu-20hz"),
        (["--deadline-ms", "-1"], "above 0"),
        (["--charge", "nowhere.json"], "nowhere.json"),
        (["--seed", "-1"], "-1"),
        (["--json", "/dev/null/x.json"], "cannot be written"),
        (["--html", "/dev/null/x.html"], "cannot be written"),
        (["--html", "same.json", "--json", "same.json"], "its own"),
        (["--disturb", "shove"], "wanted push, delay or drop"),
        (["--disturb", "drop=2"], "from 0 to 1"),
        (["--json", ""], "wanted the name"),
        (["--html", ""], "wanted the name"),
        (["--json", "/dev/null"], "no ordinary file"),
        (["--html", "a.trace.json", "--json", "a.json", "--charge", "measured"], "its own"),
    ],
)
def test_bad_options_give_one_line_and_exit_code_2(evaluate, capsys, options, complaint):
    code, document = evaluate(*options)
    error = capsys.readouterr().err
    assert code == 2 and document is None
    assert complaint in error and error.count("\n") == 1


def test_a_mixed_level_plan_file_needs_a_streaming_transformer(evaluate, tmp_path, capsys):
    path = tmp_path / "diagonal.yaml"
    path.write_text("{name: diagonal, grid: {steps: 4}, solver: ddim, stagger: 1}")
    code, _ = evaluate(plans=str(path))
    error = capsys.readouterr().err
    assert code == 2 and "none of --plans" in error and "whose family is diffusion-transformer" in error


@pytest.mark.parametrize(
    ("family", "plan"),
    [
        ("diffusion-transformer", "ddim-10"),
        ("diffusion-unet", "ddim-10"),
        ("streaming-transformer", "diagonal-1"),
        ("anchored-decoder", "anchored-2"),
        ("robomimic-bc-rnn", "robomimic-bc-rnn"),
    ],
)
def test_where_no_plan_is_named_one_is_played_that_suits_the_checkpoint(family, plan, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": "ontick-checkpoint-1", "family": family}))
    assert default_plan(str(tmp_path)) == plan and default_plan(None) == "ddim-10"
    assert parse_candidate(plan).runs(family)


def test_a_task_alone_is_enough_to_be_evaluated(tmp_path, monkeypatch):
    monkeypatch.setattr("ontick.commands.evaluate.TIMING_SECONDS", 0.01)
    path = tmp_path / "out.json"
    assert main(["evaluate", "--tasks", "ontick/Avoid-v0", "--episodes", "1", "--json", str(path)]) == 0
    assert [row["plan"] for row in json.loads(path.read_text())["rows"]] == ["ddim-10"]


def test_a_checkpoint_without_its_normaliser_is_refused(evaluate, tiny_checkpoint, tmp_path, capsys):
    save_checkpoint(tmp_path / "bare", load_checkpoint(tiny_checkpoint))
    (tmp_path / "bare" / "normaliser.safetensors").unlink()
    code, _ = evaluate(checkpoint=tmp_path / "bare")
    assert code == 2 and "normaliser" in capsys.readouterr().err


def test_without_a_renderer_the_report_says_why_it_has_no_video(evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr("ontick.commands.film.render_available", lambda: (False, "install libegl1"))
    code, _ = evaluate("--html", str(tmp_path / "page.html"), episodes="1")
    page = (tmp_path / "page.html").read_text()
    assert code == 0 and "No video: install libegl1." in page and "<video" not in page


@pytest.mark.slow
def test_a_film_that_fails_costs_the_video_and_not_the_report(evaluate, tmp_path, monkeypatch):
    def broken(frames):
        raise OSError("broken pipe")

    monkeypatch.setattr("ontick.commands.film.encode_mp4", broken)
    code, document = evaluate("--html", str(tmp_path / "page.html"), episodes="1")
    assert code == 0 and document["complete"]
    assert "ffmpeg failed (broken pipe)" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_a_killed_evaluation_leaves_no_worker_and_goes_on_when_repeated(tiny_checkpoint, tmp_path):
    """Killed as a scheduler kills: the parent gets no chance to end its workers."""
    path = tmp_path / "out.json"
    command = [sys.executable, "-m", "ontick", "evaluate", "--tasks", TASK, "--plans", "ddim-2,ddpm-100"]
    command += ["--checkpoint", str(tiny_checkpoint), "--episodes", "2", "--json", str(path)]
    running = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    running.kill()
    running.communicate(timeout=30)  # ends when the last process that holds the pipe has ended
    assert len(json.loads(path.read_text())["rows"]) == 1
    again = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0 and "going on after 1" in again.stdout
    assert [row["plan"] for row in json.loads(path.read_text())["rows"]] == ["ddim-2", "ddpm-100"]


def test_what_is_there_is_not_lost_to_a_derived_or_given_name(evaluate, tmp_path, capsys):
    (tmp_path / "out.trace.json").mkdir()
    code, _ = evaluate("--charge", "measured")
    assert code == 2 and "is a folder" in capsys.readouterr().err
    assert (tmp_path / "out.trace.json").is_dir()
    trace = tmp_path / "recorded.json"
    LatencyTrace({}, {"ddim-2": [1.0]}).save(trace)
    before = trace.read_text()
    code, _ = evaluate("--charge", str(trace), name="recorded.json")
    assert code == 2 and "one file" in capsys.readouterr().err and trace.read_text() == before


def test_a_disturbed_evaluation_says_so_everywhere_and_is_another_request(evaluate, tmp_path, monkeypatch, capsys):
    page, filmed = tmp_path / "page.html", []
    monkeypatch.setattr(
        "ontick.commands.evaluate.film_episode", lambda job, *_: (None, filmed.append(job.disturbance) or "no film")
    )
    _, plain = evaluate("--disturb", "push=0", episodes="1")
    assert plain["request"]["disturb"] is None and plain["rows"][0]["disturb"] is None
    plain["complete"] = False  # so that an equal request would be taken up
    (tmp_path / "out.json").write_text(json.dumps(plain))
    capsys.readouterr()
    code, document = evaluate("--disturb", "drop=1,push", "--html", str(page), episodes="1")
    assert code == 0 and document["request"]["disturb"] == document["rows"][0]["disturb"] == "push=0.03,drop=1.0"
    said = capsys.readouterr().out
    assert "going on after" not in said and "disturbed in every episode: push=0.03,drop=1.0" in said
    assert "push=0.03, drop=1.0" in page.read_text() and filmed == [Disturbance.parse("drop=1,push")]


def test_a_task_without_modes_reports_none(evaluate, capsys):
    _, document = evaluate(episodes="1")
    row = document["rows"][0]
    for key in ("modes", "mode_entropy", "mode_entropy_interval", "demonstrations_mode_entropy",
                "demonstrations_modes", "clearance_mm"):  # fmt: skip
        assert row[key] is None
    assert "mode nats" not in capsys.readouterr().out


def test_modes_and_clearance_are_summed_up_beside_the_demonstrations(tiny_checkpoint, tmp_path, capsys):
    """On episodes made up: two modes in three successes; a failure, cut off before its mode was decided."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.about["data"] = {"modes": [*"abcd"] * 3}
    save_checkpoint(tmp_path / "moded", checkpoint)
    entry = Entry(TASK, (Rung(parse_candidate("ddim-2"), tmp_path / "moded"),), "cpu")
    told = [("a", True, 0.010), ("b", True, 0.020), ("", False, -0.001), ("a", True, 0.014)]
    episodes = [Episode(i, 2 * i, ok, 9, 0.0, {}, mode, gap) for i, (mode, ok, gap) in enumerate(told)]
    summary = modes_told(episodes, entry)
    assert summary["modes"] == ["a", "b", "", "a"] and summary["demonstrations_modes"] == dict.fromkeys("abcd", 3)
    assert summary["mode_entropy"] == pytest.approx(-2 / 3 * math.log(2 / 3) - 1 / 3 * math.log(1 / 3))
    assert summary["demonstrations_mode_entropy"] == pytest.approx(math.log(4))
    gaps_mm = clearance_told(episodes)
    assert gaps_mm["median"] == pytest.approx(12.0) and -1.0 <= gaps_mm["p5"] < 1.0
    failed = modes_told(episodes[2:3], entry)
    assert failed["modes"] == [""] and failed["mode_entropy"] is None


def test_the_table_has_a_column_for_modes_where_a_row_has_them(evaluate, capsys):
    _, document = evaluate(episodes="1")
    capsys.readouterr()
    row = document["rows"][0]
    more = {"mode_entropy": 1.98, "demonstrations_mode_entropy": 2.05, "clearance_mm": {"median": 6.2, "p5": 1.0}}
    print_table([row, row | more], load_budget("cpu-20hz"))
    lines = capsys.readouterr().out.splitlines()
    assert "  mode nats  gap mm  refreshes" in lines[1] and max(map(len, lines)) <= 180
    assert "  1.98 of 2.05     6.2" in lines[4] and "             -       -" in lines[3]


def test_an_exact_plan_that_changes_actions_is_refused(evaluate, monkeypatch, capsys):
    attention = _Layer.self_attention
    monkeypatch.setattr(_Layer, "self_attention", lambda self, x, memory: 0.5 * attention(self, x, memory))
    code, _ = evaluate(episodes="1", plans="exact-ddim-4")
    error = capsys.readouterr().err
    assert code == 1 and "should change nothing, changes actions by up to" in error and "backend: eager" in error


def test_a_row_tells_refreshes_and_what_acceleration_changed(evaluate, capsys, tmp_path):
    page = tmp_path / "page.html"
    plans = "ddpm-6,exact-ddim-4,uniform-last-2-ddpm-6"
    _, document = evaluate("--html", str(page), episodes="1", plans=plans)
    dense, exact, cached = document["rows"]
    assert (dense["refreshes"], exact["refreshes"], cached["refreshes"]) == (6.0, 4.0, 3.0)
    assert (dense["action_error"], dense["action_rms"]) == (0.0, 0.0)
    assert 0 < exact["action_rms"] <= exact["action_error"] < 1e-4
    assert 1e-3 < cached["action_rms"] < cached["action_error"] <= 2
    out = capsys.readouterr().out
    assert "refreshes: how often a block" in out and "RMS and largest difference" in out
    assert "Refreshes a block" in page.read_text() and "Time against success" in page.read_text()


def test_a_baseline_has_neither(evaluate):
    _, document = evaluate(episodes="1", plans="ddim-2,robomimic-bc")
    assert [document["rows"][1][key] for key in ("refreshes", "action_error", "action_rms")] == [None] * 3


def test_a_plan_whose_schedule_is_not_there_is_told_before_anything_is_played(evaluate, tiny_checkpoint, capsys):
    code, document = evaluate(plans="ddim-2,bac-7")
    assert code == 2 and document is None
    assert f"make it with `ontick calibrate {tiny_checkpoint} --plan bac-7`" in capsys.readouterr().err


@pytest.mark.slow
def test_without_json_every_request_has_a_file_of_its_own(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["evaluate", "--tasks", TASK, "--checkpoint", str(tiny_checkpoint), "--episodes", "1", "--plans"]
    for plan in ("ddim-1", "ddim-2", "ddim-2"):
        assert main([*given, plan]) == 0
    plans = [json.loads(path.read_text())["rows"][0]["plan"] for path in (tmp_path / "runs").glob("evaluation-*.json")]
    assert sorted(plans) == ["ddim-1", "ddim-2"]
