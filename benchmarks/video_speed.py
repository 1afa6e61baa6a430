"""How fast streams are on this machine: frames a second, tails, first frame and reaction of every sampler.

    python benchmarks/video_speed.py --out benchmarks/results/video-speed-cpu.json
    python benchmarks/video_speed.py --device cuda --preset video-large --precision bf16 --frames 2000 --out FILE.json

The weights are random ones of a preset's shape, which costs as much time as trained ones. Rows are taken in turn, round
by round, each a stream of its own after a warm-up that is not counted. Only the core packages are needed.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import ontick
from ontick import accel
from ontick.errors import InputError
from ontick.files import write_whole
from ontick.runtime import LatencyBudget, WallClock, describe_machine, load_budget
from ontick.video import FrameTransformer, Stream, Values, VideoConfig, stream_plan
from ontick.video.steering import wandering

PRESETS = Path(ontick.__file__).parent / "configs" / "training"
PLANS = ("rolling", "ar", "causal", "full", "fifo")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def network_of(preset: str, device: str, precision: str) -> FrameTransformer:
    """The preset's network for 64 px frames and two action numbers, random weights."""
    settings = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text())["network"]
    torch.manual_seed(0)
    network = FrameTransformer(VideoConfig(**settings)).eval().requires_grad_(False)
    for parameter in network.parameters():  # the last layers begin as zeros, which no trained network has
        torch.nn.init.normal_(parameter, std=0.02)
    return network.to(device, DTYPES[precision])


def measured(network: FrameTransformer, name: str, backend: str, frames: int, device: str, budget: LatencyBudget):
    """One row: a stream of `frames` frames after a warm-up, as plain data."""
    plan, c, clock = stream_plan(name, network.schedule, network.frames), network.config, WallClock()
    stream = Stream(
        network,
        dataclasses.replace(plan, plan=dataclasses.replace(plan.plan, backend=backend)),
        (c.channels, c.size, c.size),
        action_dim=c.action_dim,
        device=device,
        build=accel.build,
    )
    values = Values()

    def drawn(of: Stream) -> int:
        return len(values.to_frames(of.advance(wandering(0, of.frames, c.action_dim))[0]))  # waits for the device

    copy = stream.fork()  # whatever is compiled or captured, is
    for _ in range(3):
        drawn(copy)
    before_s = clock.now()
    reaction = copy.reaction(torch.ones(c.action_dim), -torch.ones(c.action_dim))
    reaction_ms = (clock.now() - before_s) * 1e3 / 2  # drawn twice
    waits_s: list[float] = []
    while len(waits_s) < frames:
        before_s = clock.now()
        block = drawn(stream)
        waits_s += [clock.now() - before_s] + [0.0] * (block - 1)  # the rest of a block is there with its first frame
    first_s, waits = waits_s[0], np.array(waits_s[stream.block :])
    return {
        "plan": name,
        "backend": stream.program.backend,
        "n": len(waits),
        "fps": float(len(waits) / waits.sum()),
        "frame_ms": {f"p{p:g}": float(np.percentile(waits, p) * 1e3) for p in (50, 99)} | {"max": waits.max() * 1e3},
        "first_frame_ms": first_s * 1e3,
        "calls_per_frame": stream.calls / stream.frames,
        "reaction_frames": None if reaction is None else reaction.frames,
        "reaction_ms": None if reaction is None else reaction_ms,
        "budget": {"name": budget.name, "met": budget.met(waits)},
    }


def rows_of(options: argparse.Namespace, network: FrameTransformer, budget: LatencyBudget) -> list[dict[str, Any]]:
    backends = ["eager", "cudagraph"] if options.device == "cuda" else ["eager", "best"]
    rows = []
    for _ in range(options.rounds):
        for name in options.plans.split(","):
            for backend in backends:
                try:
                    row = measured(network, name, backend, options.frames, options.device, budget)
                except InputError as error:
                    print(f"{name}, {backend}: left out: {error}")
                    continue
                rows.append(row)
                print(
                    f"{name:8} {row['backend']:9} {row['fps']:7.1f} frames/s, p50 {row['frame_ms']['p50']:7.2f} p99 "
                    f"{row['frame_ms']['p99']:7.2f} ms, first {row['first_frame_ms']:7.1f} ms, {budget.name} "
                    f"{'met' if row['budget']['met'] else 'missed'}",
                    flush=True,
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="video")
    parser.add_argument("--plans", default=",".join(PLANS))
    parser.add_argument("--precision", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    budget = load_budget("video-30fps" if options.device == "cuda" else "video-10fps-cpu")
    network = network_of(options.preset, options.device, options.precision)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{options.preset}: {parameters / 1e6:.1f} M parameters, {options.precision}, {options.device}")
    document = {
        "machine": describe_machine(),
        "preset": options.preset,
        "parameters": parameters,
        "precision": options.precision,
        "frames": options.frames,
        "rows": rows_of(options, network, budget),
    }
    write_whole(options.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
