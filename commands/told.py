"""What is told of a row's episodes beside successes and counts, and of what the policies were trained in."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..envs import find_task
from ..envs.demonstrations import recorded_versions
from ..envs.episodes import Episode
from ..policy import read_config
from ..runtime.statistics import mode_entropy, mode_entropy_interval
from .request import Entry


def rungs_told(episodes: Sequence[Episode], entry: Entry) -> dict[str, int]:
    """Ticks by the plan whose answer was played; "rest": by none, the rest of the one before or a held action."""
    total = sum((Counter(e.rungs) for e in episodes), Counter())
    names = [rung.name for rung in entry.rungs]
    if len(names) == 1:
        answers = sum(e.counts["answers"] for e in episodes)
        total = Counter({names[0]: answers, "rest": sum(e.steps for e in episodes) - answers})
    return {name: total[name] for name in (*names, "rest")}


def modes_told(episodes: Sequence[Episode], entry: Entry) -> dict[str, Any]:
    """Which modes were taken, beside those of the demonstrations; None for what the task or checkpoint does not tell.

    Entropies [nats] are over successful episodes: a failed one may have ended before its mode was decided.
    """
    told = any(e.mode is not None for e in episodes)
    taken = [e.mode for e in episodes if e.success and e.mode is not None]
    shown = entry.demonstrated_modes
    return {
        "modes": [e.mode for e in episodes] if told else None,
        "mode_entropy": mode_entropy(taken) if taken else None,
        "mode_entropy_interval": mode_entropy_interval(taken) if taken else None,
        "demonstrations_mode_entropy": mode_entropy(shown) if shown else None,
        "demonstrations_modes": dict(sorted(Counter(shown).items())) or None,
    }


def other_versions_told(entries: Sequence[Entry]) -> list[str]:
    """A line for each checkpoint whose demonstrations were recorded in another version of the task's simulator."""
    lines = {}
    for entry in entries:
        here = find_task(entry.task).version
        for rung in entry.rungs:
            recorded = _recorded_in(read_config(rung.checkpoint).get("about", {}))
            for package, version in recorded.items():
                if here.get(package, version) != version:
                    lines[rung.checkpoint, package] = (
                        f"{rung.checkpoint} was trained in {package} {version}, here is {here[package]}: the same "
                        "actions may go elsewhere"
                    )
    return list(lines.values())


def _recorded_in(about: dict[str, Any]) -> dict[str, str]:
    """By training here, from its data; by robomimic's algorithms here; by the library that it was converted from."""
    data, source = about.get("data"), about.get("source") or {}
    told = recorded_versions(data) if isinstance(data, dict) else about.get("versions")
    return told or source.get("versions") or {}


def coverage_told(episodes: Sequence[Episode]) -> float | None:
    """The mean over episodes of the largest share of the goal that was covered."""
    covered = [e.max_coverage for e in episodes if e.max_coverage is not None]
    return float(np.mean(covered)) if covered else None


def clearance_told(episodes: Sequence[Episode]) -> dict[str, float] | None:
    """Median and 5th percentile over episodes, failed ones included, of the least gap to an obstacle."""
    gaps_mm = [e.clearance_m * 1e3 for e in episodes if e.clearance_m is not None]
    return {"median": float(np.median(gaps_mm)), "p5": float(np.percentile(gaps_mm, 5))} if gaps_mm else None
