"""`ontick calibrate --plan draft-K`: what it writes, what it refuses, and that the plan then runs."""

import json
import shutil

import numpy as np
import pytest

from ontick.commands import main
from ontick.commands.drafts import split_windows
from ontick.envs.dataset import read_demonstrations, write_demonstrations
from ontick.envs.demonstrations import Demonstrations
from ontick.policy import load_checkpoint
from ontick.policy.drafts import FILE, Drafts


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """The regression is trained for 10 steps."""
    monkeypatch.setitem(Drafts.fit.__kwdefaults__, "steps", 10)


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    folder = tmp_path / "policy"
    shutil.copytree(tiny_checkpoint, folder)
    return folder


def demonstrations(tmp_path, episodes=3, actions=4):
    """Random numbers, 12 steps an episode."""
    rng, n = np.random.default_rng(0), episodes * 12
    numbers = (rng.uniform(-1, 1, (n, dim)).astype(np.float32) for dim in (39, actions))
    path = tmp_path / f"data-{episodes}-{actions}.zarr"
    write_demonstrations(path, Demonstrations(*numbers, np.arange(12, n + 1, 12)))
    return path


def calibrate(checkpoint, data, *more, plan="draft-3"):
    return main(["calibrate", str(checkpoint), "--plan", plan, *(["--data", str(data)] if data else []), *more])


def test_it_writes_the_drafts_beside_the_weights_and_tells_their_error(checkpoint, tmp_path, capsys):
    assert calibrate(checkpoint, demonstrations(tmp_path)) == 0
    drafts = Drafts.load(checkpoint)
    drafts.check(load_checkpoint(checkpoint))
    assert len(drafts.chunks) == drafts.about["windows"] == 2 * (12 - 8 + 1 + 1 + 3)
    rms = drafts.about["held_out"]["action_rms"]
    out = capsys.readouterr().out
    assert f"nearest {rms['nearest']:.4f}, regression {rms['regression']:.4f}" in out
    assert f"drafts: {checkpoint / FILE}" in out


def test_the_same_command_again_gives_the_same_file(checkpoint, tmp_path):
    data, bits = demonstrations(tmp_path), []
    for seed in ("0", "0", "1"):
        assert calibrate(checkpoint, data, "--seed", seed, "--samples", "4", plan="draft-regression-2") == 0
        bits.append((checkpoint / FILE).read_bytes())
    assert bits[0] == bits[1] != bits[2]
    assert len(Drafts.load(checkpoint).chunks) == 4


def test_it_writes_where_it_is_told(checkpoint, tmp_path):
    out = tmp_path / "there" / "mine.safetensors"
    assert calibrate(checkpoint, demonstrations(tmp_path), "--out", str(out)) == 0
    assert out.is_file() and not (checkpoint / FILE).exists()


def test_windows_that_are_held_out_are_of_other_episodes(checkpoint, tmp_path):
    data = read_demonstrations(demonstrations(tmp_path, episodes=20))
    seen, held_out = split_windows(load_checkpoint(checkpoint), data)
    episodes = [set((windows.frame // 12).flatten().tolist()) for windows in (seen, held_out)]
    assert episodes[0].isdisjoint(episodes[1]) and episodes[0] | episodes[1] == set(range(20))
    assert len(episodes[1]) == 2


def test_an_evaluation_runs_both_drafts_once_they_are_there(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ontick.commands.evaluate.TIMING_SECONDS", 0.01)
    out = tmp_path / "e.json"
    wanted = ["--tasks", "metaworld/pick-place-v3", "--plans", "draft-2,draft-regression-2", "--episodes", "1"]
    evaluate = ["evaluate", "--checkpoint", str(checkpoint), *wanted, "--json", str(out)]
    assert main(evaluate) == 2
    assert "make them with `ontick calibrate CHECKPOINT --plan draft-3 --data DEMOS`" in capsys.readouterr().err
    assert calibrate(checkpoint, demonstrations(tmp_path)) == 0
    assert main(evaluate) == 0
    assert [row["plan"] for row in json.loads(out.read_text())["rows"]] == ["draft-2", "draft-regression-2"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"data": None}, "give --data FILE"),
        ({"plan": "draft-x"}, "unknown plan 'draft-x'"),
        ({"more": ["--samples", "0"]}, "--samples is 0, wanted 1 to 2048"),
        ({"more": ["--affine", "--united", "2"]}, "has no --united, --affine, which is of cache schedules"),
        ({"more": ["--out", "x.json"]}, "wanted the name of a .safetensors file"),
        ({"episodes": 1}, "has 1 episode, wanted 2 or more"),
        ({"actions": 3}, "numbers, the checkpoint takes (39, 4)"),
    ],
)
def test_bad_input_is_told_in_one_line(checkpoint, tmp_path, given, complaint, capsys):
    data = demonstrations(tmp_path, given.get("episodes", 3), given.get("actions", 4))
    plan = given.get("plan", "draft-3")
    assert calibrate(checkpoint, given.get("data", data), *given.get("more", []), plan=plan) == 2
    told = capsys.readouterr().err
    assert complaint in told and told.count("\n") == 1
    assert not (checkpoint / FILE).exists()
