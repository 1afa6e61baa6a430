"""Checkpoints: a folder, nothing pickled.

    config.json               format, family, task, network shape, how it was trained
    model.safetensors         the (EMA) weights, fp16 or fp32
    normaliser.safetensors    {obs,action}.{scale,offset}, fp32

Weights are always run in fp32; fp16 is how they travel.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..checkpoints import FORMAT, check_replaceable, read_config
from ..errors import InputError
from ..files import whole
from ..settings import checked
from .anchored import AnchoredDecoder
from .config import AnchoredConfig, ChunkConfig, TransformerConfig, UNetConfig
from .network import ActionNetwork
from .normaliser import DISCRETE_SCALE, Normaliser
from .streaming import StreamingTransformer
from .transformer import TransformerForDiffusion
from .unet import ConditionalUnet1D

NETWORKS: dict[str, tuple[type[Any], type[ChunkConfig]]] = {
    TransformerForDiffusion.family: (TransformerForDiffusion, TransformerConfig),
    StreamingTransformer.family: (StreamingTransformer, TransformerConfig),
    AnchoredDecoder.family: (AnchoredDecoder, AnchoredConfig),
    ConditionalUnet1D.family: (ConditionalUnet1D, UNetConfig),
}


@dataclass(frozen=True)
class Checkpoint:
    """A trained policy as it lies on disk. `about`: task, data and training, free-form but JSON; `folder`: where it was
    loaded from, None where it was not."""

    network: ActionNetwork
    normaliser: Normaliser
    about: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def at_limits(self, chunk: torch.Tensor) -> torch.Tensor:
        """[..., Da], normalised -> the same with discrete dimensions (grippers) at the nearer of their two limits:
        a tenth, since training scales them so, or what a converted checkpoint says (about, discrete_scale).
        Raises InputError where the checkpoint does not say which dimensions are discrete."""
        dims = self.about.get("discrete_dims")
        if dims is None:
            raise InputError(
                "the checkpoint does not say which actions are discrete (about, discrete_dims in config.json)"
            )
        limit = self.about.get("discrete_scale", DISCRETE_SCALE)
        put = chunk.clone()
        put[..., dims] = torch.where(put[..., dims] < 0, -limit, limit)
        return put


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint, half: bool = True) -> None:
    """Write the folder whole or not at all. `half` stores the weights as fp16. An older checkpoint there is replaced;
    any other folder is refused with InputError."""
    folder = Path(folder)
    check_replaceable(folder)
    config = {
        "format": FORMAT,
        "family": checkpoint.network.family,
        "network": checkpoint.network.config.to_dict(),
        "about": checkpoint.about,
    }
    weights = checkpoint.network.state_dict()
    if half:
        weights = {k: v.half() for k, v in weights.items()}
    with whole(folder) as staging:
        staging.mkdir()
        (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file({k: v.contiguous() for k, v in weights.items()}, staging / "model.safetensors")
        save_file(checkpoint.normaliser.tensors(), staging / "normaliser.safetensors")


def load_checkpoint(folder: str | Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint folder, fp32, in evaluation mode. Raises InputError naming what is wrong with it."""
    folder = Path(folder)
    config = read_config(folder)
    family = config.get("family")
    if family not in NETWORKS:
        raise InputError(f"{folder}: family {family!r} is no diffusion policy; known: {', '.join(NETWORKS)}")
    make, kind = NETWORKS[family]
    network = make(_network_config(folder, kind, config.get("network")))
    weights = {k: v.float() for k, v in _read(folder, "model.safetensors").items()}
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise InputError(f"{folder}/model.safetensors does not fit config.json: {_first(error)}") from None
    normaliser = Normaliser.from_tensors(_read(folder, "normaliser.safetensors"))
    _same_width(folder, network.config, normaliser)
    network.eval().requires_grad_(False)
    return Checkpoint(network.to(device), normaliser.to(device), config.get("about", {}), folder)


def _network_config(folder: Path, kind: type[ChunkConfig], data: Any) -> ChunkConfig:
    settings = checked(kind, data, f"{folder}/config.json, network")
    missing = {"action_dim", "observation_dim"} - set(settings)
    if missing:
        raise InputError(f"{folder}/config.json, network: no {', '.join(sorted(missing))}; train the policy again")
    return kind(**settings)


def _read(folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = folder / name
    if not path.is_file():
        raise InputError(f"checkpoint {folder} has no {name}; without it the policy cannot run")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {_first(error)}") from None


def _same_width(folder: Path, config: ChunkConfig, normaliser: Normaliser) -> None:
    got = (normaliser.obs_scale.numel(), normaliser.action_scale.numel())
    wanted = (config.observation_dim, config.action_dim)
    if got != wanted:
        raise InputError(f"{folder}: the normaliser is for observations and actions of {got}, the network {wanted}")


def _first(error: Exception) -> str:
    """The first lines of an error, as one short line."""
    return " ".join(str(error).split())[:200]
