"""One DDPM-100 chunk at batch 1: ours against what users run today, at the same weights, in the same process.

    python benchmarks/ddpm_chunk.py [--device cuda] [--threads 1] [--n 30] [--budget cpu-20hz]

ours   prepare + run_chunk of the plan ddpm-100
stock  torch.nn.TransformerDecoder with the diffusers DDPMScheduler (benchmarks/stock.py)

Published Push-T shape: E 256, 8 layers, Tp 16, To 2, Do 20, Da 2. The outputs are compared at the same noise first;
then both are warmed up and timed in turn (ours, stock, ours, stock, ...), each waiting for its device. The ratio is
ours / stock, of medians, with a bootstrap interval over the pairs. Without diffusers only ours is measured.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from stock import StockTransformer, ddpm_scheduler, sample
from torch import Tensor, nn

from ontick.diffusion import Program, build, load_plan, run_chunk
from ontick.files import write_whole
from ontick.policy import TransformerConfig, TransformerForDiffusion
from ontick.runtime import LatencyBudget, WallClock, describe_machine, load_budget

HERE = Path(__file__).resolve().parent
STEPS = 100
SHAPE = TransformerConfig(action_dim=2, observation_dim=20, horizon=16, n_obs_steps=2, n_action_steps=8)


def main() -> int:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    budget = load_budget(options.budget or ("gpu-50hz" if device.type == "cuda" else "cpu-20hz"))
    network = TransformerForDiffusion(SHAPE).eval().requires_grad_(False)
    _randomise(network)
    network.to(device)
    program = build(network, load_plan(f"ddpm-{STEPS}"), (SHAPE.action_dim,), SHAPE.horizon)
    obs = torch.randn(1, SHAPE.n_obs_steps, SHAPE.observation_dim, generator=_seeded(1)).to(device)

    ours = _ours(program, obs)
    answers = {"ours": ours}
    agreement = None
    if importlib.util.find_spec("diffusers") is None:
        print("diffusers is not installed: the stock row is not measured")
    else:
        stock = _stock_network(network, device)
        agreement = _disagreement(program, stock, obs)
        if not agreement <= 1e-4:
            print(f"ours and stock differ by {agreement:.1e} at the same noise, wanted at most 1e-4", file=sys.stderr)
            return 1
        answers["stock"] = _stock(stock, obs)

    times = _interleaved(answers, options.n, options.warmup, device)
    rows = {name: _row(times.get(name), budget) for name in ("ours", "stock")}
    result = {
        "benchmark": "ddpm_chunk",
        "device": str(device),
        "shape": SHAPE.to_dict(),
        "n": options.n,
        "warmup": options.warmup,
        "budget": budget.to_dict(),
        "difference_at_same_noise": agreement,
        "rows": rows,
        "ratio_ours_to_stock": _ratio(times) if "stock" in times else "not measured",
        "machine": describe_machine(),
    }
    _print(result)
    path = Path(options.out or HERE / "results" / f"ddpm_chunk-{device.type}.json")
    write_whole(path, json.dumps(result, indent=2) + "\n")
    print(f"written: {path}")
    return 0


# -- the two contestants ----------------------------------------------------------------------------------------------


def _ours(program: Program, obs: Tensor) -> Callable[[int], Tensor]:
    def answer(birth: int) -> Tensor:
        return run_chunk(program, program.prepare(obs), torch.tensor([7]), torch.tensor([birth]), device=obs.device)

    return answer


def _stock(network: StockTransformer, obs: Tensor) -> Callable[[int], Tensor]:
    scheduler = ddpm_scheduler(STEPS)
    shape = (1, SHAPE.horizon, SHAPE.action_dim)

    def answer(birth: int) -> Tensor:
        return sample(network, scheduler, obs, torch.randn(shape, device=obs.device), STEPS)

    return answer


def _stock_network(network: TransformerForDiffusion, device: torch.device) -> StockTransformer:
    c = SHAPE
    stock = StockTransformer(c.action_dim, c.observation_dim, c.horizon, c.n_obs_steps, c.width, c.layers, c.heads)
    stock.load_state_dict(network.state_dict(), strict=True)
    return stock.eval().requires_grad_(False).to(device)


@torch.inference_mode()
def _disagreement(program: Program, stock: StockTransformer, obs: Tensor) -> float:
    """The largest difference of a chunk at the same noise: the scheduler is handed the keyed noise, step by step."""
    seed, birth = torch.tensor([7]), torch.tensor([0])
    index = program.index(torch.zeros(1, dtype=torch.int64))

    def noise(level: int) -> Tensor:
        return program.noise(seed, birth, index, torch.full_like(index, level), obs.device)

    levels = iter(range(STEPS - 1, 0, -1))
    with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: noise(next(levels))):
        wanted = sample(stock, ddpm_scheduler(STEPS), obs, noise(STEPS), STEPS)
    got = run_chunk(program, program.prepare(obs), seed, birth, device=obs.device)
    return (got - wanted).abs().max().item()


def _randomise(network: nn.Module) -> None:
    """Every bias and every norm's scale and shift: fresh ones hide missing terms."""
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:
            is_scale = ("norm" in name and name.endswith("weight")) or name == "ln_f.weight"
            parameter.data = torch.randn(parameter.shape, generator=_seeded(len(name))) * 0.1 + float(is_scale)


# -- timing -----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def _interleaved(
    answers: dict[str, Callable[[int], Tensor]], n: int, warmup: int, device: torch.device
) -> dict[str, np.ndarray]:
    """Seconds of n answers each, taken in turn, so that whatever else the machine does falls on both."""
    clock = WallClock()
    times: dict[str, list[float]] = {name: [] for name in answers}
    for i in range(warmup + n):
        for name, answer in answers.items():
            _wait(device)
            start = clock.now()
            answer(i)
            _wait(device)
            if i >= warmup:
                times[name].append(clock.now() - start)
    return {name: np.array(values) for name, values in times.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _ratio(times: dict[str, np.ndarray], draws: int = 10_000) -> dict[str, float]:
    """ours / stock, medians, with the 95 % interval of a bootstrap over the pairs. Below 1: ours is faster."""
    pairs = np.stack([times["ours"], times["stock"]])
    picks = np.random.default_rng(0).integers(pairs.shape[1], size=(draws, pairs.shape[1]))
    drawn = np.median(pairs[:, picks], axis=2)
    low, high = np.percentile(drawn[0] / drawn[1], [2.5, 97.5])
    ours, stock = np.median(pairs, axis=1)
    return {"median": float(ours / stock), "low": float(low), "high": float(high)}


def _row(seconds: np.ndarray | None, budget: LatencyBudget) -> dict | str:
    if seconds is None:
        return "not measured"
    ms = np.sort(seconds * 1e3)

    def at(share: float) -> float:  # a measured value that at least this share of the answers keep
        return float(ms[max(0, int(np.ceil(share / 100 * len(ms) - 1e-9)) - 1)])

    return {
        "p50_ms": float(np.median(ms)),
        "p99_ms": at(99),
        "max_ms": float(ms[-1]),
        "step_ms": float(np.median(ms)) / STEPS,
        "budget": "met" if budget.met(seconds) else "missed",
        "samples_ms": [round(float(v), 3) for v in seconds * 1e3],
    }


# -- the report -------------------------------------------------------------------------------------------------------


def _print(result: dict) -> None:
    budget, machine = result["budget"], result["machine"]
    print(f"DDPM-{STEPS}, batch 1, {result['device']}, {machine['threads']} threads, n = {result['n']} each")
    print(f"{'':8}{'p50 ms':>10}{'p99 ms':>10}{'ms a step':>11}   {budget['name']} ({budget['deadline_ms']:g} ms)")
    for name, row in result["rows"].items():
        if isinstance(row, str):
            print(f"{name:8}{row}")
        else:
            print(f"{name:8}{row['p50_ms']:10.1f}{row['p99_ms']:10.1f}{row['step_ms']:11.3f}   {row['budget']}")
    ratio = result["ratio_ours_to_stock"]
    if isinstance(ratio, dict):
        print(f"ours / stock: {ratio['median']:.3f}  (95 % interval {ratio['low']:.3f} to {ratio['high']:.3f})")
        print(f"largest difference at the same noise: {result['difference_at_same_noise']:.1e}")


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=0, help="torch threads (0: torch's own choice)")
    parser.add_argument("--n", type=int, default=30, help="timed chunks of each")
    parser.add_argument("--warmup", type=int, default=5, help="untimed chunks of each, before")
    parser.add_argument("--budget", help="a preset of configs/budgets (cpu-20hz, or gpu-50hz on cuda)")
    parser.add_argument("--out", help="the JSON file (benchmarks/results/ddpm_chunk-DEVICE.json)")
    options = parser.parse_args()
    if options.n < 1 or options.warmup < 0 or options.threads < 0:
        parser.error("--n must be at least 1, --warmup and --threads at least 0")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    return options


if __name__ == "__main__":
    sys.exit(main())
