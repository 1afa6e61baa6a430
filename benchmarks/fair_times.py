"""The time of an answer of every plan of an evaluation, taken in turn on a quiet machine, put into the evaluation.

python benchmarks/fair_times.py benchmarks/results/fair-avoid-cpu.json ...

Evaluations may run beside each other, and then what they time is not what a plan costs. This times all policies of each
file at batch 1, one thread, A B C A B C ..., as they answer one observation after another, and writes p50, p99 and n
into each row's `chunk_ms`. Beside them `peer-ddpm-100` is timed: what a user would run today, at the same weights.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ontick.benchmarks.contestants import Peer
from ontick.benchmarks.policy import interleaved, percentiles
from ontick.commands.families import (
    ASSETS,
    candidate_of,
    checkpoint_for,
    fingerprint,
    policy_maker,
    with_schedule_of,
)
from ontick.commands.observations import played
from ontick.commands.progress import progress_bar
from ontick.diffusion import Plan, build, load_plan
from ontick.errors import InputError
from ontick.files import write_whole
from ontick.policy import TransformerForDiffusion, load_checkpoint
from ontick.runtime import Policy, describe_machine, load_budget

ANSWERS = 60
PEER = "peer-ddpm-100"


class Served(NamedTuple):
    """A policy that answers lane 0."""

    name: str
    policy: Policy

    def answer(self, obs: Tensor, birth: int) -> None:
        self.policy.predict_action_chunk(obs.numpy(), [0])


def served(task: str, plan: dict[str, Any] | str) -> Served:
    """What `ontick evaluate` runs at a task for a plan of its request."""
    candidate = candidate_of(plan if isinstance(plan, str) else Plan.from_dict(plan))
    checkpoint = checkpoint_for(task, candidate, None)
    policy = policy_maker(with_schedule_of(candidate, checkpoint), checkpoint)(1)
    policy.reset([0], [0])
    return Served(candidate.name, policy)


class StockPeer(NamedTuple):
    """The stock network and scheduler at a task's published weights; it is given observations as they are."""

    name: str
    peer: Peer
    normalise: Any

    def answer(self, obs: Tensor, birth: int) -> None:
        self.peer.answer(self.normalise("obs", obs), birth)


def stock_peer(folder: Path) -> StockPeer:
    checkpoint = load_checkpoint(folder)
    network, config = checkpoint.network, checkpoint.network.config
    assert isinstance(network, TransformerForDiffusion), "the folder is of that family"
    plain = build(network, load_plan("ddpm-100"), (config.action_dim,), config.horizon)
    return StockPeer(PEER, Peer("ddpm", 100, network, plain), checkpoint.normaliser.normalise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", metavar="FILE")
    torch.set_num_threads(1)
    for file in parser.parse_args().evaluations:
        document = json.loads(Path(file).read_text())
        [task] = {row["task"] for row in document["rows"]}
        folder = ASSETS / "diffusion-transformer" / task.replace("/", "-")
        shipped = {fingerprint(path) for path in ASSETS.glob(f"*/{folder.name}")}
        if any(row["checkpoint"] not in shipped for row in document["request"]["rows"]):
            got = f"{file} was played with other checkpoints than are shipped now, or other files beside them"
            raise InputError(f"{got}, and the shipped ones would be timed: evaluate it again")
        checkpoint = load_checkpoint(folder)
        obs = list(checkpoint.normaliser.unnormalise("obs", played(checkpoint, 8, 2))[:, None])
        played_plans = {row["plan"] for row in document["rows"]}
        rivals: list[Any] = [served(task, row["plan"]) for row in document["request"]["rows"]]
        rivals = [rival for rival in rivals if rival.name in played_plans] + [stock_peer(folder)]
        with torch.inference_mode(), progress_bar(ANSWERS + 1, task, "round") as bar:
            times = interleaved(rivals, obs, torch.device("cpu"), ANSWERS, bar.update)
        budget = load_budget(document["budget"]["name"])
        document["retimed"] = {"machine": describe_machine(), "answers": ANSWERS, PEER: percentiles(times[PEER])}
        for row in (row for row in document["rows"] if row["plan"] in times):
            seconds = times[row["plan"]]
            row["chunk_ms"] = {**percentiles(seconds), "max": float(np.max(seconds) * 1e3)}
            row["latency_ms"] = np.round(seconds * 1e3, 3).tolist()
            row["met"], row["misses"] = budget.met(seconds), int((seconds > budget.deadline_s).sum())
            print(f"{row['plan']:24} {row['chunk_ms']['p50']:7.2f} ms p50, {row['chunk_ms']['p99']:7.2f} p99")
        write_whole(file, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
