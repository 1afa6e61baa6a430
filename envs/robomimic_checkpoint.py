"""A checkpoint of robomimic (`.pth`) as one of our baselines: BC, BC-RNN and BC-RNN-GMM on low_dim observations.

The file is a dictionary: `model`, the networks' weights; `config`, JSON text; `shape_metadata`, widths of actions and
of each observation; `env_metadata`; and, where the policy was trained with them, `obs_normalization_stats`. robomimic
puts the observations of a policy side by side in the order of `shape_metadata`; a row of ours is that.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import listed, parsed_json, shown, strange_told
from ..errors import InputError
from .robomimic_bc import BCPolicy
from .robomimic_bc_rnn import BCRNNPolicy
from .robomimic_policy import RobomimicPolicy

VARIANTS = ("gaussian", "gmm", "vae", "rnn", "transformer")  # switches of a BC policy
GMM_SETTINGS = ("num_modes", "min_std", "std_activation", "low_noise_eval")
NETWORK = "policy."  # of the weights' names
ROBOSUITE = 1  # robomimic's EnvType
DEEPEST = 40  # lists in lists


def from_robomimic(contents: Any, weights: Mapping[str, Tensor], what: str) -> RobomimicPolicy:
    """contents: what the file holds; weights: its `model`, read; what: the file's name, for messages.

    The weights are loaded strictly. Raises InputError naming what is not served: other algorithms, cameras, goals.
    """
    with strange_told(what):
        return _converted(contents, weights, what)


def _converted(contents: Any, weights: Mapping[str, Tensor], what: str) -> RobomimicPolicy:
    config = _config(contents, what)
    algo = _mapping(config, "algo", what)
    kind = _kind(algo, what)
    observations = _observations(config, _mapping(contents, "shape_metadata", what), what)
    action_dim = _whole(contents["shape_metadata"].get("ac_dim"), "ac_dim", what)
    _refuse_scaled_actions(contents.get("action_normalization_stats"), action_dim, what)
    about = {
        "task": None,
        "action_dim": action_dim,
        "layers": _widths(algo.get("actor_layer_dims"), what),
        **(_recurrent(algo, what) if kind != "BC" else {}),
        "source": {
            "kind": "robomimic",
            "file": what,
            "policy": kind,
            "weights": "model",
            "normaliser": "mean and std" if contents.get("obs_normalization_stats") else "identity",
            "observations": observations,
            **_environment(contents.get("env_metadata")),
        },
    }
    policy: type[RobomimicPolicy] = BCPolicy if kind == "BC" else BCRNNPolicy
    if kind == "BC" and not about["layers"]:
        raise InputError(f"{what}: a BC policy without layers (actor_layer_dims) is none that robomimic makes")
    network = _loaded(policy, sum(observations.values()), about, weights, what)
    mean, std = _statistics(contents.get("obs_normalization_stats"), observations, what)
    return policy(network, mean, std, about)


def _config(contents: Any, what: str) -> Mapping[str, Any]:
    wanted = ("model", "config", "algo_name", "shape_metadata")
    missing = [name for name in wanted if not isinstance(contents, Mapping) or name not in contents]
    if missing:
        raise InputError(f"{what} has no {', '.join(missing)}, wanted a robomimic checkpoint")
    if contents["algo_name"] != "bc":
        raise InputError(
            f"{what}: its algorithm is {shown(contents['algo_name'])}, served is 'bc' (BC, BC-RNN, BC-RNN-GMM)"
        )
    config = parsed_json(contents["config"], f"{what}: its config") if isinstance(contents["config"], str) else None
    if not isinstance(config, Mapping):
        raise InputError(f"{what}: its config is no JSON mapping")
    return config


def _kind(algo: Mapping[str, Any], what: str) -> str:
    """BC, BC-RNN or BC-RNN-GMM, by the switches that are on."""
    on = {name for name in VARIANTS if isinstance(algo.get(name), Mapping) and algo[name].get("enabled")}
    if on not in (set(), {"rnn"}, {"rnn", "gmm"}):
        raise InputError(
            f"{what}: a BC policy with {' and '.join(sorted(on))} is not served, but BC, BC-RNN, BC-RNN-GMM"
        )
    return "BC-RNN-GMM" if "gmm" in on else "BC-RNN" if on else "BC"


def _observations(config: Mapping[str, Any], shapes: Mapping[str, Any], what: str) -> dict[str, int]:
    """Widths of the policy's observations, in the order that its network takes them."""
    observation = _mapping(config, "observation", what)
    modalities = _mapping(observation, "modalities", what)
    wanted = {name for group in ("goal", "subgoal") for keys in (modalities.get(group) or {}).values() for name in keys}
    named = _mapping(modalities, "obs", what)
    known = _mapping(shapes, "all_shapes", what)
    cameras = [key for modality, keys in named.items() if modality != "low_dim" for key in keys if key in known]
    if cameras:
        raise InputError(f"{what}: the policy has cameras: {listed(cameras)}; image policies are not converted yet")
    if wanted & set(known):
        raise InputError(f"{what}: the policy is told goals ({listed(sorted(wanted & set(known)))}), not served")
    encoder = observation.get("encoder", {}).get("low_dim") or {}
    if encoder.get("core_class") is not None:
        raise InputError(f"{what}: low_dim observations go through {shown(encoder['core_class'])}, which is not served")
    if (config.get("train") or {}).get("frame_stack", 1) not in (1, None):
        raise InputError(f"{what}: train.frame_stack is {shown(config['train']['frame_stack'])}, served is 1")
    own = [key for key in known if key in named.get("low_dim", ())]
    if not own:
        raise InputError(f"{what}: the policy has no low_dim observations with a shape")
    return {key: int(np.prod([_whole(n, f"the shape of {key}", what) for n in known[key]])) for key in own}


def _statistics(found: Any, observations: Mapping[str, int], what: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a row, float32 [Do]; robomimic 0.4 calls them offset and scale."""
    if found is None:
        width = sum(observations.values())
        return np.zeros(width, np.float32), np.ones(width, np.float32)
    parts = []
    for key, width in observations.items():
        try:
            one = found[key]
            told = [one[old] if old in one else one[new] for old, new in (("mean", "offset"), ("std", "scale"))]
            pair = [_row(part, width) for part in told]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{what}: obs_normalization_stats has no mean and std of {key}") from None
        if any(len(part) != width for part in pair) or not np.isfinite(pair).all() or not (pair[1] > 0).all():
            raise InputError(f"{what}: mean and std of {key} are not {width} finite numbers, the std above 0")
        parts.append(pair)
    mean, std = (np.concatenate(part) for part in zip(*parts, strict=True))
    return mean, std


def _row(found: Any, most: int) -> np.ndarray:
    """The numbers of an array or of lists in lists, side by side, float32. Raises ValueError for more than `most`."""
    if isinstance(found, np.ndarray):
        return found.astype(np.float32).reshape(-1)
    row, left, steps = [], [found], 0
    while left:
        value, steps = left.pop(), steps + 1
        if steps + len(left) > 2 * most + DEEPEST:
            raise ValueError(f"more than {most} numbers")
        if isinstance(value, list | tuple):
            left.extend(reversed(value[: 2 * most + DEEPEST]))
        else:
            row.append(value)
    return np.asarray(row, np.float32).reshape(-1)


def _refuse_scaled_actions(found: Any, action_dim: int, what: str) -> None:
    """robomimic 0.4 can scale actions; ours are as the network gives them."""
    for key, pair in (found or {}).items():
        if (_row(pair.get("scale", 1), action_dim) != 1).any() or (_row(pair.get("offset", 0), action_dim) != 0).any():
            raise InputError(f"{what}: action_normalization_stats scales {listed([key])}, which is not served")


def _recurrent(algo: Mapping[str, Any], what: str) -> dict[str, Any]:
    rnn, gmm = algo["rnn"], algo.get("gmm") or {}
    if rnn.get("rnn_type", "LSTM") != "LSTM" or rnn.get("open_loop", False):
        told = f"rnn_type {shown(rnn.get('rnn_type'))}, open_loop {shown(rnn.get('open_loop'))}"
        raise InputError(f"{what}: its network has {told}; served are LSTM and open_loop False")
    strange = {name: value for name, value in (rnn.get("kwargs") or {}).items() if value}
    if strange:
        raise InputError(f"{what}: its LSTM has {listed(strange)}, which is not served")
    kept = {name: _whole(rnn.get(name), f"rnn.{name}", what) for name in ("horizon", "hidden_dim", "num_layers")}
    mixture = {name: gmm[name] for name in GMM_SETTINGS if name in gmm} if gmm.get("enabled") else None
    return {"rnn": kept, "gmm": mixture}


def _environment(found: Any) -> dict[str, Any]:
    """The environment's name and, of robosuite's, the version that the demonstrations were made with."""
    if not isinstance(found, Mapping):
        return {"environment": None, "versions": {}}
    name, version = found.get("env_name"), found.get("env_version")
    named = isinstance(version, str) and found.get("type") == ROBOSUITE
    return {"environment": name if isinstance(name, str) else None, "versions": {"robosuite": version} if named else {}}


def _loaded(
    policy: type[RobomimicPolicy], width: int, about: dict[str, Any], weights: Mapping[str, Tensor], what: str
) -> torch.nn.Module:
    _check_sizes(width, about, weights, what)
    network = policy._network(width, about)
    try:
        network.load_state_dict({name.removeprefix(NETWORK): value.float() for name, value in weights.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(": ")[2][:200]
        raise InputError(f"{what} does not fit the network its config tells: {reason}") from None
    return network


def _check_sizes(width: int, about: dict[str, Any], weights: Mapping[str, Tensor], what: str) -> None:
    """Refuse widths that no weight has, and layers larger than all weights, before memory is taken for them."""
    sizes = {size for value in weights.values() for size in value.shape if value.numel()}
    rnn = about.get("rnn") or {"hidden_dim": 1, "num_layers": 0}
    modes = _whole((about.get("gmm") or {}).get("num_modes", 1), "gmm.num_modes", what)
    if rnn["num_layers"] > len(weights):
        raise InputError(f"{what} does not fit the network its config tells: {rnn['num_layers']} layers are not there")
    remembered = [rnn["hidden_dim"]] * (1 + rnn["num_layers"]) if "rnn" in about else []
    chain = [width, *remembered, *about["layers"], modes * about["action_dim"]]
    missing = sorted(set(chain) - sizes)
    if missing:
        raise InputError(f"{what} does not fit the network its config tells: no weight is {missing[0]} wide")
    if sum(a * b for a, b in pairwise(chain)) > sum(value.numel() for value in weights.values()):
        raise InputError(f"{what} does not fit the network its config tells: its weights are fewer")


def _mapping(found: Mapping[str, Any], name: str, what: str) -> Mapping[str, Any]:
    value = found.get(name)
    if not isinstance(value, Mapping):
        raise InputError(f"{what}: {name} is {type(value).__name__}, wanted a mapping")
    return value


def _whole(value: Any, name: str, what: str) -> int:
    if type(value) is not int or value < 1:
        raise InputError(f"{what}: {name} is {shown(value)}, wanted a whole number from 1")
    return value


def _widths(found: Any, what: str) -> list[int]:
    if not isinstance(found, list):
        raise InputError(f"{what}: actor_layer_dims is {shown(found)}, wanted a list of widths")
    return [_whole(n, "a layer of actor_layer_dims", what) for n in found]
