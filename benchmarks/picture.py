"""Pictures of what was measured, as PNG."""

from pathlib import Path
from typing import Any

PEER_COLOUR, OUR_COLOUR, FLOOR_COLOUR = "#9aa5b1", "#2f6fde", "#d1495b"


def draw_bench(document: dict[str, Any], path: Path) -> None:
    """A panel a case: p50 of every row on a log axis, how much faster than the peer, bytes floor, deadline."""
    plt = pyplot()
    cases = list(dict.fromkeys(row["case"] for row in document["rows"]))
    most = max(sum(row["case"] == case for row in document["rows"]) for case in cases)
    figure, axes = plt.subplots(1, len(cases), figsize=(7.5 * len(cases), 1.6 + 0.42 * most), squeeze=False)
    deadline = document["budget"]["deadline_ms"]
    for axis, case in zip(axes[0], cases, strict=True):
        rows = [row for row in document["rows"] if row["case"] == case][::-1]
        p50 = [row["ms"]["p50"] for row in rows]
        colours = [PEER_COLOUR if row["plan"].startswith("peer") else OUR_COLOUR for row in rows]
        axis.barh(range(len(rows)), p50, color=colours, height=0.68)
        for i, row in enumerate(rows):
            axis.text(p50[i] * 1.06, i, _label(row), va="center", fontsize=9)
            floor = row["bytes_floor_ms"]
            axis.plot(
                [floor, floor], [i - 0.34, i + 0.34], color=FLOOR_COLOUR, lw=2, label=None if i else "bytes floor"
            )
        axis.axvline(deadline, color="black", ls=":", lw=1, label=f"deadline {deadline:g} ms")
        axis.set_xscale("log")
        axis.set_xlim(min(min(p50), *(row["bytes_floor_ms"] for row in rows)) / 1.6, max(p50) * 6)
        axis.set_yticks(range(len(rows)), [f"{row['plan']}  ({row['backend']}, {row['precision']})" for row in rows])
        axis.set_xlabel("one answer at batch 1, p50 [ms]; × times as fast as peer-ddpm-100")
        axis.set_title(f"{document['suite']}, {case}", loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.8, 1.1), ncol=2)
    machine = document["machine"]
    figure.suptitle(f"{machine['device']}, {machine['threads']} threads", x=0.01, ha="left", fontsize=9, color="#555")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _label(row: dict[str, Any]) -> str:
    """p50 and how much faster than the peer; by the action too, where an answer gives another number of them."""
    ratio, by_action = row["ratio_to_peer"], row.get("per_action_ratio_to_peer")
    text = f"{row['ms']['p50']:.4g} ms  ×{1 / ratio:.3g}"
    if by_action is None or abs(by_action - ratio) <= 1e-6 * ratio:
        return text
    return f"{text}, ×{1 / by_action:.3g} an action"


def draw_switches(document: dict[str, Any], path: Path) -> None:
    """A bar a rung: p50, and how much faster than the plain loop; above, switch by switch, below, one left out."""
    plt = pyplot()
    rows = document["rows"][::-1]
    p50 = [row["ms"]["p50"] for row in rows]
    colours = [FLOOR_COLOUR if row["rung"].startswith("-") else OUR_COLOUR for row in rows]
    colours[-1] = PEER_COLOUR
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.36 * len(rows)))
    axis.barh(range(len(rows)), p50, color=colours, height=0.68)
    for i, row in enumerate(rows):
        axis.text(p50[i] * 1.01, i, f"{p50[i]:.0f} ms  ×{1 / row['ratio_to_plain']:.2f}", va="center", fontsize=9)
    axis.set_yticks(range(len(rows)), [f"{row['rung']}  ({row['backend']})" for row in rows])
    axis.set_xlim(0, max(p50) * 1.2)
    axis.set_xlabel(
        "one DDPM-100 chunk, published shape, p50 [ms]\nblue adds a switch to those above, red leaves one out"
    )
    axis.spines[["top", "right"]].set_visible(False)
    machine = document["machine"]
    figure.suptitle(f"{machine['cpu']}, {machine['threads']} threads", x=0.01, ha="left", fontsize=9, color="#555")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_front(document: dict[str, Any], path: Path) -> None:
    """What `ontick tune` measured: every plan's quality over its p99, the front, the deadline and the choice."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(9, 5.5))
    rows = {row["plan"]: row for row in document["rows"]}
    on_it = [rows[name] for name in document["front"]]
    axis.plot([r["p99_ms"] for r in rows.values()], [r["error"] for r in rows.values()], "o", color=FLOOR_COLOUR, ms=4)
    axis.plot([r["p99_ms"] for r in on_it], [r["error"] for r in on_it], "o-", color=OUR_COLOUR, ms=5, lw=1.2)
    for row in (r for r in rows.values() if r["plan"] in {*document["front"], document["chosen"]}):
        played = f" {row['successes']}/{row['episodes']}" if "successes" in row else ""
        place = {"xytext": (4, 4), "textcoords": "offset points", "rotation": 25, "rotation_mode": "anchor"}
        axis.annotate(row["plan"] + played, (row["p99_ms"], row["error"]), fontsize=7, **place)
    chance = document["rows"][0]["chance"]
    axis.axhspan(0, chance, color=FLOOR_COLOUR, alpha=0.12, lw=0, label="no farther than chance: all count as 0")
    if document["chosen"] is not None:
        row = rows[document["chosen"]]
        axis.plot([row["p99_ms"]], [row["error"]], "o", mfc="none", mec=PEER_COLOUR, ms=13, label="chosen")
    deadline_ms = document["request"]["budget"]["deadline_ms"]
    axis.axvline(deadline_ms, color=PEER_COLOUR, lw=1, ls="--", label=f"deadline {deadline_ms:g} ms")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.set_xlabel(f"an answer at batch 1, p{document['request']['budget']['percentile']:g} [ms]")
    axis.set_ylabel("energy distance from the dense sampler")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def pyplot() -> Any:
    """Imported when something is drawn, and without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot
