"""The picture of estimated entry levels against success."""

import json

import pytest

from ontick.benchmarks.rti_entry import births_of, gathered, main
from ontick.errors import InputError


def played(task: str, plan: str, wins: int) -> dict:
    share = wins / 20
    return {
        "task": task,
        "plan": plan,
        "successes": wins,
        "episodes": 20,
        "success_low": max(0.0, share - 0.1),
        "success_high": min(1.0, share + 0.1),
    }


def estimated(task: str, rule: int | None = 5) -> dict:
    factors = [{"K": K, "median": 1.1 - 0.04 * K, "p90": 1.2, "max": 1.4, "contractive": 0.5} for K in (1, 2, 10)]
    return {
        "format": "ontick-entry-1",
        "task": task,
        "deviation": {"rms": 0.1, "median": 0.03, "per_pair": [0.1, 0.03]},
        "entry": {"rule": rule, "median": 2, "c": 1.0, "guard": 0},
        "contraction": {"iterations": 8, "rows": factors},
        "narrowing": {"rows": [{"K": 1, "guess": 0.4, "noised": 0.8}]},
    }


TASKS = ("avoid", "pick", "peg")
ROWS = [
    *(played(task, f"rti-{K}{end}", K) for task in TASKS for K in (10, 2) for end in ("", "-renoise")),
    *(played(task, plan, 18) for task in TASKS for plan in ("ddpm-100", "ddim-10", "rti-2-every-2")),
]


def test_the_plans_of_a_task_are_told_apart_by_birth():
    births = births_of([row for row in ROWS if row["task"] == "avoid"])
    assert {birth: [point["K"] for point in points] for birth, points in births.items()} == {
        "guess": [2, 10],
        "noised": [2, 10],
    }
    first = births["guess"][0]
    assert first["success"] == 0.1 and first["low"] == 0.0 and first["high"] == pytest.approx(0.2)


def test_it_draws_one_picture_and_writes_what_is_drawn(tmp_path):
    files = []
    for task in TASKS:
        files.append(tmp_path / f"{task}.json")
        files[-1].write_text(json.dumps(estimated(task, None if task == "peg" else 5)))
    evaluation = tmp_path / "evaluation.json"
    evaluation.write_text(json.dumps({"rows": ROWS}))
    main(["--entries", *map(str, files), "--evaluations", str(evaluation), "--out", str(tmp_path / "out")])
    told = json.loads((tmp_path / "out" / "rti-entry.json").read_text())["tasks"]
    assert list(told) == list(TASKS) and told["avoid"]["entry"]["rule"] == 5
    assert told["avoid"]["reference"] == {"plan": "ddim-10", "success": 0.9}
    assert (tmp_path / "out" / "rti-entry.png").read_bytes().startswith(b"\x89PNG")


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(InputError, match="no row rti-K was evaluated for task lift"):
        gathered([estimated("lift")], ROWS)
    with pytest.raises(InputError, match="two entry files are of task avoid"):
        gathered([estimated("avoid"), estimated("avoid")], ROWS)
    with pytest.raises(InputError, match="wanted 'ontick-entry-1'"):
        gathered([{**estimated("avoid"), "format": "ontick-schedule"}], ROWS)
