"""Where a controller's answers come from: a checkpoint or a bundle on this machine, or a policy server."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion import load_plan
from ..errors import InputError
from ..policy import read_config
from ..runtime import LadderPolicy, Policy, load_budget, measured_costs
from ..runtime.inference import LocalSource, Source, local_source
from .bundle import LADDER, is_bundle, open_bundle
from .families import (
    ANCHORED,
    BC,
    BC_RNN,
    DIFFUSION,
    STREAMING,
    UNET,
    Candidate,
    candidate_of,
    checkpoint_for,
    parse_candidate,
    policy_maker,
    with_schedule_of,
)

TASK = "ontick/Avoid-v0"
PLAN = "exact-anchored-2+exact-anchored-1"
USUAL_PLAN = {DIFFUSION: "exact-ddim-10", UNET: "ddim-10", STREAMING: "exact-diagonal-1", ANCHORED: "exact-anchored-2"}
MEASURED = 60  # answers, of each rung of a ladder


@dataclass(frozen=True, kw_only=True)
class PolicySource:
    """What is to be asked. candidates: its plans, dearest first, each with its checkpoint; costs_s: what each cost
    where a bundle was packed, None: to be measured; told: what a server's clients learn of it beside its plans."""

    candidates: tuple[Candidate, ...]
    checkpoints: tuple[Path, ...]
    costs_s: tuple[float, ...] | None = None
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [candidate.name for candidate in self.candidates]

    def makers(self, device: str) -> list[Any]:
        """Of each plan: makes its policy at a width; can be sent to another process."""
        pairs = zip(self.candidates, self.checkpoints, strict=True)
        return [policy_maker(candidate, checkpoint, device, tail=True) for candidate, checkpoint in pairs]


def is_server(policy: str | None) -> bool:
    """Whether a policy is a server's address."""
    return policy is not None and policy.startswith(("ws://", "wss://"))


def source_of(folder: str | None, plans: str | None) -> PolicySource:
    """A bundle's or a checkpoint's plans, or those that are named; without a folder what is shipped for the simulated
    robot. Raises InputError."""
    if folder is None:
        return _shipped(plans or PLAN)
    checkpoint, told, found, costs_s = Path(folder), {}, [], None
    if is_bundle(folder):
        bundle = open_bundle(folder)
        checkpoint, told, costs_s = bundle.checkpoint, {"robot": bundle.terms.to_dict()}, bundle.costs_s
        found = [candidate_of(plan) for plan in bundle.plans]
    config = read_config(checkpoint)
    family = str(config.get("family"))
    if plans is not None:
        found, costs_s = _named(plans), None
    if not found:
        found = [candidate_of(family if family in (BC, BC_RNN) else load_plan(_usual(family, folder)))]
    for candidate in found:
        if not candidate.runs(family):
            raise InputError(f"plan {candidate.name!r} runs a {candidate.family}; {folder} is a {family}")
    about = config.get("about")
    told |= {"family": family, "task": about.get("task") if isinstance(about, dict) else None}
    fitting = tuple(with_schedule_of(candidate, checkpoint) for candidate in found)
    return PolicySource(candidates=fitting, checkpoints=(checkpoint,) * len(fitting), costs_s=costs_s, told=told)


def _shipped(plans: str) -> PolicySource:
    candidates = _named(plans)
    checkpoints = tuple(checkpoint_for(TASK, candidate, None) for candidate in candidates)
    fitting = tuple(with_schedule_of(*pair) for pair in zip(candidates, checkpoints, strict=True))
    return PolicySource(candidates=fitting, checkpoints=checkpoints)


def _named(plans: str) -> list[Candidate]:
    candidates = [parse_candidate(name.strip()) for name in plans.split(LADDER)]
    if len({candidate.name for candidate in candidates}) < len(candidates):
        raise InputError(f"--plan {plans} names a plan twice; wanted different ones, dearest first")
    return candidates


def _usual(family: str, folder: str) -> str:
    """What a checkpoint is driven with where nobody says: few calls, exactly computed."""
    if family not in USUAL_PLAN:
        raise InputError(f"{folder} is a {family}, wanted a policy: {', '.join(USUAL_PLAN)}, {BC} or {BC_RNN}")
    return USUAL_PLAN[family]


def opener(source: PolicySource, device: str, budget: str) -> Callable[[], Source]:
    """Makes the policies of a source, in the process that will be asked."""
    return partial(_open_local, source.names, source.makers(device), source.costs_s, budget)


def _open_local(
    names: Sequence[str], makers: Sequence[Callable[[int], Policy]], costs_s: Sequence[float] | None, budget: str
) -> LocalSource:
    import torch

    torch.set_num_threads(1)
    policies = [make(1) for make in makers]
    if costs_s is None:
        measured = measured_costs(policies, load_budget(budget), MEASURED)
        costs_s = [float(cost) for cost in np.minimum.accumulate(measured)]  # noise may turn near equals round
    policy = policies[0] if len(policies) == 1 else LadderPolicy(names, policies, costs_s)
    return local_source(policy, list(names), list(costs_s))


def remote_opener(
    url: str,
    token_env: str | None,
    observation_key: str,
    ca: str | None,
    steps: int | None,
    dims: tuple[int, int] | None,
    parts: dict[str, Any] | None = None,
) -> Callable[[], Source]:
    """Connects to a policy server, in the process that will ask it; see `RemoteSource`. Raises InputError for a token
    that is not there."""
    return partial(_open_remote, url, token_of(token_env), observation_key, ca, steps, dims, parts)


def token_of(variable: str | None) -> str | None:
    """What an environment variable holds; None where none is named. Raises InputError."""
    if variable is None:
        return None
    token = os.environ.get(variable, "").strip()
    if not token:
        raise InputError(f"--token-env {variable}: that variable is empty or not set; put the token there")
    return token


def _open_remote(
    url: str,
    token: str | None,
    observation_key: str,
    ca: str | None,
    steps: int | None,
    dims: tuple[int, int] | None,
    parts: dict[str, Any] | None,
) -> Source:
    from ..runtime.remote import RemoteSource
    from ..runtime.wire.client import PolicyClient

    authority = None if ca is None else Path(ca)
    client = PolicyClient(url, token=token, observation_key=observation_key, ca=authority)
    return RemoteSource(client, steps, dims, parts)
