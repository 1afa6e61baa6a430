"""Stream video without end: on a page that you steer with the arrow keys, or into a file."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from .. import accel
from ..errors import InputError
from ..files import check_place, write_whole
from ..runtime import describe_machine, load_budget
from ..video import STREAM_PLANS, Stream, VideoCheckpoint, load_video_checkpoint, stream_plan
from ..video.player import Player
from ..video.recording import Recording
from ..video.session import Record, Session, draw, measure_reaction, warm_up
from ..video.steering import steered, wandering
from .families import ASSETS, check_device
from .progress import progress_bar

MODEL = ASSETS / "space-time-transformer" / "arm-and-ball"
SERVED_AT = "127.0.0.1:8000"
USUAL_FRAMES, USUAL_FPS = 300, 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick stream`."""
    parser.add_argument("--model", type=Path, default=MODEL, help="video checkpoint (default: the shipped one)")
    parser.add_argument("--plan", choices=STREAM_PLANS, default="rolling", help="the sampler")
    parser.add_argument("--stagger", type=int, help="solver steps that a frame lags behind the one before")
    parser.add_argument("--steps", type=int, help="solver steps of a frame (default: the plan's)")
    parser.add_argument("--frames", type=int, help="frames to show, or to draw (default: without end; 300 of a file)")
    parser.add_argument("--fps", type=float, help="frames a second of the page and the file (default: the scene's)")
    parser.add_argument("--out", type=Path, metavar="FILE.mp4", help="draw into this file, as fast as frames come")
    parser.add_argument("--serve", metavar="HOST:PORT", help=f"show on a page (default without --out: {SERVED_AT})")
    parser.add_argument("--seed", type=int, default=0, help="of all noise, and of the actions while nobody steers")
    parser.add_argument("--budget", help="latency budget (default: video-10fps-cpu, video-30fps on a GPU)")
    parser.add_argument("--backend", choices=("best", "eager", "openvino"), default="best", help="what runs it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to draw")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")


def run(options: argparse.Namespace) -> int:
    """Draw or show, and tell what it was like."""
    _check(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    checkpoint = load_video_checkpoint(options.model, options.device)
    if checkpoint.values.kind != "rgb" or checkpoint.network.config.channels != 3:
        raise InputError(f"{options.model} draws no pictures but {checkpoint.values.kind}; nothing can show them")
    fps = options.fps or float(checkpoint.about.get("fps", USUAL_FPS))
    budget = load_budget(options.budget or ("video-30fps" if options.device == "cuda" else "video-10fps-cpu"))
    stream = open_stream(checkpoint, options)
    record = Record()
    interrupted = False
    try:
        if options.out and not options.serve:
            _draw(options, checkpoint, stream, fps, record)
        else:
            record = _serve(options, checkpoint, stream, fps, budget)
    except KeyboardInterrupt:
        interrupted = True
    told = record.told(budget)
    _print(told, options, stream)
    if options.json:
        plan = stream.plan.plan
        run_of = {"plan": plan.name, "steps": plan.grid.steps, "stagger": plan.stagger, "block": plan.block}
        run_of |= {"backend": stream.program.backend, "device": options.device, "seed": options.seed}
        document = {**told, **run_of, "fps_wanted": fps, "model": options.model.name, "machine": describe_machine()}
        write_whole(options.json, json.dumps(document, indent=1) + "\n")
    if interrupted and options.out:
        saved = f"{record.frames} frames are saved in {options.out}" if record.frames else "nothing was drawn yet"
        print(f"ontick: interrupted; {saved}", file=sys.stderr)
        return 1
    return 0


def open_stream(checkpoint: VideoCheckpoint, options: argparse.Namespace) -> Stream:
    """The stream that the options ask for."""
    network = checkpoint.network
    plan = stream_plan(options.plan, network.schedule, network.frames, steps=options.steps, stagger=options.stagger)
    backend = options.backend
    if backend == "best" and plan.plan.view != "all":
        backend = "eager"  # several calls a tick
    return Stream(
        network,
        dataclasses.replace(plan, plan=dataclasses.replace(plan.plan, backend=backend)),
        (network.config.channels, network.config.size, network.config.size),
        seeds=[options.seed],
        action_dim=network.config.action_dim,
        **checkpoint.prompt(options.seed),
        device=options.device,
        build=accel.build,
    )


def _check(options: argparse.Namespace) -> None:
    for name, least in (("frames", 1), ("threads", 1), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}, wanted at least {least}")
    if options.seed >= 2**62:
        raise InputError(f"--seed is {options.seed}, wanted less than 2**62")
    if options.fps is not None and not 0.1 <= options.fps <= 240:
        raise InputError(f"--fps is {options.fps:g}, wanted 0.1 to 240")
    if options.out and options.out.suffix != ".mp4":
        raise InputError(f"got --out {options.out}, wanted a name that ends with .mp4")
    if options.out and options.serve:
        raise InputError("got --out and --serve: a file takes every frame as fast as it comes, a page one a period")
    if options.json:
        check_place(options.json)
    check_device(options.device)


def _draw(options: argparse.Namespace, checkpoint: VideoCheckpoint, stream: Stream, fps: float, record: Record) -> None:
    frames, width = options.frames or USUAL_FRAMES, checkpoint.network.config.action_dim
    from ..runtime import WallClock

    clock = WallClock()

    def steer(frame: int) -> torch.Tensor | None:
        return wandering(options.seed, frame, width) if width else None

    with Recording(options.out, fps) as film, progress_bar(frames, str(options.out), "frame") as bar:
        bar.set_postfix_str("warming up")
        warm_up(stream, steer, clock, record)
        if width:
            probe = stream.fork()
            probe.advance(steer(0))
            measure_reaction(probe, *_probes(width), clock, record)

        bar.set_postfix_str("")

        def progress(so_far: Record) -> None:
            bar.update(so_far.frames - bar.n)

        draw(stream, checkpoint.values, frames, steer, [film.write], record, progress, clock)
    print(f"video: {options.out}")


def _serve(options: argparse.Namespace, checkpoint: VideoCheckpoint, stream: Stream, fps: float, budget: Any) -> Record:
    host, port = _address(options.serve or SERVED_AT)
    width, hands = checkpoint.network.config.action_dim, _Hands(options.seed, checkpoint.network.config.action_dim)
    with Player(host, port, on_keys=hands.hold) as player:
        session = Session(stream, checkpoint.values, fps, hands.steer, player.show, budget)
        hands.changed = session.changed
        print(f"{player.url}: arrow keys or WASD steer; Ctrl-C ends; warming up first", flush=True)
        try:
            session.run(options.frames, _probes(width) if width else None)
        except KeyboardInterrupt:
            session.stop()
        return session.record


class _Hands:
    """The action: what the held keys say; until a key was ever held, a wandering one."""

    def __init__(self, seed: int, action_dim: int) -> None:
        self._seed, self._dim = seed, action_dim
        self._keys: set[str] | None = None
        self.changed = lambda: None

    def hold(self, keys: set[str]) -> None:
        """Called by the page's thread."""
        self._keys = set(keys)
        self.changed()

    def steer(self, frame: int) -> torch.Tensor | None:
        if not self._dim:
            return None
        return wandering(self._seed, frame, self._dim) if self._keys is None else steered(self._keys, self._dim)


def _probes(action_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two actions that differ as much as can be."""
    return torch.ones(action_dim), -torch.ones(action_dim)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise InputError(f"got --serve {text}, wanted HOST:PORT such as {SERVED_AT}")
    return host.strip("[]"), int(port)


def _print(told: dict[str, Any], options: argparse.Namespace, stream: Stream) -> None:
    times, budget = told["frame_ms"], told["budget"]
    reaction = "" if told["reaction_ms"] is None else f"; reaction {told['reaction_ms']:.0f} ms"
    print(
        f"{options.plan}: {told['frames']} frames, {told['fps']:.1f} a second, {told['calls_per_frame']:.2f} calls a "
        f"frame ({stream.program.backend}); first frame {told['first_frame_ms']:.0f} ms, after a "
        f"warm-up of {told['warm_up_ms']:.0f} ms{reaction}"
    )
    print(
        f"between frames p50 {times['p50']:.1f}, p99 {times['p99']:.1f}, max {times['max']:.1f} ms; "
        f"{told['repeats']} repeats; budget {budget['name']} {'met' if budget['met'] else 'missed'}; memory "
        f"{told['peak_bytes_start'] / 2**20:.0f} MiB at the start, {told['peak_bytes_end'] / 2**20:.0f} MiB at the end"
    )
