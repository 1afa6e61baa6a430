"""Files as other libraries write them, made of our own random networks.

A pickle stores names, not classes, so empty classes under omegaconf's and dill's names write what theirs would.
"""

import json
import pickle
import re
import sys
import zipfile
from collections import defaultdict
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ontick.policy import TransformerForDiffusion
from ontick.policy.config import UNetConfig
from ontick.policy.foreign import open_torch_file
from ontick.policy.unet import ConditionalUnet1D

NAMES = {
    "omegaconf.dictconfig": ["DictConfig"],
    "omegaconf.listconfig": ["ListConfig"],
    "omegaconf.nodes": ["AnyNode"],
    "omegaconf.base": ["ContainerMetadata", "Metadata"],
}


def _modules() -> dict[str, ModuleType]:
    modules = {name: ModuleType(name) for name in NAMES}
    for module, classes in NAMES.items():
        for name in classes:
            setattr(modules[module], name, type(name, (), {"__module__": module}))
    dill = ModuleType("dill._dill")

    def _load_type(name):
        """What dill writes in the place of a built-in type."""

    _load_type.__module__, _load_type.__qualname__ = "dill._dill", "_load_type"
    dill._load_type = _load_type  # type: ignore[attr-defined]
    packages = {name: ModuleType(name) for name in ("omegaconf", "dill")}
    return {**packages, **modules, "dill._dill": dill}


MODULES = _modules()


class LoadedType:
    """A built-in type, as dill writes it."""

    def __reduce__(self):
        return MODULES["dill._dill"]._load_type, ("dict",)


@contextmanager
def importable():
    """The names can be written only while they can be imported."""
    sys.modules.update(MODULES)
    try:
        yield
    finally:
        for name in MODULES:
            del sys.modules[name]


def configuration(tree: Any, parent: Any = None) -> Any:
    """A tree of dicts, lists and values as OmegaConf's nodes, with what else lies in their states."""
    kind = {dict: "dictconfig.DictConfig", list: "listconfig.ListConfig"}.get(type(tree), "nodes.AnyNode")
    module, _, name = f"omegaconf.{kind}".rpartition(".")
    node = getattr(MODULES[module], name)()
    metadata = MODULES["omegaconf.base"].ContainerMetadata()
    metadata.__dict__.update(ref_type=Any, object_type=LoadedType(), flags={}, resolver_cache=defaultdict(dict))
    node.__dict__.update(_metadata=metadata, _parent=parent)
    if isinstance(tree, dict):
        node._content = {key: configuration(value, node) for key, value in tree.items()}
    elif isinstance(tree, list):
        node._content = [configuration(value, node) for value in tree]
    else:
        node._val = tree
    return node


@pytest.fixture
def omegaconf():
    """omegaconf(tree, path): write the tree as a DictConfig; read it back -> an Inert."""

    def make(tree, path):
        with importable():
            torch.save(configuration(tree), path)
        with open_torch_file(path) as contents:
            return contents

    return make


@pytest.fixture
def torch_zip():
    """torch_zip(path, pickled, records): a file of torch.save with any bytes for a pickle."""

    def write(path, pickled: bytes, records: dict[str, bytes] | None = None, **how):
        with zipfile.ZipFile(path, "w", **how) as file:
            file.writestr("archive/data.pkl", pickled)
            for name, data in (records or {}).items():
                file.writestr(f"archive/{name}", data)
        return path

    return write


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.told = function, arguments

    def __reduce__(self):
        return self.told


@pytest.fixture
def call():
    return Call


# -- Diffusion Policy --------------------------------------------------------------------------------------------------

SCHEDULER = {
    "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
    "num_train_timesteps": 50,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
}
POLICIES = {
    TransformerForDiffusion: "transformer_lowdim_policy.DiffusionTransformerLowdimPolicy",
    ConditionalUnet1D: "unet_lowdim_policy.DiffusionUnetLowdimPolicy",
}


def stanford_configuration(network) -> dict[str, Any]:
    """The parts of a hydra configuration that a checkpoint is read by, with the library's interpolations."""
    c = network.config
    model: dict[str, Any]
    if isinstance(network, TransformerForDiffusion):
        model = {
            "input_dim": "${eval:'${action_dim} if ${obs_as_cond} else ${obs_dim} + ${action_dim}'}",
            "n_head": c.heads,
            "p_drop_emb": 0.0,
            "p_drop_attn": 0.3,
            "time_as_cond": True,
            "obs_as_cond": "${obs_as_cond}",
        }
        flags = {"obs_as_cond": "${obs_as_cond}"}
    else:
        model = {"n_groups": c.groups, "local_cond_dim": None, "down_dims": list(c.down_dims)}
        flags = {"obs_as_global_cond": True, "obs_as_local_cond": False, "oa_step_convention": True}
    return {
        "task_name": "${task.name}",
        "task": {"name": "pusht_lowdim"},
        "horizon": c.horizon,
        "n_obs_steps": c.n_obs_steps,
        "n_action_steps": c.n_action_steps - 1,
        "n_latency_steps": 1,
        "obs_dim": c.observation_dim,
        "action_dim": c.action_dim,
        "obs_as_cond": True,
        "policy": {
            "_target_": f"diffusion_policy.policy.diffusion_{POLICIES[type(network)]}",
            "model": model,
            "noise_scheduler": {**SCHEDULER, "num_train_timesteps": c.train_levels},
            "horizon": "${horizon}",
            "n_action_steps": "${eval:'${n_action_steps}+${n_latency_steps}'}",
            "n_obs_steps": "${n_obs_steps}",
            "num_inference_steps": 100,
            "pred_action_steps_only": False,
            **flags,
        },
        "training": {"use_ema": True},
        "logging": {"name": "${now:%Y.%m.%d}_${name}", "tags": ["${task_name}", "default"]},
    }


def stanford_state(network, normaliser) -> dict[str, torch.Tensor]:
    """A policy's state_dict."""
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    for key in ("obs", "action"):
        scale, offset = getattr(normaliser, f"{key}_scale"), getattr(normaliser, f"{key}_offset")
        told = {"scale": scale, "offset": offset}
        told |= {"input_stats.min": (-1 - offset) / scale, "input_stats.max": (1 - offset) / scale}
        state |= {f"normalizer.params_dict.{key}.{name}": value for name, value in told.items()}
    return {**state, "mask_generator._dummy_variable": torch.empty(0), "_dummy_variable": torch.empty(0)}


class StanfordFile:
    """A checkpoint of a network before it is written: change what it holds, then `write`."""

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint
        self.cfg = stanford_configuration(checkpoint.network)
        ema = stanford_state(checkpoint.network, checkpoint.normaliser)
        trained = {name: value + 1 for name, value in ema.items()}
        moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}
        optimiser = {"state": moments, "param_groups": [{"lr": 1e-4, "betas": (0.95, 0.999), "params": [0]}]}
        self.state_dicts = {"model": trained, "ema_model": ema, "optimizer": optimiser}

    def write(self, path):
        payload = {"cfg": configuration(self.cfg), "state_dicts": self.state_dicts}
        with importable():
            torch.save({**payload, "pickles": {"epoch": pickle.dumps(7)}}, path)
        return path


@pytest.fixture
def stanford_file():
    """stanford_file(checkpoint) -> a StanfordFile."""
    return StanfordFile


# -- LeRobot -----------------------------------------------------------------------------------------------------------

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"


def lerobot_names(weights) -> dict[str, torch.Tensor]:
    """Our names of a U-Net's weights, and of its one or more encoders of images -> LeRobot's, of one or of each."""
    stages = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    shared = not any(name.startswith("cameras.encoders.1.") for name in weights)

    def renamed(name):
        if name.startswith("cameras."):
            name = re.sub(r"(?<=backbone\.)\w+", lambda found: str(stages[found[0]]), name)
            which, _, part = name.removeprefix("cameras.encoders.").partition(".")
            return "diffusion.rgb_encoder." + (part if shared else f"{which}.{part}")
        name = re.sub(r"\.blocks\.([01])\.block\.", lambda found: f".conv{int(found[1]) + 1}.block.", name)
        return "diffusion.unet." + re.sub(r"(_modules\.\d\.2)\.conv\.", r"\1.", name)

    return {renamed(name): value for name, value in weights.items()}


class LeRobotFolder:
    """A checkpoint of a U-Net before it is written. The first `state` numbers of an observation are the robot's; the
    rest are its cameras' or, without cameras, the environment's."""

    def __init__(self, network, state: int, seed: int = 0):
        c, rng = network.config, np.random.default_rng(seed)
        image = [3, c.image_size, c.image_size]
        rest = dict.fromkeys(c.cameras, image) or {ENVIRONMENT: [c.observation_dim - state]}
        shapes = {STATE: [state], **rest, "action": [c.action_dim]}
        kinds = {STATE: "STATE", ENVIRONMENT: "ENV", "action": "ACTION"}
        features = {name: {"type": kinds.get(name, "VISUAL"), "shape": shape} for name, shape in shapes.items()}
        self.modes = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"}
        self.config: dict[str, Any] = {
            "type": "diffusion",
            "input_features": {name: features[name] for name in (*rest, STATE)},
            "output_features": {"action": features["action"]},
            "normalization_mapping": self.modes,
            **{name: getattr(c, name) for name in ("horizon", "n_obs_steps", "n_action_steps", "kernel_size")},
            "down_dims": list(c.down_dims),
            "n_groups": c.groups,
            "diffusion_step_embed_dim": c.step_width,
            "use_film_scale_modulation": c.film_scale,
            "noise_scheduler_type": "DDPM",
            "num_train_timesteps": c.train_levels,
            "beta_schedule": "squaredcos_cap_v2",
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "prediction_type": "epsilon",
            "clip_sample": True,
            "clip_sample_range": 1.0,
            "num_inference_steps": None,
        }
        self.features, self.weights = features, lerobot_names(network.state_dict())
        self.statistics = {name: _statistics(rng, shape[0]) for name, shape in shapes.items()}
        if c.cameras:
            crop = [c.camera_crop, c.camera_crop] if c.camera_crop else None
            self.config |= {"vision_backbone": "resnet18", "use_group_norm": True, "crop_shape": crop}
            self.config |= {"crop_is_random": True, "use_separate_rgb_encoder_per_camera": len(c.cameras) > 1}
            for name in c.cameras:
                self.statistics[name] = {stat: v.reshape(3, 1, 1) for stat, v in self.statistics[name].items()}
            side = -(-(c.camera_crop or c.image_size) // 32)
            places = torch.cartesian_prod(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side)).flip(1)
            for i in range(len(c.cameras)):
                at = f"{i}." if len(c.cameras) > 1 else ""
                self.weights[f"diffusion.rgb_encoder.{at}pool.pos_grid"] = places.clone()

    def write(self, folder):
        """With today's pipelines."""
        folder.mkdir()
        flat = {f"{name}.{stat}": value for name, one in self.statistics.items() for stat, value in one.items()}
        settings = {"eps": 1e-8, "features": self.features, "norm_map": self.modes}
        for pipeline, step in (("preprocessor", "normalizer"), ("postprocessor", "unnormalizer")):
            file = f"policy_{pipeline}_step_1_{step}_processor.safetensors"
            one = {"registry_name": f"{step}_processor", "config": settings, "state_file": file}
            steps = [{"registry_name": "device_processor", "config": {"device": "cpu"}}, one]
            (folder / f"policy_{pipeline}.json").write_text(json.dumps({"name": pipeline, "steps": steps}))
            save_file(flat, folder / file)
        return self._write_rest(folder, {})

    def write_legacy(self, folder):
        """With the statistics among the weights, as before the pipelines."""
        folder.mkdir()
        buffers = {}
        for name, one in self.statistics.items():
            for part in ["normalize_targets", "unnormalize_outputs"] if name == "action" else ["normalize_inputs"]:
                prefix = f"{part}.buffer_{name.replace('.', '_')}"
                buffers |= {f"{prefix}.{stat}": value.clone() for stat, value in one.items()}
        return self._write_rest(folder, buffers)

    def _write_rest(self, folder, buffers):
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file({**self.weights, **buffers}, folder / "model.safetensors")
        return folder


def _statistics(rng, width):
    low = rng.normal(size=width)
    found = {"min": low, "max": low + rng.uniform(0.5, 3, width), "mean": rng.normal(size=width)}
    return {
        name: torch.tensor(v, dtype=torch.float32) for name, v in {**found, "std": rng.uniform(0.1, 2, width)}.items()
    }


@pytest.fixture
def lerobot_folder():
    """lerobot_folder(network, state=2) -> a LeRobotFolder."""

    def make(network, state=2):
        return LeRobotFolder(network, state)

    return make


@pytest.fixture
def unet(random_network):
    """unet(**changes) -> a small random U-Net."""

    def make(seed=0, **changes):
        shape = {"action_dim": 2, "observation_dim": 5, "horizon": 8, "n_obs_steps": 2, "n_action_steps": 4}
        small = {"down_dims": (16, 32), "kernel_size": 3, "step_width": 8, "train_levels": 50}
        return random_network(UNetConfig(**{**shape, **small, **changes}), seed, ConditionalUnet1D)

    return make
