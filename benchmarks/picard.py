"""Parallel in time against one step after another: what an iteration of P steps costs, how many a chunk takes, and what
a chunk takes beside the sequential ones. One lane.

    python benchmarks/picard.py [--device cuda] [--checkpoint FOLDER] [--windows 8,16,32,100] [--n 20] [--out FILE.json]

All chunks of a sampler are timed in one process in turn: the plain one, the exact stack on the best backend here (or
on --backend), and `exact-picard-P` on the same. `-warm` rows are told another answer to the same observation, which is
more than a policy can know. An iteration's cost is that of a chunk which never looks back (an endless tolerance), a
step of the exact stack being a window of one. Draws a picture beside the JSON.
"""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ontick import accel
from ontick.benchmarks.picture import OUR_COLOUR, PEER_COLOUR, pyplot
from ontick.benchmarks.policy import TRAINED, interleaved, percentiles, subject
from ontick.diffusion import Plan, load_plan, run_chunk
from ontick.files import write_whole
from ontick.policy import ActionNetwork, load_checkpoint
from ontick.runtime import describe_machine

HERE = Path(__file__).resolve().parent
SAMPLERS = ("ddpm-100", "ddim-15")
WIDTHS = (1, 4, 8, 16, 32)
ENDLESS = 1e9
SEED = torch.tensor([7])
CHUNKS = 16


class Rival:
    """A plan that answers; `warm`: told another answer, of the plain sampler."""

    def __init__(self, plan: Plan, network: ActionNetwork, device: torch.device, teller: "Rival | None" = None) -> None:
        c = network.config
        self.name, self._teller = plan.name, teller
        self.program = accel.build(network, plan, (c.action_dim,), c.horizon, device=str(device))
        self._known: dict[int, Tensor] = {}

    def answer(self, obs: Tensor, birth: int) -> Tensor:
        """[1, T, Da]"""
        context = self.program.prepare(obs)
        return run_chunk(self.program, context, SEED, torch.tensor([birth]), self._guess(obs), obs.device)

    def _guess(self, obs: Tensor) -> Tensor | None:
        """Made once an observation, in the round that is not timed."""
        if self._teller is None:
            return None
        if id(obs) not in self._known:
            self._known[id(obs)] = self._teller.answer(obs, -1).clone()
        return self._known[id(obs)]


def sequential(sampler: str, backend: str) -> Plan:
    return dataclasses.replace(load_plan(f"exact-{sampler}"), backend=backend)


def parallel(sampler: str, window: int, backend: str, warm: bool = False, **settings: Any) -> Plan:
    """`exact-picard-P-...` with other settings."""
    plan = load_plan(f"exact-picard-{window}-{sampler}{'-warm' if warm else ''}")
    accelerators = {**plan.accelerators, "picard": {**plan.accelerators["picard"], **settings}}
    return dataclasses.replace(plan, accelerators=accelerators, backend=backend)


def rivals_of(
    sampler: str, windows: list[int], network: ActionNetwork, device: torch.device, backend: str = "best"
) -> list[Rival]:
    """The plain sampler, the exact stack, and a cold and a warm one of each window that the sampler has steps for."""
    plain = Rival(load_plan(sampler), network, device)
    steps = plain.program.grid.steps
    made = [plain, Rival(sequential(sampler, backend), network, device)]
    for window in sorted({min(window, steps) for window in windows}):
        made.append(Rival(parallel(sampler, window, backend), network, device))
        made.append(Rival(parallel(sampler, window, backend, warm=True), network, device, plain))
    return made


def counted(rivals: list[Rival], observations: list[Tensor], rows: slice) -> list[dict[str, Any]]:
    """Mean iterations and evaluations of a chunk, and its distance from the plain one at the same noise."""
    wanted = [rivals[0].answer(obs, i)[:, rows].clone() for i, obs in enumerate(observations)]
    told = []
    for rival in rivals:
        spent, errors = [], []
        for i, obs in enumerate(observations):
            errors.append(rival.answer(obs, i)[:, rows] - wanted[i])
            spent.append(_spent(rival))
        iterations, evaluations = np.mean(spent, 0).tolist()
        error = torch.cat(errors).double()
        told.append(
            {
                "plan": rival.name,
                "backend": rival.program.backend,
                "iterations": iterations,
                "evaluations": evaluations,
                "action_rms": error.square().mean().sqrt().item(),
                "action_error": error.abs().max().item(),
            }
        )
    return told


def _spent(rival: Rival) -> tuple[int, int]:
    spent = rival.program.executor.spent if rival.program.executor else None
    calls = rival.program.calls
    return (calls, calls) if spent is None else (int(spent.iterations), int(spent.evaluations))


def iteration_ms(
    network: ActionNetwork, observations: list[Tensor], device: torch.device, n: int, backend: str = "best"
) -> dict[str, float]:
    """Width -> p50 of one iteration of that many steps; 1: of a step of the exact stack."""
    steps, sampler = 100, "ddpm-100"
    rivals = [Rival(sequential(sampler, backend), network, device)]
    rivals += [Rival(parallel(sampler, width, backend, tolerance=ENDLESS), network, device) for width in WIDTHS[1:]]
    times = interleaved(rivals, observations, device, n, lambda: None)  # type: ignore[arg-type]
    iterations = [steps if width == 1 else math.ceil(steps / width) for width in WIDTHS]
    return {
        str(width): float(np.median(times[rival.name])) * 1e3 / count
        for width, rival, count in zip(WIDTHS, rivals, iterations, strict=True)
    }


def measured(
    network: ActionNetwork,
    observations: list[Tensor],
    device: torch.device,
    windows: list[int],
    n: int,
    backend: str = "best",
) -> dict[str, Any]:
    """{"iteration_ms", "rows"}: a row a sampler and plan."""
    c = network.config
    executed, rows = slice(network.first_row, network.first_row + c.n_action_steps), []
    for sampler in SAMPLERS:
        rivals = rivals_of(sampler, windows, network, device, backend)
        told = counted(rivals, observations, executed)
        times = interleaved(rivals, observations, device, n, lambda: None)  # type: ignore[arg-type]
        for row in told:
            rows.append({"sampler": sampler, **row, "ms": percentiles(times[row["plan"]])})
    return {"iteration_ms": iteration_ms(network, observations, device, n, backend), "rows": rows}


def draw(document: dict[str, Any], path: Path) -> None:
    """What an iteration costs by its width, and a bar a chunk."""
    plt = pyplot()
    rows = document["rows"][::-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 1.5 + 0.3 * len(rows)), width_ratios=(1, 2))
    widths = [int(width) for width in document["iteration_ms"]]
    left.plot(widths, list(document["iteration_ms"].values()), "o-", color=OUR_COLOUR)
    left.set_xlabel("steps in one network call")
    left.set_ylabel("one iteration, p50 [ms]")
    left.set_ylim(bottom=0)
    p50 = [row["ms"]["p50"] for row in rows]
    colours = [OUR_COLOUR if "picard" in row["plan"] else PEER_COLOUR for row in rows]
    right.barh(range(len(rows)), p50, color=colours, height=0.68)
    for i, row in enumerate(rows):
        text = f" {p50[i]:.3g} ms, {row['iterations']:.1f} calls, {row['evaluations']:.0f} evaluations"
        right.text(p50[i], i, text, va="center", fontsize=8)
    right.set_yticks(range(len(rows)), [f"{row['plan']}  ({row['backend']})" for row in rows], fontsize=8)
    right.set_xlim(0, max(p50) * 1.5)
    right.set_xlabel("one chunk, one lane, p50 [ms]")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{document['device']}, {document['machine']['threads']} threads", x=0.01, ha="left", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _subject(folder: Path, device: torch.device) -> tuple[ActionNetwork, list[Tensor]]:
    """A checkpoint's network and observations of its task, [1, To, Do] each: shipped ones, or of episodes played."""
    if folder.resolve() == TRAINED.resolve():
        return subject("published", device)
    from ontick.commands.observations import played

    checkpoint = load_checkpoint(folder)
    observations = played(checkpoint, CHUNKS, 2).to(device)
    return load_checkpoint(folder, device).network, list(observations[:, None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=TRAINED, metavar="FOLDER")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backend", default="best", help="of the exact plans (default: best)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--windows", default="8,16,32,100", metavar="P,P")
    parser.add_argument("--n", type=int, default=20, help="chunks a row")
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="over which iterations and errors are taken")
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help="default: results/picard-DEVICE.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    windows = [int(window) for window in options.windows.split(",")]
    with torch.inference_mode():
        network, observations = _subject(options.checkpoint, device)
        document = measured(network, observations[: options.chunks], device, windows, options.n, options.backend)
    machine = describe_machine()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine["cpu"]
    document = {"machine": machine, "device": name, "checkpoint": options.checkpoint.name, **document}
    out = options.out or HERE / "results" / f"picard-{options.device}.json"
    write_whole(out, json.dumps(document, indent=1) + "\n")
    draw(document, out.with_suffix(".png"))
    for width, ms in document["iteration_ms"].items():
        print(f"{width:>4} steps in a call: {ms:8.3f} ms")
    for row in document["rows"]:
        spent = f"{row['iterations']:6.1f} calls {row['evaluations']:6.0f} evaluations"
        print(f"{row['plan']:34} {row['backend']:9} {row['ms']['p50']:8.2f} ms {spent}  rms {row['action_rms']:.1e}")
    print(f"json: {out}")


if __name__ == "__main__":
    main()
