"""A `diffusion` checkpoint of LeRobot (a folder `pretrained_model`) as one of ours: the U-Net on states and images.

    config.json           type, features, shapes, noise scheduler
    model.safetensors     the U-Net under `diffusion.unet.`, cameras under `diffusion.rgb_encoder.` (`lerobot_cameras`);
                          in older ones, the statistics
    policy_*processor*    the statistics (`lerobot_normaliser`)

An observation is the robot's state and then, where the policy has them, the environment's or the cameras' pixels.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...checkpoints import listed, read_json, shown, strange_told
from ...errors import InputError
from ..checkpoint import Checkpoint
from ..config import UNetConfig
from ..unet import ConditionalUnet1D
from .lerobot_cameras import ENCODER, camera_settings, camera_weights
from .lerobot_normaliser import LEGACY, lerobot_normaliser, read_safetensors, treatments
from .sampler import sampler_settings
from .weights import built, final_groups, published_names, unet_shape

UNET = "diffusion.unet."
STATE, ENVIRONMENT, ACTION = "observation.state", "observation.environment_state", "action"
KINDS = {STATE: "STATE", ENVIRONMENT: "ENV", ACTION: "ACTION"}
COMPILED = "_orig_mod."  # torch.compile puts it into the names of what it wraps
NEEDED = {
    "horizon": int,
    "n_obs_steps": int,
    "n_action_steps": int,
    "num_train_timesteps": int,
    "beta_schedule": str,
    "prediction_type": str,
    "clip_sample": bool,
}
SHAPES = ("action_dim", "down_dims", "kernel_size", "step_width", "film_scale")
OURS = {
    "kernel_size": "kernel_size",
    "diffusion_step_embed_dim": "step_width",
    "use_film_scale_modulation": "film_scale",
}


def from_lerobot(folder: str | Path) -> Checkpoint:
    """Read the folder. Raises InputError for other policies and what does not fit together."""
    with strange_told(str(folder)):
        return _from_lerobot(Path(folder))


def _from_lerobot(folder: Path) -> Checkpoint:
    config = read_json(folder / "config.json")
    if config.get("type", "diffusion") != "diffusion":
        raise InputError(f"{folder} is a {shown(config['type'])} policy of LeRobot, served is 'diffusion'")
    features, images = _features(config, f"{folder}/config.json")
    found = {
        name.replace(COMPILED, ""): value for name, value in read_safetensors(folder / "model.safetensors").items()
    }
    weights, encoders = _network_weights(folder, found)
    observed = [*(name for name in (STATE, ENVIRONMENT) if name in features), *images]
    shape, weights = _with_cameras(folder, config, images, weights, encoders, sum(features[n] for n in observed))
    network = built(ConditionalUnet1D, shape, weights, f"{folder}/model.safetensors")
    if network.config.action_dim != features[ACTION]:
        raise InputError(f"{folder}: actions are {features[ACTION]} wide, the network's {network.config.action_dim}")
    names = [*observed, ACTION]
    treated, where = treatments(folder, config, found, names)
    widths = [
        (treatment.of_pixels(images[name]) if name in images else treatment, features[name])
        for treatment, name in zip(treated, names, strict=True)
    ]
    try:
        normaliser = lerobot_normaliser(widths[:-1], widths[-1])
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    source = {
        "kind": "lerobot",
        "file": folder.name,
        "policy": "DiffusionPolicy",
        "weights": "model.safetensors",
        "normaliser": ", ".join(f"{name} {treatment.mode}" for treatment, name in zip(treated, names, strict=True)),
        "statistics": where,
        "observations": {name: features[name] for name in observed},
        "noise_scheduler_type": config.get("noise_scheduler_type"),
        "num_inference_steps": _told(config, "num_inference_steps", int),
        "versions": {name: config[name] for name in ("lerobot_version",) if _told(config, name, str)},
    }
    return Checkpoint(network, normaliser, {"task": None, "discrete_dims": [], "source": source})


def _told(config: Mapping[str, Any], name: str, kind: type) -> Any:
    """What is told only, where it is of that type."""
    return config.get(name) if type(config.get(name)) is kind else None


def _features(config: Mapping[str, Any], what: str) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Widths of what the network takes and gives, by name, and the shapes of its cameras."""
    inputs, outputs = (_shapes(config, part, what) for part in ("input", "output"))
    cameras = {name: shape for name, (kind, shape) in inputs.items() if kind == "VISUAL"}
    known = {name: shape for name, (kind, shape) in {**inputs, **outputs}.items() if KINDS.get(name) == kind}
    strange = [name for name, (kind, _) in inputs.items() if kind in ("STATE", "ENV") and name not in known]
    if strange:
        raise InputError(f"{what}: the policy has the input {shown(strange[0])}, served are {STATE} and {ENVIRONMENT}")
    missing = [name for name in (STATE, ACTION) if name not in known]
    if missing:
        raise InputError(f"{what}: the policy has no {' and no '.join(missing)}")
    if cameras and ENVIRONMENT in known:
        raise InputError(f"{what}: the policy has cameras and {ENVIRONMENT}, served is one of the two")
    return {name: math.prod(shape) for name, shape in {**known, **cameras}.items()}, cameras


def _shapes(config: Mapping[str, Any], part: str, what: str) -> dict[str, tuple[str, list[int]]]:
    """{name: (type, shape)} of `input_features` or, in old checkpoints, `input_shapes`, which tell no types."""
    found = config.get(f"{part}_features") or config.get(f"{part}_shapes") or {}
    shapes = {}
    for name, told in found.items() if isinstance(found, Mapping) else ():
        kind = told.get("type") if isinstance(told, Mapping) else "VISUAL" if "image" in name else KINDS.get(name, "")
        shape = told.get("shape") if isinstance(told, Mapping) else told
        if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
            raise InputError(f"{what}: the shape of {listed([name])} is {shown(shape)}, wanted a list of whole numbers")
        shapes[name] = (kind, shape)
    return shapes


def _network_weights(folder: Path, found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The U-Net's weights under our names, and the cameras' encoders' under LeRobot's."""
    weights = {name: value for name, value in found.items() if not name.startswith(LEGACY)}
    strange = [name for name in weights if not name.startswith((UNET, ENCODER))]
    if strange:
        raise InputError(
            f"{folder}/model.safetensors has {shown(strange[0])}, which is no weight of a diffusion policy"
        )
    unet = {name.removeprefix(UNET): value for name, value in weights.items() if name.startswith(UNET)}
    return published_names(unet), {name: value for name, value in weights.items() if name.startswith(ENCODER)}


def _with_cameras(
    folder: Path,
    config: Mapping[str, Any],
    images: Mapping[str, list[int]],
    weights: dict[str, Tensor],
    encoders: Mapping[str, Tensor],
    observation_dim: int,
) -> tuple[UNetConfig, dict[str, Tensor]]:
    """The network's config and all its weights."""
    what = f"{folder}/model.safetensors"
    if not images:
        if encoders:
            raise InputError(f"{what} has an encoder of images, {folder}/config.json has no camera")
        return _config(folder, config, weights, {"observation_dim": observation_dim}), weights
    cameras = camera_settings(config, images, encoders, f"{folder}/config.json")
    separate = bool(config.get("use_separate_rgb_encoder_per_camera"))
    seen = {"observation_dim": observation_dim, **cameras}
    return _config(folder, config, weights, seen), weights | camera_weights(encoders, separate, len(images), what)


def _config(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], seen: Mapping[str, Any]
) -> UNetConfig:
    """seen: what its observations are made of."""
    what = f"{folder}/config.json"
    shape = unet_shape(weights, f"{folder}/model.safetensors")
    for name, kind in NEEDED.items():
        if type(config.get(name)) is not kind:
            raise InputError(f"{what}: {name} is {shown(config.get(name))}, wanted {kind.__name__}")
    if config.get("noise_scheduler_type", "DDPM") not in ("DDPM", "DDIM"):
        raise InputError(
            f"{what}: noise_scheduler_type is {shown(config['noise_scheduler_type'])}, served are DDPM and DDIM"
        )
    told = {"down_dims": list(shape["down_dims"]), **{name: shape[ours] for name, ours in OURS.items()}}
    for name, ours in told.items():
        if name in config and config[name] != ours:
            raise InputError(f"{what}: {name} is {shown(config[name])}, the weights are of {ours!r}")
    settings = UNetConfig(
        **{name: shape[name] for name in SHAPES},
        **sampler_settings({name: value for name, value in config.items() if value is not None}, what),
        **seen,
        horizon=config["horizon"],
        n_obs_steps=config["n_obs_steps"],
        n_action_steps=config["n_action_steps"],
        groups=final_groups(config.get("n_groups", 8), what),
    )
    if shape["known"] != settings.feature_dim * settings.n_obs_steps:
        raise InputError(
            f"{what} tells {settings.n_obs_steps} observations of {settings.feature_dim} numbers, the network takes "
            f"{shape['known']} numbers together"
        )
    return settings
