"""Which policy a plan means: its family, the checkpoint shipped for a task, and how to make it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import accel
from ..accel.caching import with_schedules
from ..diffusion import Plan, load_plan
from ..errors import InputError
from ..policy import load_checkpoint, read_config, serve
from ..runtime import LadderPolicy, Policy

ASSETS = Path(__file__).resolve().parent.parent / "assets"
DIFFUSION, STREAMING, ANCHORED = "diffusion-transformer", "streaming-transformer", "anchored-decoder"
UNET = "diffusion-unet"
BC, BC_RNN = "robomimic-bc", "robomimic-bc-rnn"
DEFAULT_PLAN = "ddim-10"
DEFAULT_PLANS = {STREAMING: "diagonal-1", ANCHORED: "anchored-2", BC: BC, BC_RNN: BC_RNN}  # of those it is not for


@dataclass(frozen=True)
class Candidate:
    """One plan to evaluate; `plan` is None for a baseline that has no diffusion plan."""

    name: str
    family: str
    plan: Plan | None

    def runs(self, family: Any) -> bool:
        """Whether checkpoints of that family run it: what is for the transformer is for the U-Net as well."""
        return family == self.family or (family == UNET and self.family == DIFFUSION)


def parse_candidate(name: str) -> Candidate:
    """A plan by name, a plan file, or a baseline: `robomimic-bc` or `robomimic-bc-rnn`. Raises InputError."""
    return candidate_of(name if name in (BC, BC_RNN) else load_plan(name))


def candidate_of(plan: Plan | str) -> Candidate:
    """A plan with the family of networks that runs it, or a baseline by its name."""
    if isinstance(plan, str):
        return Candidate(plan, plan, None)
    family = STREAMING if plan.stagger else ANCHORED if plan.guess.source == "anchors" else DIFFUSION
    return Candidate(plan.name, family, plan)


def checkpoint_for(task_id: str, candidate: Candidate, given: str | None) -> Path:
    """The checkpoint folder to use: the one given, where it is of the plan's family, else the one shipped for the
    task. Raises InputError."""
    if given is not None and candidate.runs(read_config(given).get("family")):
        return Path(given)
    families = [family for family in (candidate.family, UNET) if candidate.runs(family)]
    folders = [ASSETS / family / task_id.replace("/", "-") for family in families]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    if not folder.is_dir():
        family = ASSETS / candidate.family
        shipped = ", ".join(sorted(p.name for p in family.iterdir() if p.is_dir())) if family.is_dir() else ""
        raise InputError(
            f"no {candidate.family} checkpoint is shipped for {task_id} (shipped: {shipped or 'none'}); "
            "train one with `ontick train` and give it with --checkpoint"
        )
    return folder


def default_plan(checkpoint: str | None) -> str:
    """What is evaluated where no plan is named: a plan for the checkpoint given, or for the one shipped."""
    family = None if checkpoint is None else read_config(checkpoint).get("family")
    return DEFAULT_PLANS.get(family, DEFAULT_PLAN) if isinstance(family, str) else DEFAULT_PLAN


def with_schedule_of(candidate: Candidate, checkpoint: Path) -> Candidate:
    """The candidate with the cache schedule that its plan names, of those beside the checkpoint. Raises InputError."""
    if candidate.plan is None:
        return candidate
    return replace(candidate, plan=with_schedules(candidate.plan, checkpoint))


def fingerprint(checkpoint: Path) -> str:
    """Tells one checkpoint's content from another's, whatever the folder is called."""
    digest = hashlib.sha256()
    for file in sorted(path for path in checkpoint.iterdir() if path.is_file()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def check_device(device: str) -> None:
    """Raises InputError where torch cannot use the device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu")


def policy_maker(candidate: Candidate, checkpoint: Path, device: str = "cpu", tail: bool = False) -> Any:
    """A picklable `width -> policy`; workers call it. tail: the rows after a chunk are played too."""
    plan = None if candidate.plan is None else candidate.plan.to_dict()
    return partial(_make_policy, candidate.family, plan, str(checkpoint), device, tail)


def make_ladder(names: Sequence[str], makers: Sequence[Any], costs_s: Sequence[float], width: int) -> Policy:
    """The policies of these plans, dearest first, as one that takes the rung it is told."""
    return LadderPolicy(names, [make(width) for make in makers], costs_s)


def _make_policy(
    family: str, plan: dict[str, Any] | None, checkpoint: str, device: str, tail: bool, width: int
) -> Policy:
    if family == BC:
        from ..envs.robomimic_bc import BCPolicy

        return BCPolicy.load(checkpoint, width)
    if family == BC_RNN:
        from ..envs.robomimic_bc_rnn import BCRNNPolicy

        return BCRNNPolicy.load(checkpoint, width)
    build = partial(accel.build, tail=tail, device=device)
    return serve(load_checkpoint(checkpoint, device), Plan.from_dict(plan), width, build)
