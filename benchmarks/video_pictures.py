"""The table and the pictures of `video_quality.py`; by itself it prints and draws again what was measured.

python benchmarks/video_pictures.py benchmarks/results/video-arm.json
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ontick.benchmarks.picture import FLOOR_COLOUR, pyplot

Row = dict[str, Any]
Document = dict[str, Any]
Columns = list[tuple[str, Callable[[Row], str]]]
LOOKS = {  # colours of a family's plans in order, and its marker
    "full": (("#1b1f24", "#7d8590", "#b6bcc4"), "o"),
    "rolling": (("#2f6fde", "#7fa8ef", "#b9cff7"), "s"),
    "ar": (("#8a4fd0", "#b895e6", "#d9c8f2"), "D"),
    "causal": (("#b07d2b", "#e0a93f", "#efd394"), "^"),
    "fifo": (("#14603f", "#2fa06f", "#8ccfae"), "v"),
}
MOST_SIGMA = 3.0  # of a field, either way, that a picture tells apart

# -- the table --------------------------------------------------------------------------------------------------------


def horizons(document: Document) -> list[int]:
    """1, 2, 4, ... frames."""
    return [2**i for i in range(document["frames"].bit_length())]


def table(document: Document) -> list[str]:
    """Markdown: quality, floors last, then cost; a line a plan."""
    rows, real, clips = document["rows"], document["floors"], document["clips"]
    machine, floor = document["machine"], {"plan": "repeat last", **document["floors"]["repeat_last"]}
    what = f"{document['n']} clips of {document['frames']} frames after {document['prompt']}"
    apart = np.mean(real["spectral_error_db"])
    return [
        f"{document['checkpoint']['name']} on {clips['name']}: {what}, from {clips['episodes']} episodes",
        "",
        *_grid(_quality(document), [*rows, floor]),
        "",
        f"real against real: spatial {real['spatial']:.3g}, temporal {real['temporal']:.3g}, shells {apart:.2f} dB off",
        "",
        f"batch 1, fp32, eager, {machine['threads']} threads of {machine['cpu']}",
        "",
        *_grid(_cost(), rows),
    ]


def _quality(document: Document) -> Columns:
    at = document["at"]
    columns: Columns = [("plan", lambda row: row["plan"])]
    columns += [(f"PSNR at {h}, dB", lambda row, h=h: f"{row['psnr_db'][h - 1]:.2f}") for h in horizons(document)]
    columns += [
        (f"gain over repeat-last at {at}, dB", lambda row: _estimate(row["gain_db"])),
        (f"against {document['rows'][0]['plan']} at {at}, dB", lambda row: _estimate(row.get("against_first_db"))),
        ("spatial", lambda row: f"{row['spatial']:.3g}"),
        ("temporal", lambda row: f"{row['temporal']:.3g}"),
        ("drift of spectra, dB", lambda row: _estimate(row["drift_db"])),
    ]
    if any("action_shuffle" in row for row in document["rows"]):
        columns.append(("action shuffle", lambda row: _number(row.get("action_shuffle"), ".2f")))
    if any("crps" in row for row in document["rows"]):
        columns.append((f"CRPS at {at}", lambda row: _number(row["crps"][at - 1], ".3g") if "crps" in row else "-"))
        spread = "spread_skill"
        columns.append(("spread/skill", lambda row: _number(row[spread][at - 1], ".2f") if spread in row else "-"))
    return columns


def _cost() -> Columns:
    return [
        ("plan", lambda row: row["plan"]),
        ("evaluations/frame, whole clip", lambda row: f"{row['evaluations_per_frame']:.1f}"),
        ("full ring", lambda row: f"{row['cost']['steady_evaluations_per_frame']:.1f}"),
        ("calls/frame", lambda row: f"{row['cost']['calls_per_frame']:.2f}"),
        ("ms/frame p50", lambda row: f"{row['cost']['frame_ms']['p50']:.1f}"),
        ("an advance p50, max ms (n)", lambda row: _times(row["cost"]["advance_ms"])),
        ("first frame ms", lambda row: f"{row['cost']['first_frame_ms']['p50']:.0f}"),
        ("ms/call", lambda row: f"{row['cost']['call_ms']:.2f}"),
        ("reaction", lambda row: _reaction(row["cost"]["reaction"])),
        ("ring, memory KiB", lambda row: ", ".join(f"{b / 1024:.0f}" for b in row["cost"]["bytes"].values())),
    ]


def _grid(columns: Columns, rows: list[Row]) -> list[str]:
    lines = ["| " + " | ".join(name for name, _ in columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(tell(row) for _, tell in columns) + " |" for row in rows]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _estimate(told: dict[str, float] | None) -> str:
    return "-" if told is None else f"{told['mean']:+.2f} ({told['low']:+.2f} to {told['high']:+.2f})"


def _times(told: dict[str, Any]) -> str:
    return f"{told['p50']:.1f}, {told['max']:.1f} ({told['n']})"


def _reaction(told: dict[str, Any] | None) -> str:
    if told is None:
        return "-"
    if told["frames"] is None:
        return "none"
    return (
        f"{told['frames']:g} frames ({told['worst_frames']:g} at worst), {told['calls']:g} calls, {told['ms']:.0f} ms"
    )


# -- the picture ------------------------------------------------------------------------------------------------------


def styles(rows: list[Row]) -> list[dict[str, Any]]:
    """A colour and a marker a row: a family has one marker, and shades of one colour."""
    met: dict[str, int] = {}
    looks = []
    for row in rows:
        family = row["plan"].split(":")[0]
        shades, marker = LOOKS[family]
        looks.append({"color": shades[met.get(family, 0) % len(shades)], "marker": marker})
        met[family] = met.get(family, 0) + 1
    return looks


def draw_quality(document: Document, path: Path) -> None:
    """By horizon, against cost, and how soon."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 3, figsize=(16, 9.4))
    looks = styles(document["rows"])
    lines = _by_horizon(axes[0][0], document, looks)
    _gains(axes[0][1], document, looks)
    _spectra(axes[0][2], document, looks)
    _distances(axes[1][0], document, looks, "spatial")
    _distances(axes[1][1], document, looks, "temporal")
    _waits(axes[1][2], document, looks)
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
    machine, clips = document["machine"], document["clips"]
    title = f"{document['checkpoint']['name']} on {clips['name']}, {document['n']} clips of {document['frames']} frames"
    said = f"{title}; times at batch 1, {machine['cpu']}, {machine['threads']} threads"
    figure.suptitle(said, x=0.01, ha="left", fontsize=10, color="#555")
    figure.legend(handles=lines, loc="lower center", ncol=min(5, -(-len(lines) // 2)), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.065, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _by_horizon(axis: Any, document: Document, looks: list[dict]) -> list[Any]:
    """The lines, for the legend."""
    at = horizons(document)
    frames, marked, lines = np.arange(1, document["frames"] + 1), [h - 1 for h in at], []
    for row, look in zip(document["rows"], looks, strict=True):
        label = f"{row['plan']} ({row['cost']['steady_evaluations_per_frame']:.0f} evaluations/frame)"
        lines += axis.plot(frames, row["psnr_db"], **look, markevery=marked, ms=4, lw=1.4, label=label)
    floor = document["floors"]["repeat_last"]["psnr_db"]
    lines += axis.plot(frames, floor, color=FLOOR_COLOUR, ls="--", lw=1.4, label="last known frame, held")
    axis.set_xscale("log", base=2)
    axis.set_xticks(at, [str(h) for h in at])
    axis.set_xlabel("frame")
    axis.set_ylabel(f"PSNR [dB], peak {document['peak']:.3g}")
    return lines


def _gains(axis: Any, document: Document, looks: list[dict]) -> None:
    for row, look in zip(document["rows"], looks, strict=True):
        gain = row["gain_db"]
        reach = [[max(0.0, gain["mean"] - gain["low"])], [max(0.0, gain["high"] - gain["mean"])]]
        axis.errorbar(_ms(row), gain["mean"], yerr=reach, **look, ms=7, lw=1.1, capsize=2)
    axis.axhline(0, color=FLOOR_COLOUR, ls="--", lw=1)
    axis.set_ylabel(f"gain over the last frame held, frame {document['at']} [dB]")
    _cost_axis(axis, document)


def _spectra(axis: Any, document: Document, looks: list[dict]) -> None:
    frames = np.arange(1, document["frames"] + 1)
    for row, look in zip(document["rows"], looks, strict=True):
        every = max(1, len(frames) // 6)
        axis.plot(frames, row["spectral_error_db"], **look, lw=1.4, ms=4, markevery=every)
    real = float(np.mean(document["floors"]["spectral_error_db"]))
    axis.axhline(real, color=FLOOR_COLOUR, ls="--", lw=1, label="two real clips")
    axis.set_xlabel("frame")
    axis.set_ylabel("power of a frame's shells, off by [dB]")
    axis.legend(fontsize=8, frameon=False)


def _distances(axis: Any, document: Document, looks: list[dict], name: str) -> None:
    for row, look in zip(document["rows"], looks, strict=True):
        axis.plot(_ms(row), row[name], **look, ms=7, ls="none")
    axis.axhline(document["floors"][name], color=FLOOR_COLOUR, ls="--", lw=1, label="halves of the real clips")
    axis.set_yscale("log")
    axis.set_ylabel(f"Frechet distance of spectra in {'space' if name == 'spatial' else 'time'}")
    _cost_axis(axis, document)
    axis.legend(fontsize=8, frameon=False)


def _waits(axis: Any, document: Document, looks: list[dict]) -> None:
    """The first frame's time, and a reaction's as a tick on its bar."""
    rows = document["rows"]
    for place, (row, look) in enumerate(zip(rows, looks, strict=True)):
        first, reaction = row["cost"]["first_frame_ms"]["p50"], row["cost"]["reaction"]
        axis.barh(-place, first, color=look["color"], height=0.62, alpha=0.45)
        said = f"{first:.0f}"
        if reaction is not None and reaction["ms"] is not None:
            axis.plot(reaction["ms"], -place, color=look["color"], marker="|", ms=15, mew=3, ls="none")
            said += f", reaction {reaction['ms']:.0f}"
        end = max(first, (reaction or {}).get("ms") or 0), -place
        axis.annotate(said, end, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks([-i for i in range(len(rows))], [row["plan"].replace(":", "\n") for row in rows], fontsize=7)
    axis.set_xlim(0, axis.get_xlim()[1] * 1.3)
    told = any(row["cost"]["reaction"] for row in rows)
    axis.set_xlabel("bar: first frame p50 [ms]" + ("; tick: reaction to an action [ms]" if told else ""))


def _ms(row: Row) -> float:
    return row["cost"]["frame_ms"]["p50"]


def _cost_axis(axis: Any, document: Document) -> None:
    plt, spent, fps = pyplot(), [_ms(row) for row in document["rows"]], document["clips"]["fps"]
    axis.set_xscale("log")
    axis.set_xlim(min(spent) / 1.4, max(spent) * 1.4)
    axis.xaxis.set_major_locator(plt.matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set_xlabel("a frame at batch 1, p50 [ms]")
    if fps and min(spent) / 1.4 < 1e3 / fps < max(spent) * 1.4:
        axis.axvline(1e3 / fps, color="black", ls=":", lw=1)
        axis.text(1e3 / fps, 1, f" {fps:g} frames a second", fontsize=8, va="top", transform=axis.get_xaxis_transform())


# -- the sheet --------------------------------------------------------------------------------------------------------


def draw_frames(document: Document, videos: dict[str, np.ndarray], path: Path) -> None:
    """A row a video [T, H, W, C], the truth first, a column a horizon; under a frame its PSNR."""
    plt = pyplot()
    at = horizons(document)
    figure, axes = plt.subplots(len(videos), len(at), figsize=(1.45 * len(at) + 2.2, 1.62 * len(videos) + 0.5))
    for cells, (name, video) in zip(np.atleast_2d(axes), videos.items(), strict=True):
        for axis, h in zip(cells, at, strict=True):
            _frame(axis, video[h - 1])
            error = float(np.square(video[h - 1].astype(float) - videos["truth"][h - 1]).mean())
            if name != "truth":
                axis.set_xlabel(
                    f"{10 * np.log10(document['peak'] ** 2 / max(error, 1e-12)):.1f} dB", fontsize=7, labelpad=2
                )
        label = name.replace(":", "\n")
        cells[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
    for axis, h in zip(np.atleast_2d(axes)[0], at, strict=True):
        axis.set_title(f"frame {h}", fontsize=9)
    figure.tight_layout(h_pad=0.3, w_pad=0.2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _frame(axis: Any, frame: np.ndarray) -> None:
    """[H, W, C]: a picture in 0..1, or the first channel of a field in standard deviations."""
    if frame.shape[2] == 3:
        axis.imshow(frame.clip(0, 1), interpolation="nearest")
    else:
        axis.imshow(frame[..., 0], cmap="RdBu_r", vmin=-MOST_SIGMA, vmax=MOST_SIGMA, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", metavar="NAME.json")
    path = Path(parser.parse_args().measured)
    document = json.loads(path.read_text())
    draw_quality(document, path.with_suffix(".png"))
    print("\n".join(table(document)))


if __name__ == "__main__":
    main()
