"""LeRobot's normalisation as one linear map: statistics, and how each feature is treated by them.

    IDENTITY                        y = x
    MEAN_STD                        y = (x - mean) / (std + eps)
    MIN_MAX, QUANTILES, QUANTILE10  y = 2 (x - low) / (high - low) - 1        by min and max, or by quantiles

Today's checkpoints keep them in two pipelines: `policy_preprocessor.json` normalises observations,
`policy_postprocessor.json` undoes it for actions. Older ones have buffers among the weights
(`normalize_inputs.buffer_observation_state.min`) and the modes in config.json.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...checkpoints import read_json, shown
from ...errors import InputError
from ..normaliser import Normaliser

RANGES = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
MODES = ("IDENTITY", "MEAN_STD", *RANGES)
EPS = 1e-8  # LeRobot's, where a pipeline does not say
# LeRobot divides a range of zero by eps, which no float32 offset can follow. A number that never moved is left at its
# place instead: as an observation with scale 1, as an action within a millionth of it whatever the network says.
STILL_OBSERVATION, STILL_ACTION = 1.0, 2e6
PLAIN_STEPS = ("rename_observations_processor", "to_batch_processor", "device_processor")
PIPELINES = {"policy_preprocessor": "normalizer_processor", "policy_postprocessor": "unnormalizer_processor"}
LEGACY = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")


@dataclass(frozen=True)
class Treatment:
    """A feature's mode and statistics, float32 [D] each."""

    mode: str
    statistics: Mapping[str, Tensor]
    eps: float = EPS

    def of_pixels(self, shape: Sequence[int]) -> "Treatment":
        """Statistics of each channel of an image [C, S, S] as those of each of its pixels."""
        own = {
            name: value.reshape(shape[0], 1, 1).expand(tuple(shape)).flatten()
            for name, value in self.statistics.items()
            if value.numel() == shape[0]
        }
        return replace(self, statistics=own)


def treatments(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], features: Sequence[str]
) -> tuple[list[Treatment], str]:
    """Of each feature (observations, then "action" last), and where they were found. weights: all of model.safetensors.
    Raises InputError where statistics are missing."""
    if (folder / "policy_preprocessor.json").is_file():
        steps = {name: _step(folder, name, kind) for name, kind in PIPELINES.items()}
        last = len(features) - 1
        names = ["policy_preprocessor"] * last + ["policy_postprocessor"]
        return [steps[name].treatment(feature) for name, feature in zip(names, features, strict=True)], "processors"
    if any(name.startswith(LEGACY) for name in weights):
        return [_legacy(folder, config, weights, feature) for feature in features], "buffers"
    raise InputError(
        f"{folder} has no policy_preprocessor.json and no normalize_inputs among its weights: without statistics no "
        "policy runs"
    )


def lerobot_normaliser(observations: Sequence[tuple[Treatment, int]], action: tuple[Treatment, int]) -> Normaliser:
    """Features with their widths, the observations in the order that the network takes them."""
    parts = [_linear(treatment, width, STILL_OBSERVATION) for treatment, width in observations]
    together = {name: torch.cat([part[name] for part in parts]) for name in ("scale", "offset")}
    return Normaliser({"obs": together, "action": _linear(*action, STILL_ACTION)})


def _linear(treatment: Treatment, width: int, still: float) -> dict[str, Tensor]:
    """y = x scale + offset, [width]; worked out in float64."""
    mode, found = treatment.mode, treatment.statistics
    if mode == "IDENTITY":
        return {"scale": torch.ones(width), "offset": torch.zeros(width)}
    low, high = (_statistic(found, name, width) for name in RANGES.get(mode, ("mean", "std")))
    if mode == "MEAN_STD":
        scale = torch.where(high > 0, 1 / (high + treatment.eps), still)
        offset = -low * scale
    else:
        scale = torch.where(high != low, 2 / torch.where(high != low, high - low, 1), still)
        offset = -1 - low * scale
    return {"scale": scale.float(), "offset": offset.float()}


def _statistic(found: Mapping[str, Tensor], name: str, width: int) -> Tensor:
    value = found.get(name)
    if value is None or value.numel() != width or not torch.isfinite(value).all():
        got = "missing" if value is None else f"{value.numel()} numbers, or not finite"
        raise InputError(f"the statistic {name!r} is {got}, wanted {width} numbers")
    return value.double().flatten()


# -- pipelines --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    what: str
    features: Mapping[str, Any]
    modes: Mapping[str, str]
    statistics: Mapping[str, Tensor]
    eps: float
    only: Sequence[str] | None

    def treatment(self, feature: str) -> Treatment:
        """By the mode of the feature's type; a type without a mode is left as it is."""
        told = self.features.get(feature)
        kind = told.get("type") if isinstance(told, Mapping) else None
        if kind is None:
            raise InputError(f"{self.what} does not know the feature {feature}")
        mode = self.modes.get(kind, "IDENTITY")
        if self.only is not None and feature != "action" and feature not in self.only:
            mode = "IDENTITY"
        if mode not in MODES:
            raise InputError(f"{self.what}: {feature} is treated by {shown(mode)}, served are {', '.join(MODES)}")
        found = {name.rpartition(".")[::2]: value for name, value in self.statistics.items()}
        own = {stat: value for (name, stat), value in found.items() if name == feature}
        if mode != "IDENTITY" and not own:
            raise InputError(f"{self.what} has no statistics of {feature}, which {mode} needs")
        return Treatment(mode, own, self.eps)


def _step(folder: Path, pipeline: str, wanted: str) -> _Step:
    """The one step of a pipeline that normalises; any other that changes numbers is refused."""
    path = folder / f"{pipeline}.json"
    steps = read_json(path).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
        raise InputError(f"{path} has no steps, wanted a pipeline of LeRobot")
    names = [step.get("registry_name") or step.get("class") for step in steps]
    strange = [name for name in names if name not in (*PLAIN_STEPS, wanted)]
    if strange:
        raise InputError(f"{path} has a step {shown(strange[0])}, served are {', '.join((*PLAIN_STEPS, wanted))}")
    found = [step for step, name in zip(steps, names, strict=True) if name == wanted]
    if len(found) != 1:
        raise InputError(f"{path} has {len(found)} steps {wanted}, wanted one")
    config, file = found[0].get("config") or {}, found[0].get("state_file")
    if file is not None and (not isinstance(file, str) or Path(file).name != file):
        raise InputError(f"{path} names the file {shown(file)}, wanted one beside it")
    eps = config.get("eps", EPS)
    if not all(isinstance(config.get(name, {}), Mapping) for name in ("features", "norm_map")):
        raise InputError(f"{path}: features and norm_map of {wanted} are no mappings")
    if not isinstance(eps, int | float):
        raise InputError(f"{path}: eps of {wanted} is {shown(eps)}, wanted a number")
    return _Step(
        what=str(path),
        features=config.get("features", {}),
        modes=config.get("norm_map", {}),
        statistics={} if file is None else read_safetensors(folder / file),
        eps=eps,
        only=config.get("normalize_observation_keys"),
    )


def _legacy(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], feature: str) -> Treatment:
    action = feature == "action"
    buffer = f"{'unnormalize_outputs' if action else 'normalize_inputs'}.buffer_{feature.replace('.', '_')}."
    own = {name.removeprefix(buffer): value for name, value in weights.items() if name.startswith(buffer)}
    mode = legacy_mode(config, feature)
    if mode not in ("IDENTITY", "MEAN_STD", "MIN_MAX"):
        raise InputError(
            f"{folder}/config.json: {feature} is treated by {shown(mode)}, served are MIN_MAX and MEAN_STD"
        )
    return Treatment(mode, own)


def legacy_mode(config: Mapping[str, Any], feature: str) -> str:
    """By type in `normalization_mapping`, or, older still, by name in `input_` and `output_normalization_modes`."""
    if "normalization_mapping" in config:
        kinds = {"action": "ACTION", "observation.state": "STATE", "observation.environment_state": "ENV"}
        return str(config["normalization_mapping"].get(kinds.get(feature, "VISUAL"), "IDENTITY"))
    modes = config.get("output_normalization_modes" if feature == "action" else "input_normalization_modes") or {}
    return str(modes.get(feature, "IDENTITY")).upper()


# -- files ------------------------------------------------------------------------------------------------------------


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, or InputError."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {' '.join(str(error).split())[:120]}") from None
