"""A checkpoint of Diffusion Policy (`latest.ckpt`; Chi et al. 2023) as one of ours: its transformer and U-Net.

The file is a dictionary: `cfg`, the whole hydra configuration; `state_dicts`, of the policy (`model`, `ema_model`) and
its optimiser; `pickles`, which are not opened. A policy's state holds the network under `model.` and the normaliser
under `normalizer.params_dict.`. Shapes are read off the weights; what no weight tells (heads, a U-Net's horizon, rows
that are executed) is read from `cfg`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...checkpoints import listed, shown, strange_told
from ...errors import InputError
from ..checkpoint import Checkpoint
from ..config import TransformerConfig, UNetConfig
from ..network import ActionNetwork
from ..normaliser import KEYS, Normaliser
from ..transformer import TransformerForDiffusion
from ..unet import ConditionalUnet1D
from .hydra_config import Settings
from .sampler import sampler_settings
from .torch_file import tensors
from .weights import built, final_groups, unet_shape

NETWORK, STATISTICS = "model.", "normalizer.params_dict."
# What a policy must say of itself to be served, in the configuration's words.
DEMANDS: dict[str, dict[str, Any]] = {
    "DiffusionTransformerLowdimPolicy": {
        "policy.obs_as_cond": True,
        "policy.model.obs_as_cond": True,
        "policy.model.time_as_cond": True,
        "policy.pred_action_steps_only": False,
    },
    "DiffusionUnetLowdimPolicy": {
        "policy.obs_as_global_cond": True,
        "policy.obs_as_local_cond": False,
        "policy.pred_action_steps_only": False,
        "policy.oa_step_convention": True,
    },
}
# What the library takes where the configuration says nothing.
UNSAID = {"policy.model.time_as_cond": True}


@dataclass(frozen=True)
class _Found:
    """What of the file is used."""

    what: str
    settings: Settings
    policy: str
    network: dict[str, Tensor]
    statistics: dict[str, Tensor]


def from_stanford(contents: Any, what: str) -> Checkpoint:
    """contents: of `open_torch_file`; what: the file's name, for messages.

    `about["source"]` says what was taken. Raises InputError for image policies, for conditioning other than the
    published one and for what does not fit together.
    """
    with strange_told(what):
        return _from_stanford(contents, what)


def _from_stanford(contents: Any, what: str) -> Checkpoint:
    if not isinstance(contents, Mapping) or not {"cfg", "state_dicts"} <= set(contents):
        raise InputError(f"{what} has no cfg and state_dicts, wanted a checkpoint of Diffusion Policy")
    settings = Settings(contents["cfg"])
    policy = _policy(settings, what)
    which, state = _state(contents["state_dicts"], settings, what)
    _refuse_cameras(state, settings, what)
    found = _Found(what, settings, policy, _part(state, NETWORK), _part(state, STATISTICS))
    make = _transformer if policy == "DiffusionTransformerLowdimPolicy" else _unet
    network = make(found)
    normaliser, kind = _normaliser(found, network)
    source = {
        "kind": "stanford",
        "file": what,
        "policy": policy,
        "weights": which,
        "normaliser": kind,
        "task": _told(settings, str, "task_name", "task.name"),
        "num_inference_steps": _told(settings, int, "policy.num_inference_steps"),
        "versions": {},
    }
    return Checkpoint(network, normaliser, {"task": None, "discrete_dims": [], "source": source})


def _told(settings: Settings, kind: type, *paths: str) -> Any:
    """The first of these values that is of that type, as JSON can keep it."""
    return next((value for value in map(settings.get, paths) if type(value) is kind), None)


def _policy(settings: Settings, what: str) -> str:
    """The policy's class, where it is served."""
    target = settings.get("policy._target_")
    policy = _last(target)
    cameras = _cameras(settings)
    if cameras:
        raise InputError(f"{what}: {policy} has cameras: {listed(cameras)}; image policies are not converted yet")
    if policy not in DEMANDS:
        raise InputError(f"{what}: its policy is {shown(target)}, served are {', '.join(DEMANDS)}")
    for path, wanted in DEMANDS[policy].items():
        got = settings.get(path, UNSAID.get(path, False))
        if got is not wanted:
            raise InputError(f"{what}: {path.removeprefix('policy.')} is {shown(got)}, served is {wanted}")
    return policy


def _last(target: Any) -> str:
    """The class's own name."""
    return target.rpartition(".")[2] if isinstance(target, str) else type(target).__name__


def _cameras(settings: Settings) -> list[str]:
    """The observations that are images, by the task's shape_meta."""
    observations = settings.get("shape_meta.obs") or settings.get("task.shape_meta.obs") or {}
    if not isinstance(observations, Mapping):
        return []
    return [name for name, told in observations.items() if isinstance(told, Mapping) and told.get("type") == "rgb"]


def _state(found: Any, settings: Settings, what: str) -> tuple[str, dict[str, Tensor]]:
    """The averaged weights where there are any, else the trained ones."""
    if not isinstance(found, Mapping) or "model" not in found:
        raise InputError(f"{what} has no state_dicts.model, wanted a checkpoint of Diffusion Policy")
    if settings.get("training.use_ema", False) and "ema_model" not in found:
        raise InputError(
            f"{what} was trained with use_ema but has no state_dicts.ema_model, which is what is evaluated"
        )
    which = "ema_model" if "ema_model" in found else "model"
    return which, tensors(found[which], f"{what}: state_dicts.{which}")


def _refuse_cameras(state: Mapping[str, Tensor], settings: Settings, what: str) -> None:
    served = (NETWORK, STATISTICS, "mask_generator.")
    strange = [name for name in state if not name.startswith(served) and not name.endswith("_dummy_variable")]
    if any(name.startswith("obs_encoder.") for name in strange):
        raise InputError(f"{what} has an obs_encoder: image policies are not converted yet")
    if strange:
        raise InputError(f"{what}: the policy has weights {shown(strange[0])}, which are not served")


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


# -- networks ----------------------------------------------------------------------------------------------------------


def _transformer(found: _Found) -> ActionNetwork:
    weights, what = found.network, found.what
    if "cond_obs_emb.weight" not in weights:
        raise InputError(f"{what}: obs_as_cond is False (no cond_obs_emb), served is True")
    try:
        shape = {
            "action_dim": weights["head.weight"].shape[0],
            "observation_dim": weights["cond_obs_emb.weight"].shape[1],
            "width": weights["input_emb.weight"].shape[0],
            "horizon": weights["pos_emb"].shape[1],
            "n_obs_steps": weights["cond_pos_emb"].shape[1] - 1,
        }
    except (KeyError, IndexError) as error:
        raise InputError(f"{what} holds no whole transformer: its weights lack {error}") from None
    config = TransformerConfig(
        **shape,
        **_sampler(found),
        n_action_steps=_number(found, "policy.n_action_steps"),
        heads=_number(found, "policy.model.n_head"),
        layers=_count(weights, "decoder.layers."),
        n_cond_layers=_count(weights, "encoder.layers."),
        causal="mask" in weights,
        p_drop_emb=found.settings.get("policy.model.p_drop_emb", 0.0),
        p_drop_attn=found.settings.get("policy.model.p_drop_attn", 0.0),
    )
    return built(TransformerForDiffusion, config, weights, what)


def _unet(found: _Found) -> ActionNetwork:
    what = found.what
    if any(name.startswith("local_cond_encoder.") for name in found.network):
        raise InputError(f"{what}: obs_as_local_cond is True, served is obs_as_global_cond")
    shape = unet_shape(found.network, what)
    known, steps = shape.pop("known"), _number(found, "policy.n_obs_steps")
    if known < steps or known % steps:
        raise InputError(f"{what}: the network takes {known} numbers, which are no {steps} observations")
    config = UNetConfig(
        **shape,
        **_sampler(found),
        observation_dim=known // steps,
        n_obs_steps=steps,
        horizon=_number(found, "policy.horizon"),
        n_action_steps=_number(found, "policy.n_action_steps"),
        groups=final_groups(found.settings.get("policy.model.n_groups", 8), what),
    )
    return built(ConditionalUnet1D, config, found.network, what)


def _sampler(found: _Found) -> dict[str, Any]:
    told = found.settings.get("policy.noise_scheduler") or {}
    if not isinstance(told, Mapping):
        raise InputError(f"{found.what}: policy.noise_scheduler is no mapping")
    kind = _last(told.get("_target_"))
    if kind not in ("DDPMScheduler", "DDIMScheduler"):
        got = shown(told.get("_target_"))
        raise InputError(f"{found.what}: its noise scheduler is {got}, served are DDPMScheduler and DDIMScheduler")
    return sampler_settings({name: value for name, value in told.items() if value is not None}, found.what)


def _number(found: _Found, path: str) -> int:
    value = found.settings.get(path)
    if type(value) is not int or value < 1:
        raise InputError(f"{found.what}: {path} is {shown(value)} in its configuration, wanted a whole number from 1")
    return value


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})


# -- the normaliser ----------------------------------------------------------------------------------------------------


def _normaliser(found: _Found, network: ActionNetwork) -> tuple[Normaliser, str]:
    """The normaliser, and what the actions' statistics show it to be: limits, identity or another linear map."""
    config = network.config
    widths = dict(zip(KEYS, (config.observation_dim, config.action_dim), strict=True))
    parameters = {}
    for key, width in widths.items():
        try:
            one = {name: found.statistics[f"{key}.{name}"].float() for name in ("scale", "offset")}
        except KeyError as error:
            raise InputError(f"{found.what} has no normaliser statistics {error}; without it no policy runs") from None
        sizes = {value.numel() for value in one.values()}
        if not sizes <= {1, width}:
            raise InputError(f"{found.what}: the normaliser of {key} has {max(sizes)} numbers, wanted {width}")
        # An identity is saved as one number for all dimensions.
        parameters[key] = {name: value.flatten().expand(width).clone() for name, value in one.items()}
    return Normaliser(parameters), _kind(parameters["action"], found.statistics)


def _kind(action: Mapping[str, Tensor], statistics: Mapping[str, Tensor]) -> str:
    scale, offset = action["scale"], action["offset"]
    if torch.equal(scale, torch.ones_like(scale)) and not offset.any():
        return "identity"
    ends = [statistics.get(f"action.input_stats.{name}") for name in ("min", "max")]
    if all(end is not None and end.numel() in (1, scale.numel()) for end in ends):
        reach = torch.stack([end.flatten().float() * scale + offset for end in ends if end is not None])
        if (reach.abs() <= 1 + 1e-3).all():
            return "limits"
    return "linear"
