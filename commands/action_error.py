"""How far a plan's executed actions are from the dense sampler's at common noise: what acceleration changed."""

from typing import Any

import numpy as np
import torch

from ..accel import ROUNDING, only_rounds
from ..errors import RunFailed
from ..policy import DiffusionPolicy, serve
from ..runtime import FollowingPolicy


def action_error(policy: Any, windows: np.ndarray) -> dict[str, float] | None:
    """{rms, largest} over the executed actions, in the network's units of [-1, 1], of a policy at width 1 against the
    same grid, solver and noise with everything computed in fp32; None for what has no diffusion plan.

    windows: [n, To, Do], each answered with noise of its own; twice where an answer follows from the one before, since
    the first is the cold plan's. Raises RunFailed for actions that are not finite, and where a plan that only rewrites
    changed more than rounding does.
    """
    if not isinstance(policy, DiffusionPolicy):
        return None
    if policy.plan == policy.plan.plain():
        return {"rms": 0.0, "largest": 0.0}
    dense = serve(policy.checkpoint, policy.plan.plain(), width=len(windows))
    lanes = range(len(windows))
    for each in (policy, dense):
        each.reset(lanes, lanes)
    wanted, got = [], []
    for _ in range(2 if isinstance(policy, FollowingPolicy) else 1):
        wanted.append(dense.predict_action_chunk(windows, lanes))
        got += [policy.predict_action_chunk(windows[i : i + 1], [i]) for i in lanes]
    normaliser = policy.checkpoint.normaliser
    device = normaliser.action_scale.device
    a, b = (
        normaliser.normalise("action", torch.from_numpy(x).to(device)).cpu().numpy()
        for x in map(np.concatenate, (got, wanted))
    )
    difference = (a - b).astype(np.float64)
    if not np.isfinite(difference).all():
        raise RunFailed(
            f"plan {policy.plan.name} gives actions that are NaN or infinite; its network or plan is broken"
        )
    largest = float(np.abs(difference).max())
    if largest > ROUNDING and only_rounds(policy.plan):
        raise RunFailed(
            f"plan {policy.plan.name}, which should change nothing, changes actions by up to {largest:.2g} on backend "
            f"{policy.backend}: that backend computes this network wrongly; use a plan file with backend: eager"
        )
    return {"rms": float(np.sqrt((difference**2).mean())), "largest": largest}
