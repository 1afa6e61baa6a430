"""`ontick calibrate --plan rti`: the pairs that it looks at, what it writes and draws, and what it refuses."""

import json
import shutil

import pytest
import torch

from ontick.accel.entry_level import choose, level_sigmas
from ontick.commands import entry, main
from ontick.commands.entry import demonstrated_pairs, played_pairs
from ontick.envs import demonstration_seeds
from ontick.errors import InputError
from ontick.policy import load_checkpoint


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path, monkeypatch):
    """A copy of the tiny checkpoint, of which little is looked at."""
    for name, value in {"LEVELS": (1, 2), "SEEDS": 3, "TICKS": 2, "FULL": "ddpm-5"}.items():
        monkeypatch.setattr(entry, name, value)
    folder = tmp_path / "policy"
    shutil.copytree(tiny_checkpoint, folder)
    return folder


@pytest.fixture
def data(random_demonstrations):
    """3 episodes of 12, 2 and 22 steps."""
    return random_demonstrations([12, 14, 36])


def run(checkpoint, data, plan="rti", *more):
    return main(["calibrate", str(checkpoint), "--plan", plan, "--data", str(data), "--samples", "4", *more])


def test_it_writes_what_it_measured_beside_the_checkpoint_and_draws_it(checkpoint, data, capsys):
    assert run(checkpoint, data, "rti-3") == 0
    told = json.loads((checkpoint / "entry" / "rti.json").read_text())
    assert told["format"] == "ontick-entry-1" and told["task"] == "metaworld/pick-place-v3" and told["samples"] == 4
    sigma, deviation = torch.tensor(told["sigma"]), torch.tensor(told["deviation"]["per_pair"])
    chosen = choose(sigma, deviation)
    assert told["deviation"]["rms"] == pytest.approx(chosen.rms) and len(deviation) == 4
    assert told["entry"] == {"rule": chosen.by_rms, "median": chosen.by_median, "c": 1.0, "guard": 0}
    rows = told["contraction"]["rows"]
    assert [row["K"] for row in rows] == [1, 2, 3]
    assert all(0 < row["median"] <= row["p90"] <= row["max"] and 0 <= row["contractive"] <= 1 for row in rows)
    narrow = told["narrowing"]
    assert [row["K"] for row in narrow["rows"]] == [1, 2, 3] and 0 <= narrow["pair"] < 4
    assert all(row["guess"] > 0 and row["noised"] > 0 for row in narrow["rows"])
    assert (checkpoint / "entry" / "rti.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert f"{chosen.rms:.4f}" in out and "factor median" in out


def test_the_same_command_again_writes_the_same(checkpoint, data, tmp_path):
    texts = []
    for name in ("a.json", "b.json"):
        assert run(checkpoint, data, "rti", "--out", str(tmp_path / name)) == 0
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1] and not (checkpoint / "entry").exists()


def test_pairs_are_consecutive_ticks_of_demonstrations(checkpoint, data):
    policy = load_checkpoint(checkpoint)
    pairs = demonstrated_pairs(policy, 30, data)  # 10 of the first episode, none of the second, 20 of the third
    assert pairs.before.shape == pairs.after.shape == (30, 2, 39)
    assert torch.equal(pairs.before[:, 1:], pairs.after[:, :-1])
    assert not torch.equal(pairs.before, pairs.after)
    with pytest.raises(InputError, match="has 30 pairs of windows, wanted 31"):
        demonstrated_pairs(policy, 31, data)


def test_pairs_are_of_episodes_on_seeds_of_no_evaluation(checkpoint, monkeypatch):
    seeds = []
    monkeypatch.setattr(
        entry, "demonstration_seeds", lambda base, n: seeds.extend(demonstration_seeds(base, n)) or seeds
    )
    policy = load_checkpoint(checkpoint)
    pairs = played_pairs(policy, 5, 0)
    assert pairs.before.shape == (5, 2, 39) and torch.equal(pairs.before[:, 1:], pairs.after[:, :-1])
    assert torch.equal(pairs.before[0, 0], pairs.before[0, 1]), "an episode's first window repeats its observation"
    assert len(seeds) == 5 and all(seed % 2 for seed in seeds)
    assert len({tuple(window.flatten().tolist()) for window in pairs.after}) == 5


def test_a_gripper_that_is_not_scaled_adds_levels(checkpoint):
    from dataclasses import replace

    from ontick.accel.entry_level import Deviation

    policy = replace(load_checkpoint(checkpoint), about={"discrete_dims": [3]})
    chosen = choose(level_sigmas(policy.network.schedule), torch.tensor([0.05, 0.05]))
    told = {}
    for limit in (0.1, 1.0):
        answers = torch.zeros(2, 8, 4)
        answers[..., 3] = limit
        told[limit] = entry.entry_told(policy, Deviation(answers, answers, torch.zeros(2)), chosen)
    assert told[0.1]["rule"] == told[0.1]["median"] == 3 and told[0.1]["guard"] == 0
    assert told[1.0]["rule"] == told[1.0]["median"] == 5 and told[1.0]["guard"] == 2
    nothing = choose(level_sigmas(policy.network.schedule), torch.tensor([1.5]))
    assert entry.entry_told(policy, Deviation(answers, answers, torch.zeros(2)), nothing)["rule"] is None


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--plan", "rti-0"], "wanted rti, or rti-K"),
        (["--plan", "rti-2-renoise"], "wanted rti, or rti-K"),
        (["--plan", "rti-101"], "trained with 100 levels"),
        (["--plan", "rti", "--samples", "0"], "--samples is 0, wanted at least 1"),
        (["--plan", "rti", "--out", "x.yaml"], "wanted the name of a .json file"),
        (["--plan", "rti", "--data", "none.zarr"], "got no demonstrations at none.zarr"),
    ],
)
def test_bad_input_is_told_in_one_line(checkpoint, given, complaint, capsys):
    assert main(["calibrate", str(checkpoint), *given]) == 2
    told = capsys.readouterr().err
    assert complaint in told and told.count("\n") == 1
