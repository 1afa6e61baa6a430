"""A cache schedule, drawn: which branch is computed at which step, and the maps that it came from."""

from pathlib import Path
from typing import Any

import numpy as np

from ..accel.caching import CacheSchedule
from ..accel.caching.features import Maps
from .picture import OUR_COLOUR, pyplot

SHORT = {"self_attention": "SA", "cross_attention": "CA", "feed_forward": "FFN"}


def draw_schedule(schedule: CacheSchedule, maps: Maps | None, path: Path) -> None:
    """Blocks by steps, computed or reused; below, where there are maps, how alike neighbouring steps are in each block,
    and the whole similarity maps of three blocks."""
    plt = pyplot()
    blocks = len(schedule.blocks)
    height = 1.4 + 0.16 * blocks
    if maps is None:
        figure, axis = plt.subplots(figsize=(11, height))
        draw_refreshes(axis, schedule)
    else:
        figure = plt.figure(figsize=(11, 2 * height + 3.2))
        grid = figure.add_gridspec(3, 3, height_ratios=[height, height, 3.2])
        draw_refreshes(figure.add_subplot(grid[0, :]), schedule)
        draw_neighbours(figure.add_subplot(grid[1, :]), maps)
        for place, block in enumerate(_three(maps)):
            draw_map(figure.add_subplot(grid[2, place]), maps, block)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_refreshes(axis: Any, schedule: CacheSchedule) -> None:
    import matplotlib.colors

    colours = matplotlib.colors.ListedColormap(["#eef1f5", OUR_COLOUR])
    axis.imshow(schedule.refresh, aspect="auto", interpolation="nearest", cmap=colours, vmin=0, vmax=1)
    _name_blocks(axis, [short_name(name) for name in schedule.blocks])
    told = f"{schedule.about.get('plan', 'schedule')}: {schedule.refreshes:.1f} refreshes a block"
    axis.set_title(f"{told}; blue is computed, grey is reused", loc="left", fontsize=10)
    axis.set_xlabel("step, from noise to clean")


def draw_neighbours(axis: Any, maps: Maps) -> None:
    """1 - cosine of a branch's output at a step and at the step before, on a log scale."""
    import matplotlib.colors

    steps = maps.cosine.shape[1]
    change = 1 - np.stack([maps.cosine[:, k, k - 1] for k in range(1, steps)], 1)
    shown = axis.imshow(
        np.maximum(change, 1e-6),
        aspect="auto",
        interpolation="nearest",
        cmap="magma_r",
        norm=matplotlib.colors.LogNorm(),
        extent=(0.5, steps - 0.5, len(change) - 0.5, -0.5),
    )
    _name_blocks(axis, [short_name(name) for name in maps.names])
    axis.set_title("how much a branch changes from one step to the next (1 - cosine)", loc="left", fontsize=10)
    axis.set_xlabel("step, from noise to clean")
    axis.figure.colorbar(shown, ax=axis, pad=0.01)


def draw_map(axis: Any, maps: Maps, block: int) -> None:
    shown = axis.imshow(maps.cosine[block], cmap="viridis", vmin=maps.cosine[block].min(), vmax=1)
    axis.set_title(f"{short_name(maps.names[block])}: cosine of steps", loc="left", fontsize=10)
    axis.figure.colorbar(shown, ax=axis, fraction=0.046)


def _three(maps: Maps) -> list[int]:
    """The block that is most alike over its steps, the median one, and the least."""
    order = maps.cosine.mean((1, 2)).argsort()[::-1]
    return [int(order[0]), int(order[len(order) // 2]), int(order[-1])]


def _name_blocks(axis: Any, names: list[str]) -> None:
    every = max(1, len(names) // 24)
    axis.set_yticks(range(0, len(names), every), names[::every], fontsize=7)


def short_name(name: str) -> str:
    """A block's name for a narrow axis: "3 FFN"."""
    layer, _, kind = name.partition(".")
    return f"{layer} {SHORT.get(kind, kind)}"
