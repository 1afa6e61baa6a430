"""Every sampler of a video network on the same weights: how good its video is against held-out clips, at what cost.

python benchmarks/video_quality.py CHECKPOINT --clips HELD.zarr --out benchmarks/results/video-arm --n 32 --threads 2

Writes NAME.json, NAME.png (quality against cost) and NAME-frames.png (frames of one clip), and prints a table. A plan:
name[:steps=N][:stagger=N][:view=V][:effort], as in `fifo:view=all:steps=20` or `rolling:short`.

A stream is given the k frames before a clip's start with their actions and, from then on, the actions of all frames to
come; what it draws is compared with the clip. Its noise is keyed by (seed, clip), so all plans are judged on the same
clips, in pairs. Times are taken apart, at batch 1, eager, a fresh stream's first advance beside those of a full ring.

Legend: N clips, T frames, k of the prompt, Da action numbers, M members of an ensemble, b frames of an advance.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ontick.benchmarks.policy import percentiles
from ontick.benchmarks.video_measures import AT, WINDOW, Held, errors_of_clips, floors, quality
from ontick.benchmarks.video_pictures import draw_frames, draw_quality, table
from ontick.commands.progress import progress_bar
from ontick.errors import InputError
from ontick.files import check_place, write_whole
from ontick.runtime import WallClock, describe_machine, measure_latency
from ontick.video import Clips, Effort, FrameDenoiser, Stream, StreamPlan, Values, VideoCheckpoint, metrics, stream_plan
from ontick.video.checkpoint import load_video_checkpoint
from ontick.video.clips import read_clips
from ontick.video.stream import memory_bytes

LANES = 8  # clips that are drawn together
AHEAD = 32  # actions that are known beyond the last frame, for frames in flight
SHUFFLES, REACTIONS, STARTS = 2, 3, 3
TIMED = (24, 6)  # frames and advances that are timed, at least
NUMBERS = (
    ("n", 32, "clips"),
    ("frames", 48, "frames of a clip"),
    ("prompt", 4, "frames before it that are given"),
    ("members", 1, "above 1: of ensembles, for CRPS and spread"),
    ("threads", 1, "of torch"),
    ("seed", 0, "of all noise"),
)


def held_out(clips: Clips, values: Values, n: int, frames: int, prompt: int) -> Held:
    """`n` starts, evenly spread over all that have `prompt` frames before them and `frames` from them on."""
    ends = clips.ends
    spans = [np.arange(e - length + prompt, e - frames + 1) for e, length in zip(ends, clips.lengths, strict=True)]
    possible = np.concatenate(spans)
    if not 2 <= n <= len(possible) or prompt < 1 or frames < 4:
        got = f"got {n} clips of {prompt} and {frames} frames from {len(possible)} starts"
        raise InputError(f"{got}, wanted 2 clips or more, prompts of 1 frame and clips of 4: change --n or --frames")
    starts = possible[((np.arange(n) + 0.5) * len(possible) / n).astype(int)]
    before = starts[:, None] + np.arange(-prompt, 0)
    last = ends[np.searchsorted(ends, starts, side="right")] - 1
    after = np.minimum(starts[:, None] + np.arange(frames + AHEAD), last[:, None])
    truth = values.to_unit(values.to_network(clips.frames[starts[:, None] + np.arange(frames)]))
    peak = 1.0 if values.kind == "rgb" else float(np.ptp(clips.frames)) / values.scale
    shown, told = values.to_network(clips.frames[before]), torch.from_numpy(clips.actions[before])
    return Held(truth, shown, told, clips.actions[after], starts, peak)


def sampler_of(spec: str, network: FrameDenoiser) -> tuple[StreamPlan, Effort]:
    """name[:steps=N][:stagger=N][:view=V][:effort]. Raises InputError."""
    name, *parts = spec.split(":")
    choices: dict[str, Any] = {}
    effort = Effort.FULL
    for part in parts:
        key, _, value = part.partition("=")
        if part.upper() in Effort.__members__:
            effort = Effort[part.upper()]
        elif key in ("steps", "stagger") and value.isdecimal():
            choices[key] = int(value)
        elif key == "view" and value:
            choices[key] = value
        else:
            raise InputError(f"plan {spec!r}: got {part!r}, wanted steps=N, stagger=N, view=V or an effort")
    return stream_plan(name, network.schedule, network.frames, **choices), effort


def usual_plans(window: int) -> list[str]:
    """Each family as it is meant, at about as many frame evaluations a frame where it allows that."""
    f = window - window % 2
    queues = (("all", 2 * f), ("partitions", 2 * f), ("lookahead", f), ("lookahead", 2 * f))
    diagonals = [f"fifo:view={view}:steps={steps}" for view, steps in queues]
    return ["full", "rolling", "ar", "causal", f"causal:steps={2 * f - 1}", *diagonals]


@dataclass
class Case:
    """A sampler on held-out clips. `drew` is told after every batch of lanes; `evaluations_per_frame` is of the last
    batch, its beginning included."""

    spec: str
    checkpoint: VideoCheckpoint
    held: Held
    seed: int
    drew: Callable[[], object]
    evaluations_per_frame: float = 0.0

    def __post_init__(self) -> None:
        self.plan, self.effort = sampler_of(self.spec, self.checkpoint.network)

    def stream(self, picks: Sequence[int], member: int = 0) -> Stream:
        """Before its first frame; a lane a clip of `picks`."""
        seeds = [(self.seed * 1000 + member) * 1_000_003 + pick for pick in picks]
        prompt, told = self.held.prompt[list(picks)], self.held.prompt_actions[list(picks)]
        shape = {"shape": tuple(prompt.shape[2:]), "action_dim": told.shape[2]}
        return Stream(self.checkpoint.network, self.plan, **shape, seeds=seeds, prompt=prompt, prompt_actions=told)

    def video(self, frames: int, actions: np.ndarray, member: int = 0) -> np.ndarray:
        """[N, frames, H, W, C] in the units of the truth, given `actions` [N, T + AHEAD, Da]."""
        made = []
        for first in range(0, len(actions), LANES):
            picks = range(first, min(first + LANES, len(actions)))
            stream, told, parts = self.stream(picks, member), torch.from_numpy(actions[first : first + LANES]), []
            while stream.frames < frames:
                parts.append(stream.advance(told[:, stream.frames :], self.effort))
            made.append(self.checkpoint.values.to_unit(torch.cat(parts, 1)[:, :frames]))
            self.evaluations_per_frame = stream.frames_seen / stream.frames
            self.drew()
        return np.concatenate(made)


def ensemble(case: Case, made: np.ndarray, members: int) -> dict[str, Any]:
    """CRPS [T] and spread over skill [T] of `members` videos, of which `made` is one."""
    held, frames = case.held, made.shape[1]
    others = [case.video(frames, held.actions, member) for member in range(1, members)]
    drawn = np.stack([made, *others])
    return {"crps": metrics.crps(drawn, held.truth), "spread_skill": metrics.spread_skill(drawn, held.truth)}


def use_of_actions(case: Case, made: np.ndarray) -> float:
    """Mean squared error of the first frames with the actions of other clips, over that with their own: same noise."""
    held, span = case.held, min(AT, made.shape[1])

    def error(actions: np.ndarray) -> float:
        drawn = made[:, :span] if actions is held.actions else case.video(span, actions)
        return float(metrics.mse_by_horizon(held.truth[:, :span], drawn).mean())

    return metrics.action_shuffle_ratio(error, held.actions, SHUFFLES, case.seed)


def cost(case: Case) -> dict[str, Any]:
    """Of one lane: a fresh stream's first advance, and advances and network calls once its ring is full."""
    told, pool = torch.from_numpy(case.held.actions[:1]), [case.stream([0]) for _ in range(STARTS + 1)]
    left = iter(pool)

    def begin() -> None:
        next(left).advance(told, case.effort)

    first = measure_latency(begin, STARTS, 1, WallClock())
    stream = pool[-1]

    def advance() -> None:
        stream.advance(told[:, min(stream.frames, told.shape[1] - 1) :], case.effort)

    measure_latency(advance, 1, 1)
    before = np.array((stream.frames, stream.calls, stream.frames_seen))
    seconds = measure_latency(advance, max(TIMED[0] // stream.block, TIMED[1]), 0, WallClock())
    frames, calls, seen = np.array((stream.frames, stream.calls, stream.frames_seen)) - before
    call_ms = float(np.median(seconds)) * 1e3 * len(seconds) / calls
    return {
        "block": stream.block,
        "frame_ms": times(seconds / stream.block),
        "advance_ms": times(seconds),
        "first_frame_ms": times(first),
        "call_ms": call_ms,
        "calls_per_frame": calls / frames,
        "steady_evaluations_per_frame": seen / frames,
        "reaction": reaction(case, stream, advance, call_ms) if told.shape[2] else None,
        "bytes": {"ring": tensor_bytes(stream._state), "memory": memory_bytes(stream._memory)},
    }


def reaction(case: Case, stream: Stream, advance: Callable[[], None], call_ms: float) -> dict[str, Any]:
    """From all actions at 1 to all at -1, right after an advance, at some moments: medians. `worst_frames`: where the
    change comes right before the next one, b - 1 frames later. None where no frame shows it."""
    action, seen = torch.ones(case.held.actions.shape[2]), []
    for _ in range(REACTIONS):
        seen.append(stream.reaction(action, -action))
        advance()
    shown = [each for each in seen if each is not None]
    if len(shown) < len(seen):
        return {"frames": None, "calls": None, "ms": None, "worst_frames": None}
    frames, calls = (float(np.median(part)) for part in zip(*shown, strict=True))
    return {"frames": frames, "calls": calls, "ms": calls * call_ms, "worst_frames": frames + stream.block - 1}


def times(seconds: np.ndarray) -> dict[str, Any]:
    return {**percentiles(seconds), "max": float(seconds.max() * 1e3)}


def tensor_bytes(held: Any) -> int:
    """Of the tensors in nested tuples."""
    if isinstance(held, torch.Tensor):
        return held.numel() * held.element_size()
    return sum(tensor_bytes(part) for part in held) if isinstance(held, tuple) else 0


def judged(case: Case, still: np.ndarray, members: int) -> tuple[dict[str, Any], np.ndarray]:
    """A row without its cost, and the videos."""
    made = case.video(case.held.truth.shape[1], case.held.actions)
    row = {"plan": case.spec, "effort": case.effort.name.lower(), "steps": case.plan.plan.grid.steps}
    row |= {"evaluations_per_frame": case.evaluations_per_frame, **quality(case.held, made, still, case.seed)}
    if case.held.actions.shape[2]:
        row["action_shuffle"] = use_of_actions(case, made)
    return row | (ensemble(case, made, members) if members > 1 else {}), made


def plain(value: Any) -> Any:
    """As JSON has it: lists, and null for what is not finite."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def measured(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The document, and one clip's videos [T, H, W, C] by plan, after the truth and the last known frame held."""
    checkpoint, clips = load_video_checkpoint(options.checkpoint), read_clips(options.clips)
    held = held_out(clips, checkpoint.values, options.n, options.frames, options.prompt)
    repeated = metrics.repeat_last(checkpoint.values.to_unit(held.prompt[:, -1]), options.frames)
    still = errors_of_clips(held.truth, repeated)
    shown = int(np.argsort(still[:, min(AT, options.frames) - 1])[len(still) // 2])  # it moves as most do
    videos, rows = {"truth": held.truth[shown], "repeat last": repeated[shown]}, []
    specs = options.plans.split(",") if options.plans else usual_plans(checkpoint.network.frames)
    a_plan = options.members + (SHUFFLES if held.actions.shape[2] else 0)
    with progress_bar(len(specs) * a_plan * -(-options.n // LANES), "drawing", "batch") as bar:
        cases = [Case(spec, checkpoint, held, options.seed, bar.update) for spec in specs]
        for case in cases:
            row, made = judged(case, still, options.members)
            videos[case.spec] = made[shown]
            rows.append(row)
            pair = (rows[0]["errors_of_clips"], row["errors_of_clips"])
            row["against_first_db"] = metrics.error_ratio_db(*pair, options.seed)._asdict()
    with progress_bar(len(specs), "timing", "plan") as bar:
        for row, case in zip(rows, cases, strict=True):
            row |= {"load": os.getloadavg()[0], "cost": cost(case)}
            bar.update()
    document = described(options, checkpoint, clips, held) | {"shown_clip": shown, "rows": rows}
    return plain(document | {"floors": floors(held, repeated, options.seed)}), videos


def described(options: argparse.Namespace, checkpoint: VideoCheckpoint, clips: Clips, held: Held) -> dict[str, Any]:
    weights = {"weights": sum(part.numel() for part in checkpoint.network.parameters())}
    file = {name: clips.attributes.get(name) for name in ("kind", "scene", "fps", "seed")}
    episodes = len(np.unique(np.searchsorted(clips.ends, held.starts, side="right")))
    return {
        "machine": describe_machine(),
        "checkpoint": {"name": Path(options.checkpoint).name, **weights, **checkpoint.network.config.to_dict()},
        "clips": {"name": Path(options.clips).name, **file, "episodes": episodes, "starts": held.starts},
        **{name: getattr(options, name) for name in ("n", "frames", "prompt", "members", "seed")},
        "peak": held.peak,
        "at": min(AT, options.frames),
        "temporal_window": min(WINDOW, options.frames // 2),
        "drift_frames": min(AT, options.frames // 2),
    }


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--clips", required=True, metavar="HELD.zarr")
    parser.add_argument("--out", required=True, metavar="RESULTS/NAME", help="without an ending")
    parser.add_argument("--plans", metavar="SPEC,SPEC...", help="default: each family, for the network's window")
    for name, default, said in NUMBERS:
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{said} (%(default)s)")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    options = arguments(words)
    torch.set_num_threads(options.threads)
    out = check_place(options.out)
    document, videos = measured(options)
    write_whole(out.with_name(f"{out.name}.json"), json.dumps(document, indent=1) + "\n")
    draw_quality(document, out.with_name(f"{out.name}.png"))
    draw_frames(document, videos, out.with_name(f"{out.name}-frames.png"))
    print("\n".join(table(document)))


if __name__ == "__main__":
    main()
