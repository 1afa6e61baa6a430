"""The table and the picture of success under delay."""

import pytest

from ontick.benchmarks.delays import COLOURS, SYNC, draw, table


def row(plan, delay, rule, wins, task="t/a"):
    return {"task": task, "plan": plan, "delay_ticks": delay, "rule": rule, "episodes": 20, "successes": wins,
            "outcomes": [i < wins for i in range(20)]}  # fmt: skip


ROWS = [
    *(row("ddim-10", 0, rule, 20) for rule in (SYNC, "replace")),
    *(row("ddim-10", 4, rule, wins) for rule, wins in zip(COLOURS, (10, 4, 6, 17), strict=True)),
    *(row("diagonal-1", delay, rule, 20 - delay) for delay in (0, 4) for rule in (SYNC, "replace")),
]


def test_the_best_rule_is_told_beside_what_is_lost_one_after_another():
    lines = table(ROWS, "t/a", [0, 4]).splitlines()
    assert lines[3].startswith("| ddim-10 | 4 | 10 | 4 | 6 | 17 | 3 of 10 | +35.0 (")
    assert lines[5].startswith("| diagonal-1 | 4 | 16 | 16 |  |  | 4 of 4 | +0.0 (")
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_it_is_drawn_with_a_panel_a_plan_and_task(tmp_path):
    draw([*ROWS, *(row("ddim-10", delay, SYNC, 5, "t/b") for delay in (0, 4))], tmp_path / "d.png")
    assert (tmp_path / "d.png").stat().st_size > 10_000
