"""The time of an answer of several policies, taken in turn on a quiet machine, one thread, batch 1.

    python benchmarks/chunk_times.py runs/lift-t=exact runs/lift-t=ddim-10 runs/lift-bc=robomimic-bc \\
        --data runs/lift.hdf5 --json benchmarks/results/lift-times-cpu.json

What stands before the `=` is a checkpoint, behind it the plan. All answer the same observations, of demonstrations. Of
a policy that looks at pictures the time of their encoding, which is part of the answer's, is told too.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ontick.benchmarks.policy import interleaved, percentiles
from ontick.commands.families import parse_candidate, policy_maker, with_schedule_of
from ontick.commands.progress import progress_bar
from ontick.commands.timing import sees, timed
from ontick.envs.dataset import read_demonstrations
from ontick.errors import InputError
from ontick.files import write_whole
from ontick.runtime import Policy, describe_machine

SEEN = 16  # observations, answered one after another


class Served(NamedTuple):
    """A policy that answers lane 0, with as many of the newest observations as it takes."""

    name: str
    policy: Policy
    encoded_s: list[float]  # of every answer, where it looks at pictures

    def answer(self, obs: Tensor, birth: int) -> None:
        self.policy.predict_action_chunk(obs[:, -self.policy.n_obs_steps :].numpy(), [0])


def served(row: str) -> Served:
    checkpoint, equals, plan = row.rpartition("=")
    if not equals:
        raise InputError(f"got {row}, wanted CHECKPOINT=PLAN")
    folder = Path(checkpoint)
    policy = policy_maker(with_schedule_of(parse_candidate(plan), folder), folder)(1)
    policy.reset([0], [0])
    encoded_s: list[float] = []
    if sees(policy):
        network = policy.program.denoiser
        network.prepare = timed(network.prepare, encoded_s)
    return Served(row, policy, encoded_s)


def windows(path: Path) -> list[Tensor]:
    """[1, 2, Do] each, evenly over the episodes."""
    data = read_demonstrations(path)
    episodes = np.linspace(0, len(data) - 1, SEEN).astype(int)
    return [torch.from_numpy(data.window(i, int(data.lengths[i]) // 2, 2)[0])[None] for i in episodes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", metavar="CHECKPOINT=PLAN")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    contestants = [served(row) for row in options.rows]
    with torch.inference_mode(), progress_bar(options.answers + 1, str(options.data), "round") as bar:
        times = interleaved(contestants, windows(options.data), torch.device("cpu"), options.answers, bar.update)
    encoded = {each.name: np.array(each.encoded_s[1:]) for each in contestants if each.encoded_s}  # not the first round
    told = {"chunk_ms": summaries(times)}
    if encoded:
        denoised = {name: times[name] - seconds for name, seconds in encoded.items()}
        told |= {"encode_ms": summaries(encoded), "denoise_ms": summaries(denoised)}
    for name, ms in told["chunk_ms"].items():
        p99 = "-" if ms["p99"] is None else f"{ms['p99']:.2f}"
        encode = f", encoding p50 {told['encode_ms'][name]['p50']:.2f} of it" if name in encoded else ""
        print(f"{name:40} p50 {ms['p50']:8.2f} ms, p99 {p99}, n = {ms['n']}{encode}")
    if options.json is not None:
        write_whole(options.json, json.dumps({"machine": describe_machine(), **told}, indent=1) + "\n")


def summaries(times: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """ms of each row, of times [n] in s."""
    return {name: {**percentiles(seconds), "max": float(seconds.max() * 1e3)} for name, seconds in times.items()}


if __name__ == "__main__":
    main()
