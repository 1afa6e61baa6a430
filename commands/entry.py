"""The entry level of real-time iteration for a checkpoint: `ontick calibrate CHECKPOINT --plan rti`, or rti-K.

Looks at pairs of consecutive control ticks: how far the shifted full sample of one lies from a fresh one of the next,
the lowest level whose noise covers that, how a chain of K levels contracts there, and how far it narrows the answers
when it is fed its own. Writes all of it as JSON, draws it beside, and prints a table; `rti-K` puts K in it too.

Legend: P pairs, To, Do, Tp, Da.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..accel.entry_level import (
    ITERATIONS,
    LANES,
    Deviation,
    EntryLevel,
    choose,
    contraction,
    deviations,
    level_sigmas,
    narrowing,
    sampled,
)
from ..accel.fingerprint import fingerprint
from ..diffusion import Program, build, load_plan
from ..envs import demonstration_seeds, find_task
from ..envs.dataset import read_demonstrations
from ..errors import InputError
from ..files import check_place, write_whole
from ..policy import Checkpoint, DiffusionPolicy, load_checkpoint, serve
from .families import DIFFUSION, UNET, check_device
from .observations import AN_EPISODE, SAMPLER, task_of
from .picture import drawn
from .progress import progress_bar

FORMAT = "ontick-entry-1"
FOLDER = "entry"  # beside the weights
FULL = "ddpm-100"  # what a shifted answer is compared with
SAMPLES = 32  # pairs
LEVELS = (1, 2, 3, 5, 10, 20)  # K, for which the chain is looked at
C = 1.0  # sigma_K >= C * RMS
GUARD = 2  # levels that are added where a gripper is not scaled: a switch of 2 lies far from any low level
UNSCALED = 0.5  # a scaled gripper's answers end at 0.1, an unscaled one's at 1
SEEDS, TICKS = 32, 20  # of the narrowing: answers at one observation, and how often they are fed back


class Pairs(NamedTuple):
    """before, after: [P, To, Do], normalised; the windows of a control tick and of the next."""

    before: Tensor
    after: Tensor


def run(options: argparse.Namespace) -> int:
    """Check everything first, then look, measure, choose, write and draw."""
    levels = _levels(options.plan)
    samples = SAMPLES if options.samples is None else options.samples
    if samples < 1:
        raise InputError(f"--samples is {samples}, wanted at least 1 pair of windows")
    check_device(options.device)
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(options.checkpoint, options.device)
    levels = _visited(checkpoint, levels)
    out = Path(options.out or Path(options.checkpoint) / FOLDER / "rti.json")
    if check_place(out).is_dir() or out.suffix != ".json":
        raise InputError(f"--out {out}: wanted the name of a .json file")
    pairs = _pairs(checkpoint, samples, options)
    seed = torch.arange(options.seed, options.seed + samples)
    print(f"a full sample of each of {2 * samples} windows", flush=True)
    deviation = deviations(_program(checkpoint, FULL), *pairs, seed)
    chosen = choose(level_sigmas(checkpoint.network.schedule), deviation.rms, C)
    document = {
        "format": FORMAT,
        "version": __version__,
        "task": checkpoint.about.get("task"),
        "network": fingerprint(checkpoint.network),
        "plan": options.plan,
        "samples": samples,
        "observations": options.data or f"episodes of {checkpoint.about.get('task')}, played by {SAMPLER}",
        "seed": options.seed,
        "full": FULL,
        "sigma": level_sigmas(checkpoint.network.schedule).tolist(),
        "deviation": {"rms": chosen.rms, "median": chosen.median, "per_pair": deviation.rms.tolist()},
        "entry": entry_told(checkpoint, deviation, chosen),
        "contraction": {"iterations": ITERATIONS, "rows": _contractions(checkpoint, levels, pairs, deviation, seed)},
        "narrowing": _narrowings(checkpoint, levels, pairs, deviation, options.seed),
    }
    write_whole(out, json.dumps(document, indent=1) + "\n")
    _tell(document)
    print(f"entry level: {out}")
    drawn(lambda path: _draw(document, path), out.with_suffix(".png"))
    return 0


def _draw(document: dict[str, Any], path: Path) -> None:
    from ..benchmarks.entry_picture import draw_entry

    draw_entry(document, path)


def _levels(plan: str) -> list[int]:
    """The K of the table, ascending."""
    match = re.fullmatch(r"rti(?:-(\d+))?", plan)
    if not match or match[1] == "0":
        raise InputError(f"--plan {plan}: wanted rti, or rti-K as in rti-4, whose K is looked at too")
    return sorted({*LEVELS, *([int(match[1])] if match[1] else [])})


def _visited(checkpoint: Checkpoint, levels: Sequence[int]) -> list[int]:
    """The K that the checkpoint's schedule has. Raises InputError where it lacks the one that was asked for, or where
    its network takes no warm start."""
    network = checkpoint.network
    if network.family not in (DIFFUSION, UNET):
        raise InputError(f"the checkpoint is a {network.family}; warm starts are for a {DIFFUSION} or {UNET}")
    most = network.schedule.train_levels
    there = [level for level in levels if level <= most]
    asked = [level for level in levels if level not in LEVELS and level not in there]
    if asked:
        raise InputError(f"--plan rti-{asked[0]}: the checkpoint was trained with {most} levels, wanted 1 to {most}")
    return there


def _program(checkpoint: Checkpoint, plan: str) -> Program:
    config = checkpoint.network.config
    return build(checkpoint.network, load_plan(plan), (config.action_dim,), config.horizon)


# -- pairs of windows -------------------------------------------------------------------------------------------------


def _pairs(checkpoint: Checkpoint, n: int, options: argparse.Namespace) -> Pairs:
    if options.data is not None:
        return demonstrated_pairs(checkpoint, n, options.data)
    with progress_bar(None, "playing", "episode") as bar:
        return played_pairs(checkpoint, n, options.seed, bar.update)


def played_pairs(
    checkpoint: Checkpoint, n: int, base_seed: int, tick: Any = lambda: None, sampler: str = SAMPLER
) -> Pairs:
    """n pairs of consecutive control ticks, some of each episode that the policy plays itself on the checkpoint's task,
    on seeds of which none is an evaluation's, by the plan `sampler`. `tick` is called after every episode. Raises
    InputError."""
    task_id = task_of(checkpoint)
    policy = serve(checkpoint, load_plan(sampler))
    env = find_task(task_id).make()
    taken: list[np.ndarray] = []
    for seed in demonstration_seeds(base_seed, n):  # as many episodes as it takes
        if len(taken) >= n:
            break
        taken += _spread_pairs(_played(env, policy, seed), policy.n_obs_steps)
        tick()
    env.close()
    if len(taken) < n:
        raise InputError(f"{n} episodes of {task_id} have {len(taken)} pairs of ticks, wanted {n}; ask for fewer")
    return _normalised(checkpoint, taken[:n])


def _played(env: Any, policy: DiffusionPolicy, seed: int) -> np.ndarray:
    """[ticks, Do]: what the policy saw, its first observation repeated as often as its first window holds it."""
    observation, _ = env.reset(seed=seed)
    policy.reset([0], [seed])
    seen = [np.asarray(observation, np.float32)] * (policy.n_obs_steps - 1)
    done = False
    while not done:
        seen.append(np.asarray(observation, np.float32))
        observation, _, terminated, truncated, _ = env.step(policy.select_action(seen[-1][None])[0])
        done = terminated or truncated
    return np.stack(seen)


def demonstrated_pairs(checkpoint: Checkpoint, n: int, path: str | Path) -> Pairs:
    """n pairs of consecutive ticks of demonstrations, from as many episodes as there are. Raises InputError."""
    data = read_demonstrations(path)
    config = checkpoint.network.config
    if data.observations.shape[1] != config.observation_dim:
        got, wanted = data.observations.shape[1], config.observation_dim
        raise InputError(f"{path} has {got} observations a step, the checkpoint takes {wanted}")
    episodes = [data.observations[data.episode(i)] for i in range(len(data))]
    there = sum(max(0, len(episode) - config.n_obs_steps) for episode in episodes)
    if there < n:
        raise InputError(f"{path} has {there} pairs of windows, wanted {n}; ask for fewer samples")
    each = AN_EPISODE  # more of an episode where there are few episodes
    while True:
        parts = [_spread_pairs(episode, config.n_obs_steps, each) for episode in episodes]
        if sum(map(len, parts)) >= n:
            break
        each *= 2
    pairs = [pair for part in parts for pair in part]
    return _normalised(checkpoint, [pairs[i] for i in np.linspace(0, len(pairs) - 1, n).round().astype(int)])


def _spread_pairs(seen: np.ndarray, steps: int, n: int = AN_EPISODE) -> list[np.ndarray]:
    """At most n pairs [To + 1, Do] of consecutive windows, evenly from the episode's start to its end. seen: [ticks,
    Do]."""
    starts = len(seen) - steps
    if starts < 1:
        return []
    chosen = sorted(set(np.linspace(0, starts - 1, min(n, starts)).round().astype(int)))
    return [seen[i : i + steps + 1] for i in chosen]


def _normalised(checkpoint: Checkpoint, taken: list[np.ndarray]) -> Pairs:
    device = checkpoint.normaliser.obs_scale.device
    both = checkpoint.normaliser.normalise("obs", torch.from_numpy(np.stack(taken).astype(np.float32)).to(device))
    return Pairs(both[:, :-1], both[:, 1:])


# -- what is measured -------------------------------------------------------------------------------------------------


def entry_told(checkpoint: Checkpoint, deviation: Deviation, chosen: EntryLevel) -> dict[str, Any]:
    """The levels of the rule and of the median pair, both with the guard; None: no trained level covers it."""
    guard = GUARD if has_unscaled_gripper(checkpoint, deviation.fresh) else 0
    most = checkpoint.network.schedule.train_levels
    guarded = {
        name: None if K is None else min(K + guard, most)
        for name, K in (("rule", chosen.by_rms), ("median", chosen.by_median))
    }
    return {**guarded, "c": C, "guard": guard}


def has_unscaled_gripper(checkpoint: Checkpoint, answers: Tensor) -> bool:
    """Whether a discrete dimension of full samples [P, Tp, Da], normalised, reaches beyond a scaled one's limits."""
    dims = checkpoint.about.get("discrete_dims") or []
    return bool(dims) and bool((answers[..., dims].abs() > UNSCALED).any())


def _contractions(
    checkpoint: Checkpoint, levels: Sequence[int], pairs: Pairs, deviation: Deviation, seed: Tensor
) -> list[dict[str, float]]:
    """A row a K, over pairs: of the chain at the shifted answer, shown the window after it."""
    rows = []
    with progress_bar(sum(levels) * -(-len(seed) // LANES), "contraction", "level") as bar:
        for K in levels:
            program = _program(checkpoint, f"rti-{K}")
            advance = lambda K=K: bar.update(K)  # noqa: E731
            factor = contraction(program, pairs.after, deviation.guess, seed, tick=advance).cpu().double().numpy()
            told = {"median": np.median(factor), "p90": np.percentile(factor, 90), "max": factor.max()}
            share = {"contractive": float((factor < 1).mean())}
            rows.append({"K": K, **{name: float(value) for name, value in told.items()}, **share})
    return rows


def _narrowings(
    checkpoint: Checkpoint, levels: Sequence[int], pairs: Pairs, deviation: Deviation, base_seed: int
) -> dict[str, Any]:
    """A row a K: at the window of the pair that deviates as much as the median one."""
    pair = int(deviation.rms.argsort()[(len(deviation.rms) - 1) // 2])
    obs, seed = pairs.after[pair : pair + 1], torch.arange(base_seed, base_seed + SEEDS)
    rows: list[dict[str, float]] = []
    with progress_bar(2 * sum(levels), "narrowing", "level") as bar:
        answers = sampled(_program(checkpoint, FULL), obs.expand(SEEDS, *obs.shape[1:]), seed)
        for K in levels:
            row: dict[str, float] = {"K": K}
            for birth, name in (("guess", f"rti-{K}"), ("noised", f"rti-{K}-renoise")):
                row[birth] = narrowing(answers, _program(checkpoint, name), obs, seed, TICKS)
                bar.update(K)
            rows.append(row)
    spread = float(answers.double().var(0).mean().sqrt())
    return {"pair": pair, "seeds": SEEDS, "ticks": TICKS, "std": spread, "rows": rows}


# -- what is told -----------------------------------------------------------------------------------------------------


def _tell(document: dict[str, Any]) -> None:
    deviation, entry, sigma = document["deviation"], document["entry"], document["sigma"]
    print(f"\nshifted answer against a fresh one, {document['samples']} pairs, the same noise, in normalised units")
    for name, key in (("RMS", "rms"), ("median pair", "median")):
        K = entry["rule" if key == "rms" else "median"]
        level = "no trained level covers it: start from noise" if K is None else f"K = {K}, sigma {sigma[K - 1]:.4f}"
        print(f"  {name:12} {deviation[key]:.4f}   {level}")
    if entry["guard"]:
        print(f"  {entry['guard']} levels of these are added because a discrete dimension is not scaled")
    lines: list[tuple[str, ...]] = [("K", "sigma", "factor median", "p90", "max", "std, guess", "std, noised")]
    for factor, narrow in zip(document["contraction"]["rows"], document["narrowing"]["rows"], strict=True):
        numbers = [factor["median"], factor["p90"], factor["max"], narrow["guess"], narrow["noised"]]
        cells = [str(factor["K"]), f"{sigma[factor['K'] - 1]:.4f}", *(f"{number:.2f}" for number in numbers)]
        lines.append(tuple(cells))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print()
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    narrow = document["narrowing"]
    print(
        f"\nfactor: top singular value of the Jacobian of the K levels at the shifted answer; below 1 two guesses come "
        f"nearer.\nstd: of {narrow['seeds']} answers at one observation after {narrow['ticks']} ticks fed back, of "
        f"{document['full']}'s ({narrow['std']:.4f})."
    )
