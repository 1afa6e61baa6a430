"""The picture of an entry level: noise against deviation, and how chains of K levels contract."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ontick.benchmarks.picture import FLOOR_COLOUR, OUR_COLOUR, PEER_COLOUR, pyplot


def draw_entry(document: dict[str, Any], path: Path) -> None:
    """document: as `ontick calibrate --plan rti` writes it."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    _draw_noise(left, document)
    _draw_factors(right, document["contraction"]["rows"])
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_noise(axis: Any, document: dict[str, Any]) -> None:
    """sigma_K against K, the deviations as lines across and the chosen levels as lines up."""
    sigma, entry, deviation = document["sigma"], document["entry"], document["deviation"]
    known = [K for K in (entry["rule"], entry["median"], document["contraction"]["rows"][-1]["K"]) if K is not None]
    shown = min(len(sigma), max(known) + 5)
    for pair in deviation["per_pair"]:
        axis.axhline(pair, color=PEER_COLOUR, lw=0.5, alpha=0.5)
    axis.plot(range(1, shown + 1), sigma[:shown], color=OUR_COLOUR, label="sigma of level K")
    for key, name, style in (("rms", "rule", "-"), ("median", "median", "--")):
        axis.axhline(deviation[key], color=FLOOR_COLOUR, ls=style, lw=1.2, label=f"{key} deviation")
        if (K := entry[name]) is not None:
            axis.axvline(K, color="black", ls=style, lw=0.8, label=f"K = {K}, by {key}")
    axis.set_yscale("log")
    axis.set_xlabel("K, levels; grey: a pair's deviation each")
    axis.set_title(f"{document['task'] or 'entry level'}: noise against deviation", loc="left", fontsize=10)


def _draw_factors(axis: Any, rows: Sequence[dict[str, float]]) -> None:
    levels = [row["K"] for row in rows]
    axis.fill_between(levels, [row["median"] for row in rows], [row["max"] for row in rows], color="#dfe7f5")
    for key, style in (("median", "o-"), ("p90", ".--"), ("max", ".:")):
        axis.plot(levels, [row[key] for row in rows], style, color=OUR_COLOUR, lw=1.2, label=key)
    axis.axhline(1.0, color=FLOOR_COLOUR, lw=1)
    axis.set_xscale("log")
    axis.set_xticks(levels, [str(K) for K in levels])
    axis.minorticks_off()
    axis.set_xlabel("K, levels")
    axis.set_title("contraction factor over pairs; below 1 guesses come nearer", loc="left", fontsize=10)
