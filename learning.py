"""What every training run here is made of: settings, learning rate, averaged weights, and a state that a killed run
goes on from."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import InputError
from .files import whole


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Defaults are those published for the transformer on Push-T's low-dimensional observations."""

    steps: int = 100_000
    batch: int = 256
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-1
    warmup: int = 1000
    ema_power: float = 0.75
    ema_max: float = 0.9999
    seed: int = 0
    save_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"training {name} is {getattr(self, name)}, wanted at least 1")
        fits = {
            "lr": self.lr > 0,
            "betas": all(0 <= beta < 1 for beta in self.betas),
            "weight_decay": self.weight_decay >= 0,
            "warmup": self.warmup >= 0,
            "ema_power": self.ema_power > 0,
            "ema_max": 0 <= self.ema_max < 1,
            "seed": 0 <= self.seed < 2**32,
        }
        for name in (name for name, fit in fits.items() if not fit):
            raise InputError(f"training {name} is {getattr(self, name)}, which is out of its range")


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def ema_decay(step: int, config: TrainingConfig) -> float:
    """1 - (1 + step)^-power, at most `ema_max`; 0 on the first step."""
    return min(config.ema_max, 1 - (1 + step) ** -config.ema_power)


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, parameter in zip(ema.parameters(), network.parameters(), strict=True):
        mean.lerp_(parameter, 1 - decay)


def save_state(path: str | Path, step: int, run: dict, network: nn.Module, ema: nn.Module, optim) -> None:
    """The whole training state as one safetensors file, replaced in one move."""
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for i, moments in optim.state_dict()["state"].items():
        tensors |= {f"optim.{i}.{k}": v for k, v in moments.items()}
    tensors = {k: v.contiguous().clone() for k, v in tensors.items()}
    with whole(path) as temporary:
        save_file(tensors, temporary, {"run": json.dumps(run), "step": str(step)})


def resume_state(path: str | Path, run: dict, network: nn.Module, ema: nn.Module, optim) -> int:
    """Load a saved state; the step to go on from, or 0 where there is none."""
    if not Path(path).is_file():
        return 0
    try:
        with safe_open(path, "pt") as file:
            saved = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
        settings = json.loads(saved.get("run", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path} is not a training state: {error}; remove it to start again") from None
    if settings != json.loads(json.dumps(run)):
        raise InputError(f"{path} belongs to a run with other settings or data; remove it to start again")

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    network.load_state_dict(part("network."))
    ema.load_state_dict(part("ema."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in part("optim.").items():
        i, _, key = name.partition(".")
        state.setdefault(int(i), {})[key] = value
    optim.load_state_dict({"state": state, "param_groups": optim.state_dict()["param_groups"]})
    return int(saved["step"])
