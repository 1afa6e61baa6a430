"""Block-wise caching's story, drawn: two pictures a task."""

from pathlib import Path
from typing import Any

import numpy as np

from ontick.accel.caching.features import Maps
from ontick.accel.caching.schedulers import FORMS
from ontick.benchmarks.picture import FLOOR_COLOUR, OUR_COLOUR, PEER_COLOUR, pyplot
from ontick.benchmarks.schedule_picture import draw_map, draw_neighbours, short_name
from ontick.benchmarks.story_measures import BLOCKWISE, LAG, METHODS, UNION


def draw_similarity(document: dict[str, Any], maps: Maps, path: Path) -> None:
    """How much branches change from step to step, the least, the middle and the most alike, and the errors that reuse
    leaves in them."""
    plt = pyplot()
    figure = plt.figure(figsize=(12, 13))
    grid = figure.add_gridspec(4, 3, height_ratios=[4, 3, 4, 4])
    draw_neighbours(figure.add_subplot(grid[0, :]), maps)
    order = np.diagonal(maps.cosine, -LAG, 1, 2).mean(1).argsort()[::-1]
    for place, block in enumerate((order[0], order[len(order) // 2], order[-1])):
        draw_map(figure.add_subplot(grid[1, place]), maps, int(block))
    for place, name in enumerate((BLOCKWISE, UNION)):
        _draw_surge(figure.add_subplot(grid[2 + place, :]), document, name)
    figure.tight_layout()
    _save(figure, path)
    plt.close(figure)


def _draw_surge(axis: Any, document: dict[str, Any], name: str) -> None:
    """Error of every branch at every step, and where it was computed."""
    import matplotlib.colors

    surged = document["surge"]
    error, refresh = np.array(surged[name]["relative_error"]), surged[name]["refresh"]
    norm = matplotlib.colors.LogNorm(0.01, 2, clip=True)
    shown = axis.imshow(np.maximum(error, 1e-4), aspect="auto", interpolation="nearest", cmap="magma_r", norm=norm)
    for b, row in enumerate(refresh):
        steps = [k for k, computed in enumerate(row) if computed == "#"]
        axis.plot(steps, [b] * len(steps), ".", color="#19c5c5", markersize=3)
    axis.set_yticks(range(len(refresh)), [short_name(block) for block in document["blocks"]], fontsize=6)
    axis.set_title(f"relative error of a branch, {name}, M {surged['M']}; dots: computed", loc="left", fontsize=10)
    axis.set_xlabel("step, from noise to clean")
    axis.figure.colorbar(shown, ax=axis, pad=0.01)


def draw_errors(document: dict[str, Any], path: Path) -> None:
    """The toy, and how many observations it takes; beside them the ablation and the size of the union over true
    refreshes, over all samples and of the median one, which does not see the few that end in another mode."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 3, figsize=(16, 8.5))
    _draw_toy(axes[0, 0], document["toy"])
    _draw_calibration(axes[1, 0], document["calibration"])
    for column, key in enumerate(("rms", "median"), 1):
        _draw_ablation(axes[0, column], document["ablation"]["rows"], key)
        _draw_forms(axes[1, column], document["forms"], key)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    samples, on = document["held_out"], document["calibrated_on"]
    told = f"{document['task']}: {samples} held-out samples, calibrated on {on}"
    figure.suptitle(told, x=0.01, ha="left", fontsize=10, color="#555")
    figure.tight_layout()
    _save(figure, path)
    plt.close(figure)


def _draw_toy(axis: Any, told: dict[str, Any]) -> None:
    names = list(told["curves"])
    labels = ("reused", "always computed")
    for name, colour, label in zip(names, (PEER_COLOUR, OUR_COLOUR), labels, strict=True):
        axis.plot(told["curves"][name], color=colour, lw=1.4, label=f"{short_name(name)}, {label}")
    inside = np.median([stretch["r"] for stretch in told["between_updates"]])
    title = f"one cached branch: r {told['same_input'][names[-1]]['r']:.3f}, between updates {inside:.3f}"
    axis.set_title(title, loc="left", fontsize=10)
    axis.set(xlabel="step, from noise to clean", ylabel="L1 error, same input")
    axis.legend(fontsize=8, frameon=False)


def _draw_ablation(axis: Any, rows: list[dict[str, Any]], key: str) -> None:
    colours = dict(zip(METHODS, (PEER_COLOUR, "black", "#e0a030", FLOOR_COLOUR, OUR_COLOUR), strict=True))
    for name in METHODS:
        for line, marker, kinds in ((":", "x", ("none",)), ("-", "o", ("tail", "equal"))):
            mine = sorted((r["refreshes"], r[key]) for r in rows if r["method"] == name and r["kind"] in kinds)
            label = name if marker == "o" else None
            axis.plot(*zip(*mine, strict=True), line, marker=marker, markersize=4, color=colours[name], label=label)
    _log_axes(axis, key)
    axis.set_title("solid: with the last step computed, dotted: without", loc="left", fontsize=10)
    axis.legend(fontsize=8, frameon=False)


def _draw_calibration(axis: Any, rows: list[dict[str, Any]]) -> None:
    rows = [row for row in rows if row["method"] == "bac"]
    for key, colour, shift in (("rms", OUR_COLOUR, -0.1), ("median", PEER_COLOUR, 0.1)):
        for place, row in enumerate(rows):
            label = {"rms": "RMS over all samples", "median": "of the median sample"}[key] if not place else None
            at = [place + shift] * len(row[key])
            axis.plot(at, row[key], "o", color=colour, alpha=0.6, markersize=5, label=label)
            axis.plot(at[:1], [np.mean(row[key])], "_", color="black", markersize=14)
    axis.set_xticks(range(len(rows)), [row["which"].replace(" of ", "\nof ") for row in rows], fontsize=8)
    axis.set_ylim(bottom=0)
    axis.set(xlabel="observations calibrated on", ylabel="action error of BAC")
    axis.legend(fontsize=8, frameon=False)
    axis.set_title("dot: a set of observations, line: their mean", loc="left", fontsize=10)


def _draw_forms(axis: Any, rows: list[dict[str, Any]], key: str) -> None:
    for form, colour in zip(FORMS, (OUR_COLOUR, FLOOR_COLOUR), strict=True):
        for place, M in enumerate(dict.fromkeys(row["M"] for row in rows)):
            mine = [row for row in rows if (row["form"], row["M"]) == (form, M)]
            at = [row["refreshes"] for row in mine], [row[key] for row in mine]
            axis.plot(*at, "-o", color=colour, markersize=4, label=None if place else form)
            for row in mine:
                axis.annotate(str(row["n"]), (row["refreshes"], row[key]), fontsize=7, ha="left", va="bottom")
    _log_axes(axis, key)
    axis.set_title("size n of the union; a line is one M", loc="left", fontsize=10)
    axis.legend(fontsize=8, frameon=False)


def _save(figure: Any, path: Path) -> None:
    """With a palette: a third of the bytes."""
    from PIL import Image

    figure.savefig(path, dpi=75)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


def _log_axes(axis: Any, key: str) -> None:
    from matplotlib.ticker import NullFormatter

    told = {"rms": "action error, RMS over all samples", "median": "action error, RMS of the median sample"}
    axis.set(xscale="log", yscale="log", xlabel="refreshes a block", ylabel=told[key])
    for one, marks in ((axis.xaxis, (5, 7, 10, 15, 20, 30, 45)), (axis.yaxis, (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1))):
        one.set_ticks(marks, [f"{mark:g}" for mark in marks])
        one.set_minor_formatter(NullFormatter())
