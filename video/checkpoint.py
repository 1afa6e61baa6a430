"""Video checkpoints: a folder, nothing pickled.

    config.json          format, family, network shape, kind and scale of the values, how it was trained
    model.safetensors    the (EMA) weights, fp16 or fp32
    begin.safetensors    optional: real frames that a stream may go on from, and their actions

Weights are run in fp32 unless a user casts them; fp16 is how they travel.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..checkpoints import FORMAT, check_replaceable, read_config
from ..errors import InputError
from ..files import whole
from ..settings import checked
from .config import VideoConfig
from .network import FrameTransformer
from .values import Values


class Beginnings(NamedTuple):
    """What streams may go on from. frames: [M, k, H, W, C] as clips hold them; actions: [M, k, Da] float32."""

    frames: torch.Tensor
    actions: torch.Tensor


@dataclass(frozen=True)
class VideoCheckpoint:
    """A trained network and the values that it draws. `about`: scene, data and training, free-form but JSON."""

    network: FrameTransformer
    values: Values
    about: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    beginnings: Beginnings | None = None

    def prompt(self, seed: int) -> dict[str, Any]:
        """`prompt` and `prompt_actions` of a stream of one lane, the beginning of this seed; nothing where there are
        none."""
        if self.beginnings is None:
            return {}
        pick = seed % len(self.beginnings.frames)
        frames, actions = (part[pick : pick + 1] for part in self.beginnings)
        return {"prompt": self.values.to_network(frames), "prompt_actions": actions}


def save_video_checkpoint(folder: str | Path, checkpoint: VideoCheckpoint, half: bool = True) -> None:
    """Write the folder whole or not at all; `half` stores the weights as fp16. An older checkpoint there is replaced;
    any other folder is refused with InputError."""
    folder = Path(folder)
    check_replaceable(folder)
    config = {
        "format": FORMAT,
        "family": checkpoint.network.family,
        "network": checkpoint.network.config.to_dict(),
        "values": {"kind": checkpoint.values.kind, "scale": checkpoint.values.scale},
        "about": checkpoint.about,
    }
    weights = {k: (v.half() if half else v).contiguous() for k, v in checkpoint.network.state_dict().items()}
    with whole(folder) as staging:
        staging.mkdir()
        (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(weights, staging / "model.safetensors")
        if checkpoint.beginnings is not None:
            save_file(checkpoint.beginnings._asdict(), staging / "begin.safetensors")


def load_video_checkpoint(folder: str | Path, device: str | torch.device = "cpu") -> VideoCheckpoint:
    """Read a checkpoint folder, fp32, in evaluation mode. Raises InputError naming what is wrong with it."""
    folder = Path(folder)
    config = read_config(folder)
    if config.get("family") != FrameTransformer.family:
        got = config.get("family")
        raise InputError(f"{folder}: family {got!r} draws no video; wanted {FrameTransformer.family!r}")
    network = FrameTransformer(VideoConfig(**checked(VideoConfig, config.get("network"), f"{folder}, network")))
    values = Values(**checked(Values, config.get("values"), f"{folder}, values"))
    try:
        weights = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
        network.load_state_dict(weights, strict=True)
        begin = folder / "begin.safetensors"
        beginnings = Beginnings(**load_file(begin)) if begin.is_file() else None
    except (SafetensorError, OSError, RuntimeError, TypeError) as error:
        first = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: its safetensors do not fit config.json: {first}") from None
    network = network.to(device).eval().requires_grad_(False)
    return VideoCheckpoint(network, values, config.get("about", {}), folder, beginnings)
