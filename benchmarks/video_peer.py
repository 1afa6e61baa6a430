"""Clips of the SkyReels-V2 diffusion-forcing transformer: our engine beside diffusers' own pipeline, at equal random
weights and equal noise, in one process in turn.

    python benchmarks/video_peer.py --out FILE.json [--size tiny|20m|both] [--device cpu|cuda] [--rounds R] [--frames N]

    a  the pipeline, every frame seeing all, each `ar_step` levels behind the one before
    b  ours, the same plan, eager
    c  ours, the same plan, on the best backend here
    d  the pipeline, block-causal, a block after another; it shows all frames in every call
    e  ours, the same plan: a call shows the block that moves, beside remembered keys and values of the clean ones
    f  e, and every branch is computed at every k-th level of a block alone (block caching, f-k)

A clip's time is all of it, the prompt's embeddings being given: the pipeline's schedulers as well as our preparing and
remembering. Frames are latent ones. `calls_per_frame` counts the calls that remember, too. `max_difference` is from the
pipeline's latents, `error` of f from those of e, as root mean squares: relative to the latents, and to what denoising
changed, which says more of weights that never were trained. Times are p50, p99 (from 50 rounds on) and max.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ontick import accel
from ontick._torchvision import ensure_torchvision
from ontick.accel.caching.staggered import cached_ticks
from ontick.benchmarks.policy import interleaved, percentiles
from ontick.diffusion import Grid, GridSpec, Inputs, Plan, Program, Rows, build
from ontick.errors import InputError
from ontick.files import write_whole
from ontick.runtime import describe_machine
from ontick.video.contract import Memory, Sight
from ontick.video.skyreels import SkyReelsDenoiser

LABELS, SEED, STEPS, STAGGER, BLOCK, SHIFT = 1000, 7, 8, 1, 4, 3.0
PIXELS, PIXEL_FRAMES = 8, 4  # of a latent one, as the pipeline has them without an autoencoder
EVERY = (2, 3, 4)  # levels from one computation of the branches to the next
ALLOWED = 0.05  # error of what denoising changed, of the schedule that is picked


class Size(NamedTuple):
    """side: height and width of a latent frame; words: tokens of the prompt; the rest of the transformer."""

    side: int
    words: int
    heads: int
    head_width: int
    text_width: int
    inner: int
    layers: int


CHANNELS = 4
SIZES = {"tiny": Size(8, 16, 2, 12, 16, 32, 2), "20m": Size(16, 77, 6, 64, 256, 1536, 8)}


class Case(NamedTuple):
    """What is denoised: a prompt [1, S, text_dim] and `frames` frames of noise, drawn anew for each clip."""

    size: Size
    frames: int
    prompt: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        return CHANNELS, self.size.side, self.size.side

    @property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(SEED)

    def noise(self) -> Tensor:
        """[1, N, C, H, W]: what the pipeline draws from `generator`."""
        noise = torch.randn(1, CHANNELS, self.frames, *self.shape[1:], generator=self.generator)
        return noise.transpose(1, 2).to(self.prompt.device)


def transformer(size: Size, device: torch.device) -> Any:
    """Diffusers' transformer at random weights."""
    ensure_torchvision()
    from diffusers import SkyReelsV2Transformer3DModel

    torch.manual_seed(SEED)
    model = SkyReelsV2Transformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=size.heads,
        attention_head_dim=size.head_width,
        text_dim=size.text_width,
        ffn_dim=size.inner,
        num_layers=size.layers,
    )
    return model.eval().requires_grad_(False).to(device)


def peer_pipeline(model: Any, grid: Grid) -> Any:
    """Diffusers' pipeline for embeddings and latents alone, with Euler steps on a flow grid of ours.

    The pipeline cuts timesteps to whole numbers, hands these on to the scheduler, which takes none, and tells frames
    that do not move yet 999: so the scheduler is asked by a number that it does not read, and starts at 999 as well.
    """
    ensure_torchvision()
    from diffusers import FlowMatchEulerDiscreteScheduler, SkyReelsV2DiffusionForcingPipeline

    sigmas = grid.sigma[:0:-1]
    told = np.minimum(np.floor(sigmas.astype(np.float32) * np.float32(LABELS)), LABELS - 1)

    class Euler(FlowMatchEulerDiscreteScheduler):
        def set_timesteps(self, num_inference_steps: Any = None, device: Any = None, **others: Any) -> None:
            if num_inference_steps != len(sigmas):
                raise InputError(f"{num_inference_steps} steps of a grid that has {len(sigmas)}")
            super().set_timesteps(sigmas=list(sigmas), timesteps=list(told), device=device)
            self.set_begin_index(0)

        def step(self, model_output: Any, timestep: Any, sample: Any, **others: Any) -> Any:
            return super().step(model_output, timestep.float(), sample, **others)

    made = SkyReelsV2DiffusionForcingPipeline(None, None, model, None, Euler())  # type: ignore[arg-type]
    made.set_progress_bar_config(disable=True)
    return made


class Peer:
    """Diffusers' pipeline. block: of the causal mask; 1: every frame sees all. `calls` is known after a clip."""

    against, backend = None, "diffusers, eager"

    def __init__(self, name: str, case: Case, model: Any, grid: Grid, ar_step: int, block: int) -> None:
        self.name, self.case, self.calls = name, case, 0
        self._pipeline, self._steps = peer_pipeline(model, grid), grid.steps
        self._ar_step, self._block = ar_step, block

    def answer(self, prompt: Tensor, birth: int = 0) -> None:
        case, pixels = self.case, PIXELS * self.case.size.side
        count = PIXEL_FRAMES * (case.frames - 1) + 1
        made = self._pipeline(
            prompt=None,
            prompt_embeds=prompt,
            height=pixels,
            width=pixels,
            num_frames=count,
            base_num_frames=count,
            num_inference_steps=self._steps,
            ar_step=self._ar_step,
            causal_block_size=self._block,
            guidance_scale=1.0,
            generator=case.generator,
            output_type="latent",
        )
        self.calls, self.clip = self._pipeline.num_timesteps, made.frames.transpose(1, 2)


class Ours:
    """A finite program: every call shows all frames."""

    def __init__(self, name: str, case: Case, program: Program, against: str) -> None:
        self.name, self.case, self.program, self.against = name, case, program, against
        self.calls = program.calls

    @property
    def backend(self) -> str:
        return self.program.backend

    def answer(self, prompt: Tensor, birth: int = 0) -> None:
        state = _start(self.program, prompt)._replace(x=self.case.noise())
        inputs = Inputs(self.program.prepare(prompt))
        for _ in range(self.program.ticks):
            state, _ = self.program.tick(state, inputs)
        self.clip = state.x


class Remembering:
    """An endless program, one block in flight: a call shows that, and remembers the clean ones. every: levels from one
    computation of the branches to the next; 1: none is left out."""

    backend, against = "eager", "d"

    def __init__(self, name: str, case: Case, network: SkyReelsDenoiser, plan: Plan, every: int = 1) -> None:
        self.name, self.case, self.every = name, case, every
        program = build(network.causal(plan.block), plan, case.shape, None)
        self.program = program if every == 1 else cached_ticks(program, _every(network, plan, every))
        blocks = case.frames // plan.block
        self.calls = blocks * (program.grid.steps + 1) - 1  # the last block is not remembered

    def answer(self, prompt: Tensor, birth: int = 0) -> None:
        program, noise, count = self.program, self.case.noise(), self.case.frames
        b, network, context = program.plan.block, program.denoiser, program.prepare(prompt)
        assert isinstance(network, SkyReelsDenoiser)
        first, there = torch.zeros_like(noise[:, 0, 0, 0, 0], dtype=torch.int64), torch.ones_like(noise[:, :, 0, 0, 0])
        state, held, out = _start(program, prompt), None, torch.empty_like(noise)
        for start in range(0, count, b):
            memory = None if held is None else Memory(held[:, :start], there[:, :start].bool())
            sight, state = Sight(first, memory), state._replace(x=noise[:, start : start + b])
            for _ in range(program.grid.steps):
                state, outputs = program.tick(state, Inputs(context, state=sight))
            out[:, start : start + b] = outputs.x
            if start + b < count:
                rows = Rows(outputs.index.to(noise.device), None, sight)
                new = network.remember(outputs.x, torch.zeros_like(there[:, :b]), context, rows)
                held = new.new_empty(1, count, *new.shape[2:]) if held is None else held
                held[:, start : start + b] = new
        self.clip = out


def _start(program: Program, prompt: Tensor) -> Any:
    key = torch.tensor([SEED])
    return program.start(key, key, device=prompt.device)


def _every(network: SkyReelsDenoiser, plan: Plan, every: int) -> np.ndarray:
    """[blocks, S] bool: all branches at a block's first level and at every so many after it."""
    column = np.arange(plan.grid.steps) % every == 0
    return np.repeat(column[None], len(network.blocks()), 0)


def rivals_of(case: Case, model: Any) -> list[Any]:
    """Rows a to f of the module's docstring. Each leaves its last clip [1, N, C, H, W] in `clip`."""
    device = case.prompt.device
    network = SkyReelsDenoiser.from_diffusers(model, case.shape[1:], frames=case.frames, whole_timesteps=True)
    grid = GridSpec(kind="flow", steps=STEPS, shift=SHIFT)
    mixed = Plan(name="ad", grid=grid, solver="euler", stagger=STAGGER)
    blocks = Plan(name="blocks", grid=grid, solver="euler", stagger=STEPS, block=BLOCK)
    plain = build(network, mixed, case.shape, case.frames)
    best = accel.build(network, dataclasses.replace(mixed, backend="best"), case.shape, case.frames, device=str(device))
    return [
        Peer("a", case, model, plain.grid, STAGGER, 1),
        Ours("b", case, plain, "a"),
        Ours("c", case, best, "a"),
        Peer("d", case, model, plain.grid, STEPS, BLOCK),
        Remembering("e", case, network, blocks),
        *(Remembering(f"f-{every}", case, network, blocks, every) for every in EVERY),
    ]


def measured(name: str, frames: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """All rows of a size. Raises InputError where the frames do not divide into blocks."""
    if frames < 2 * BLOCK or frames % BLOCK:
        raise InputError(f"frames are {frames}, wanted a multiple of {BLOCK} from {2 * BLOCK} on")
    size = SIZES[name]
    model = transformer(size, device)
    words = torch.randn(1, size.words, size.text_width, generator=torch.Generator().manual_seed(SEED))
    case = Case(size, frames, words.to(device))
    rivals = rivals_of(case, model)
    times = interleaved(rivals, [case.prompt], device, rounds, lambda: None)
    clips = {rival.name: rival.clip for rival in rivals}
    rows = [_row(rival, times, clips, case) for rival in rivals]
    return {
        "size": name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "frames": frames,
        "latents": [*case.shape],
        "tokens_per_frame": (size.side // 2) ** 2,
        "plan": {"steps": STEPS, "shift": SHIFT, "stagger": STAGGER, "block": BLOCK},
        "rows": rows,
        "picked": picked(rows),
    }


def _row(rival: Any, times: dict[str, np.ndarray], clips: dict[str, Tensor], case: Case) -> dict[str, Any]:
    per_frame = {name: seconds / case.frames for name, seconds in times.items()}
    against, clip = rival.against or rival.name, clips[rival.name]
    ms = {**percentiles(per_frame[rival.name]), "max": float(per_frame[rival.name].max() * 1e3)}
    cached = isinstance(rival, Remembering) and rival.every > 1
    return {
        "row": rival.name,
        "against": against,
        "ran": rival.backend,
        "calls_per_frame": rival.calls / case.frames,
        "ms_per_frame": ms,
        "n": ms["n"],
        "ratio": float(np.median(per_frame[against]) / np.median(per_frame[rival.name])),
        "max_difference": (clip - clips[against]).abs().max().item(),
        "error": _error(clip, clips["e"], case.noise()) if cached else None,
    }


def _error(clip: Tensor, wanted: Tensor, noise: Tensor) -> dict[str, float]:
    missed, total, change = ((x.double() ** 2).mean().sqrt() for x in (clip - wanted, wanted, wanted - noise))
    return {"of_latents": (missed / total).item(), "of_change": (missed / change).item()}


def picked(rows: list[dict[str, Any]]) -> str | None:
    """The fastest cached row whose error of what denoising changed is at most `ALLOWED`; None where there is none."""
    good = [row for row in rows if row["error"] and row["error"]["of_change"] <= ALLOWED]
    return max(good, key=lambda row: row["ratio"])["row"] if good else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=(*SIZES, "both"), default="both")
    parser.add_argument("--rounds", type=int, default=10, metavar="R", help="clips of every row, after one apart")
    parser.add_argument("--frames", type=int, default=24, metavar="N", help=f"latent ones, a multiple of {BLOCK}")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device, sizes = torch.device(options.device), tuple(SIZES) if options.size == "both" else (options.size,)
    with torch.inference_mode():
        cases = [measured(name, options.frames, options.rounds, device) for name in sizes]
    machine = describe_machine()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine["cpu"]
    document = {"machine": machine, "device": name, "threads": torch.get_num_threads(), "cases": cases}
    write_whole(options.out, json.dumps(document, indent=1) + "\n")
    print(f"{name}, {options.threads} threads")
    for case in cases:
        print(f"{case['size']}: {case['parameters']} parameters, {case['frames']} frames, picked {case['picked']}")
        for row in case["rows"]:
            print(_line(row))
    print(f"json: {options.out}")


def _line(row: dict[str, Any]) -> str:
    error = "" if row["error"] is None else f"  error {row['error']['of_change']:.1e} of the change"
    calls, ms = row["calls_per_frame"], row["ms_per_frame"]["p50"]
    return (
        f"  {row['row']:4} {row['ran']:17} {calls:6.2f} calls {ms:9.2f} ms a frame"
        f"  {row['ratio']:6.2f} x {row['against']}  differs by {row['max_difference']:.1e}{error}"
    )


if __name__ == "__main__":
    main()
