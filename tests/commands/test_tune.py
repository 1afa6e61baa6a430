"""`ontick tune`: what is searched, how it is judged, and what is chosen."""

import argparse
import json
import os

import numpy as np
import pytest

from ontick.commands import main, tune
from ontick.commands.candidates import candidates
from ontick.commands.families import ASSETS
from ontick.commands.plan_quality import energy_distance
from ontick.commands.tune import choose, front, merit
from ontick.diffusion import load_plan
from ontick.runtime import load_budget

AVOID = ASSETS / "diffusion-transformer" / "ontick-Avoid-v0"
BUDGET = load_budget("cpu-20hz")


def row(plan, p99_ms, error, fits=True, **more):
    return {"plan": plan, "p99_ms": p99_ms, "error": error, "apart": error > 0.05, "fits": fits, **more}


def played(plan, p99_ms, error, wins, low, n=200):
    return row(plan, p99_ms, error, successes=wins, episodes=n, against_dense=(low + 0.02, low, low + 0.04))


def test_grid_solver_birth_cache_backend_and_precision_are_searched():
    plans = {plan.name: plan for plan in candidates(AVOID)}
    assert next(iter(plans)) == "exact-ddpm-100", "what the others are compared with"
    assert {plan.solver for plan in plans.values()} >= {"ddpm", "ddim", "dpmpp"}
    assert {plan.guess.source for plan in plans.values()} >= {"given", "previous", "nearest"}
    assert {plan.precision for plan in plans.values()} >= {"fp32", "bf16", "int8"}
    assert {plan.backend for plan in plans.values()} == {"eager", "best"}
    assert any("cache" in plan.accelerators for plan in plans.values())


@pytest.mark.parametrize("family", ["anchored-decoder", "streaming-transformer"])
def test_other_families_have_plans_of_their_own(family):
    names = [plan.name for plan in candidates(ASSETS / family / "ontick-Avoid-v0")]
    assert names and all(family.split("-")[0][:4] in name or "diagonal" in name for name in names)


def test_answers_of_one_distribution_have_no_distance_and_others_have():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(400, 8, 4, 2)) * 0.1 for _ in range(2))
    same, moved = energy_distance(a, b), energy_distance(a + 0.3, b)
    assert same.error <= same.resolution < 0.05 and moved.error > 0.3 > moved.resolution
    assert energy_distance(a * 0.2, b).error > 0.1, "narrowed answers are another distribution"
    assert energy_distance(a[:, :, :1], b).error < 0.05, "the rows that both have are compared"


def test_on_the_front_nothing_is_both_slower_and_farther():
    rows = [row("a", 1, 0.5), row("b", 2, 0.6), row("c", 3, 0.2), row("d", 3, 0.3), row("e", 9, 0.1)]
    assert [r["plan"] for r in front(rows)] == ["a", "c", "e"]


def test_the_nearest_of_those_as_good_as_dense_is_chosen():
    rows = [played("fast", 2, 0.3, 199, -0.01), played("near", 20, 0.1, 198, -0.02), row("slow", 90, 0.0, fits=False)]
    chosen, why = choose(rows, BUDGET)
    assert chosen == "near" and "as good as dense" in why and "20.0 ms" in why


def test_of_plans_that_cannot_be_told_from_the_dense_sampler_the_fastest_is_chosen():
    rows = [
        played("dense", 30, 0.0, 199, -0.01),
        played("quick", 3, 0.02, 198, -0.02),
        played("far", 1, 0.3, 199, -0.01),
    ]
    chosen, why = choose(rows, BUDGET)
    assert chosen == "quick" and "cannot be told" in why


def test_a_plan_that_loses_success_is_not_chosen_for_being_near():
    rows = [played("good", 2, 0.3, 199, -0.01), played("near", 20, 0.1, 150, -0.30)]
    assert choose(rows, BUDGET)[0] == "good"
    chosen, why = choose([played("bad", 2, 0.3, 120, -0.4), played("worse", 2, 0.1, 100, -0.5)], BUDGET)
    assert chosen == "bad" and "none is shown" in why


def test_where_nothing_fits_the_fastest_is_named():
    chosen, why = choose([row("a", 90, 0.1, fits=False), row("b", 60, 0.2, fits=False)], BUDGET)
    assert chosen is None and "b, takes 60.0 ms" in why and "40 ms" in why


def test_a_plan_that_gives_no_numbers_comes_last():
    rows = [row("nan", 1, float("nan")), row("far", 9, 0.9)]
    rows[0]["apart"] = True
    assert [r["plan"] for r in sorted(rows, key=merit)] == ["far", "nan"]


@pytest.fixture
def confirmed(monkeypatch):
    """confirmed(rows, wins by plan, plays that there is time for) -> what is played in order, and the document."""

    def run(rows, wins, plays=99):
        played = []

        def play(row, *_):
            played.append(row["plan"])
            row["outcomes"] = [i < wins[row["plan"]] for i in range(200)]
            row["successes"], row["episodes"] = wins[row["plan"]], 200

        monkeypatch.setattr(tune, "_play", play)
        document = {"rows": rows, "task": "t"}
        options = argparse.Namespace(json=os.devnull)
        plans = {r["plan"]: None for r in rows}
        monkeypatch.setattr(tune, "write_whole", lambda *_: None)
        tune._confirm(document, options, plans, lambda: len(played) < plays)
        return played, document

    return run


def test_plans_are_played_until_one_is_as_good_as_dense(confirmed):
    rows = [row("dense", 30, 0.0), row("a", 2, 0.0), row("b", 3, 0.02), row("c", 4, 0.0), row("far", 1, 0.4)]
    wins = {"dense": 199, "a": 150, "b": 198, "c": 200, "far": 200}
    played, document = confirmed(rows, wins)
    assert played == ["dense", "a", "b"] and document["unplayed"] == 0
    assert choose(rows, BUDGET)[0] == "b" and "but for 1 that were played" in choose(rows, BUDGET)[1]


def test_where_all_that_are_faster_lose_the_dense_plan_ends_it(confirmed):
    rows = [row("dense", 30, 0.0), row("a", 2, 0.0), row("slow", 35, 0.0), row("far", 1, 0.4)]
    played, document = confirmed(rows, {"dense": 199, "a": 150, "slow": 199, "far": 200})
    assert played == ["dense", "a"] and document["unplayed"] == 0 and choose(rows, BUDGET)[0] == "dense"


def test_a_dense_plan_that_does_not_fit_is_played_and_never_chosen(confirmed):
    rows = [row("dense", 90, 0.0, fits=False), row("a", 2, 0.0), row("far", 1, 0.4)]
    played, _ = confirmed(rows, {"dense": 199, "a": 150, "far": 200})
    assert played == ["dense", "a", "far"] and choose(rows, BUDGET)[0] == "far"


def test_when_the_time_is_over_the_rest_is_counted(confirmed):
    rows = [row("dense", 30, 0.0), row("a", 2, 0.0), row("b", 3, 0.0), row("c", 4, 0.0)]
    played, document = confirmed(rows, {"dense": 199, "a": 150, "b": 150, "c": 199}, plays=2)
    assert played == ["dense", "a"] and document["unplayed"] == 2
    again, document = confirmed(rows, {"dense": 199, "a": 150, "b": 150, "c": 199})
    assert again == ["b", "c"] and document["unplayed"] == 0


@pytest.fixture
def tuned(tmp_path):
    """tuned(*options) -> (exit code, the document, where the plan would be)."""

    def run(*options, out=tmp_path / "plan.yaml"):
        where = ["--out", str(out), "--json", str(tmp_path / "t.json")]
        small = ["--plans", "ddim-4,ddim-2", "--episodes", "2", "--seconds", "1"]
        code = main(["tune", str(AVOID), *small, *where, *options])
        return code, json.loads((tmp_path / "t.json").read_text()), out

    return run


def test_the_chosen_plan_is_written_and_can_be_evaluated(tuned):
    code, document, out = tuned("--period-ms", "1000", "--deadline-ms", "900")
    assert code == 0 and document["chosen"] in ("ddim-4", "ddim-2")
    assert load_plan(str(out)).name == document["chosen"]
    assert document["front"] and (out.parent / "t.png").is_file()
    for measured in document["rows"]:
        assert {"p50_ms", "p99_ms", "error", "chance", "apart", "fits"} <= set(measured)
    played = [row["plan"] for row in document["rows"] if "successes" in row]
    assert "ddim-4" in played and document["chosen"] in played, "the first plan and the best, whatever the seconds"


@pytest.mark.parametrize(
    ("family", "plans"),
    [
        ("anchored-decoder", "exact-anchored-2,exact-anchored-1"),
        ("streaming-transformer", "exact-diagonal-1,exact-diagonal-4"),
    ],
)
@pytest.mark.slow
def test_other_families_are_tuned_too(family, plans, tmp_path):
    where = ["--out", str(tmp_path / "p.yaml"), "--json", str(tmp_path / "t.json")]
    small = ["--plans", plans, "--episodes", "2", "--seconds", "1", "--period-ms", "1000"]
    assert main(["tune", str(ASSETS / family / "ontick-Avoid-v0"), *small, *where]) == 0
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert [row["plan"] for row in rows] == plans.split(",") and rows[0]["error"] < rows[1]["error"]


def test_a_plan_of_another_family_is_told(tmp_path, capsys):
    where = ["--out", str(tmp_path / "p.yaml"), "--json", str(tmp_path / "t.json")]
    assert main(["tune", str(AVOID), "--plans", "anchored-2", "--period-ms", "50", *where]) == 2
    assert "anchored-2, which the others are compared with" in capsys.readouterr().err


def test_without_json_what_was_measured_lies_beside_the_plan(tmp_path):
    out = tmp_path / "plan.yaml"
    small = ["--plans", "ddim-2", "--episodes", "1", "--seconds", "1", "--budget", "cpu-20hz"]
    main(["tune", str(AVOID), *small, "--out", str(out)])
    assert json.loads((tmp_path / "plan.json").read_text())["complete"]


def test_where_nothing_fits_it_says_so_and_keeps_what_was_measured(tuned, capsys):
    code, document, out = tuned("--period-ms", "10", "--deadline-ms", "0.01")
    assert code == 1 and document["chosen"] is None and not out.exists()
    assert "no plan fits" in capsys.readouterr().err


def test_an_interrupted_search_goes_on(tuned, tmp_path, capsys):
    _, document, _out = tuned("--period-ms", "1000", "--deadline-ms", "900")
    document["complete"] = False
    document["rows"][0]["p50_ms"] = 123.0
    for row in document["rows"]:
        row.pop("outcomes", None)
    (tmp_path / "t.json").write_text(json.dumps(document))
    code, again, _ = tuned("--period-ms", "1000", "--deadline-ms", "900")
    assert code == 0 and again["rows"][0]["p50_ms"] == 123.0 and "going on after 2 plans" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "--period-ms"),
        (["--period-ms", "50", "--seconds", "0"], "--seconds"),
        (["--period-ms", "50", "--plans", "nonsense-3"], "nonsense-3"),
        (["--period-ms", "50", "--out", "plan.json"], ".yaml"),
        (["--period-ms", "50", "--out", "p.yaml", "--json", "p.yaml"], "one file"),
    ],
)
def test_bad_input_is_told_in_one_line(options, told, tmp_path, capsys):
    where = ["--out", str(tmp_path / "p.yaml"), "--json", str(tmp_path / "t.json")]
    assert main(["tune", str(AVOID), *where, *options]) == 2
    assert told in capsys.readouterr().err
