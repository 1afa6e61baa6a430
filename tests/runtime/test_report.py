import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import describe_machine, load_budget, wilson_interval, write_report
from ontick.runtime.charts import log_range, log_ticks
from ontick.runtime.report import render_report

NASTY = "<script>alert('\"&')</script>"


def row(plan: str, seed: int, n: int = 60, met: bool | None = True, task: str = "pick-place") -> dict:
    rng = np.random.default_rng(seed)
    outcomes = [bool(draw < 0.8) for draw in rng.random(n)]
    low, high = wilson_interval(sum(outcomes), n)
    latency_ms = rng.gamma(9.0, 3.0, 100).tolist()
    return {
        "task": task,
        "plan": plan,
        "episodes": n,
        "successes": sum(outcomes),
        "success_low": low,
        "success_high": high,
        "outcomes": outcomes,
        "seeds": list(range(n)),
        "calls_per_action": 1.25,
        "chunk_ms": {"p50": 27.0, "p99": 60.0, "max": max(latency_ms), "n": 100},
        "latency_ms": latency_ms,
        "deadline_ms": 40.0,
        "misses": 3,
        "starved": 1,
        "jerk": 0.01,
        "met": met,
    }


def document(*rows: dict) -> dict:
    return {"machine": describe_machine(), "budget": load_budget("cpu-20hz").to_dict(), "rows": list(rows)}


class Tags(HTMLParser):
    """Checks that tags are closed in the order they were opened."""

    VOID = ("meta", "link", "br")

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)


def test_the_page_needs_nothing_from_outside():
    page = render_report(document(row("a", 0), row("b", 1, met=False)), video=b"\0\1mp4", note="a note")
    assert "http" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"<script|@import|url\(|<iframe", page)
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_every_text_is_escaped():
    data = document(row(NASTY, 0, task=NASTY), row("b" + NASTY, 1, task=NASTY))
    data["machine"]["cpu"] = data["machine"][NASTY] = data["budget"]["name"] = NASTY
    page = render_report(data, note=NASTY)
    assert "<script" not in page and "&lt;script&gt;" in page
    Tags().feed(page)


def test_the_page_is_well_formed_and_shows_what_was_asked():
    page, tags = render_report(document(row("a", 0), row("b", 1, met=False)), video=b"mp4"), Tags()
    tags.feed(page)
    assert tags.open == [] and "video" in tags.seen
    for text in ("met</span>", "missed</span>", "deadline 40 ms", "seed 59, b:", "seeds 50 to 59", "too few episodes"):
        assert text in page


def test_plans_on_other_seeds_are_not_compared():
    other = row("b", 1) | {"seeds": list(range(100, 160))}
    assert "The same seeds, compared" not in render_report(document(row("a", 0), other))
    assert "The same seeds, compared" in render_report(document(row("a", 0), row("b", 1)))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("a", 0, met=None) | {"latency_ms": [], "chunk_ms": {}, "deadline_ms": None}],
        [row("a", 0) | {"latency_ms": [5.0]}],
        [row("a", 0, n=1), row("a", 0, n=1, task="door")],
    ],
)
def test_a_page_is_made_of_whatever_was_measured(rows):
    Tags().feed(render_report(document(*rows)))


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    path = write_report(tmp_path / "runs" / "report.html", document(row("a", 0)))
    before = path.read_text(encoding="utf-8")
    assert before.endswith("</html>\n")
    broken = row("a", 0)
    del broken["jerk"]
    with pytest.raises(InputError, match="jerk"):
        write_report(path, document(broken))
    assert path.read_text(encoding="utf-8") == before
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_a_machine_is_described_without_its_name_or_paths():
    import socket

    machine = describe_machine()
    assert {"cpu", "cores", "memory_gib", "os", "python", "torch", "threads", "gpu"} == set(machine)
    assert socket.gethostname() not in machine.values() and "/" not in str(machine["os"])


def test_a_log_axis_holds_its_values_and_labels_at_least_two_ticks():
    for values in ([5.0], [0.2, 900.0], [9.9, 10.1], [1e-3, 1e4]):
        low, high = log_range(values)
        assert low < min(values) <= max(values) < high
        assert 2 <= len(log_ticks(low, high)) <= 10


def with_modes(base: dict, modes: str = "abcd") -> dict:
    taken = [modes[i % len(modes)] for i in range(base["episodes"])]
    return base | {
        "modes": taken,
        "mode_entropy": 1.386,
        "mode_entropy_interval": [1.2, 1.386],
        "demonstrations_mode_entropy": 1.609,
        "demonstrations_modes": dict.fromkeys("abcde", 20),
        "clearance_mm": {"median": 12.34, "p5": 3.21},
        "disturb": "push=0.03,delay=2",
    }


def test_modes_clearance_and_disturbance_are_shown_where_a_row_has_them():
    plain = render_report(document(row("a", 0), row("b", 1)))
    for word in ("Mode entropy", "Median gap", "Modes of", "Disturbed"):
        assert word not in plain
    data = document(with_modes(row("a", 0), "ab"), row("b", 1, task="door"), with_modes(row("c", 2)))
    page, tags = render_report(data), Tags()
    tags.feed(page)
    assert tags.open == []
    assert "Disturbed in every episode: <b>push=0.03, delay=2</b>" in page
    assert '1.39 <span class="soft small">of 1.61</span>' in page and "12.3</td>" in page
    assert "2 of 5 modes in" in page and "4 of 5 modes in" in page
    assert "e, plan: 0.0%" in page and "e, demonstrations: 20.0%" in page
    assert page.count("<td>–</td>") >= 2, "the row without modes"


def test_a_plan_that_never_succeeded_is_drawn_beside_the_others():
    never = with_modes(row("never", 0, n=4)) | {"outcomes": [False] * 4, "successes": 0}
    page = render_report(document(with_modes(row("a", 2)), never))
    assert "0 of 5 modes in 0 successes" in page


def test_modes_are_drawn_of_successful_episodes_and_without_demonstrations_too():
    only = with_modes(row("a", 0, n=4)) | {"outcomes": [True, False, True, True], "successes": 3}
    only |= {"demonstrations_modes": None, "demonstrations_mode_entropy": None}
    page = render_report(document(only))
    assert "3 of 3 modes in 3 successes" in page and "b, plan" not in page and ", demonstrations:" not in page
    failed = only | {"outcomes": [False] * 4, "successes": 0, "mode_entropy": None, "mode_entropy_interval": None}
    page = render_report(document(failed))
    assert "Modes of" not in page and "Mode entropy" not in page


def test_mode_names_and_disturbances_are_escaped():
    nasty = with_modes(row("a", 0)) | {"modes": [NASTY] * 60, "demonstrations_modes": {NASTY: 3}, "disturb": NASTY}
    page = render_report(document(nasty))
    assert "<script" not in page
    Tags().feed(page)


def test_plans_are_drawn_by_time_where_there_are_enough_of_them():
    rows = [row("slow", 0), row("fast", 1), row("middle", 2)]
    for each, p50 in zip(rows, (200.0, 2.0, 20.0), strict=True):
        each["chunk_ms"] = {"p50": p50, "p99": 1.5 * p50, "max": 2 * p50, "n": 100}
    page = render_report(document(*rows))
    drawn = page[page.index("Time against success") : page.index("Success by seed")]
    assert drawn.index(">fast<") < drawn.index(">middle<") < drawn.index(">slow<")
    assert drawn.count("<circle") == 3
    assert "Time against success" not in render_report(document(*rows[:2]))


def test_refreshes_and_action_errors_are_columns_where_a_row_has_them():
    cached = {**row("cached", 0), "refreshes": 15.1, "action_error": 0.5, "action_rms": 0.031}
    page = render_report(document(cached, row("bc", 1)))
    assert "<td>15.1</td>" in page and "0.031" in page and "at most 0.5" in page
    assert "Refreshes a block" not in render_report(document(row("bc", 1)))
