"""A robomimic checkpoint, converted, beside robomimic itself: the actions of one episode.

    python benchmarks/parity_robomimic.py runs/parity-robomimic --json benchmarks/results/parity-robomimic.json

BC, BC-RNN and BC-RNN-GMM of published sizes, untrained, all weights random, each saved by robomimic's `save_model`,
with observations as they are and normalised. `ontick` converts the file; robomimic reads it by its
`policy_from_checkpoint`. Both see the same observations. A mixture's actions are drawn by robomimic's global generator,
ours by keys: so those of BC-RNN-GMM are drawn by the same keys from robomimic's own mixture.
"""

import argparse
import contextlib
import io
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ontick._torchvision import ensure_torchvision
from ontick.envs.robomimic_bc_rnn import draw
from ontick.envs.robomimic_checkpoint import from_robomimic
from ontick.files import check_place, write_whole
from ontick.policy.foreign import open_torch_file, tensors

STEPS, SEED, ACTION = 20, 5, 7
SHAPES = OrderedDict(object=[10], robot0_eef_pos=[3], robot0_eef_quat=[4], robot0_gripper_qpos=[2])
ENVIRONMENT = {"env_name": "Lift", "type": 1, "env_version": "1.4.1", "env_kwargs": {"robots": ["Panda"]}}
RNN = {"enabled": True, "horizon": 10, "hidden_dim": 400, "num_layers": 2}
POLICIES: dict[str, dict[str, Any]] = {
    "BC": {"actor_layer_dims": (1024, 1024)},
    "BC-RNN": {"actor_layer_dims": (), "rnn": RNN},
    "BC-RNN-GMM": {"actor_layer_dims": (), "rnn": RNN, "gmm": {"enabled": True, "num_modes": 5}},
}


def main(folder: Path, output: Path | None) -> None:
    results = {}
    for policy in POLICIES:
        for normalised in (False, True):
            name = f"{policy}{'-normalised' if normalised else ''}"
            path = _write(folder / f"{name}.pth", policy, normalised)
            ours, theirs = _ours(path), _theirs(path)
            largest = float(np.abs(theirs).max())
            results[name] = {"actions": float(np.abs(ours - theirs).max()), "values_to": largest}
            print(f"{name:<22} largest difference {results[name]['actions']:.2e}, of values up to {largest:.2f}")
    if output is not None:
        told = {"largest_difference": results, "steps": STEPS, "versions": _versions()}
        write_whole(output, json.dumps(told, indent=2) + "\n")


def _write(path: Path, policy: str, normalised: bool) -> Path:
    from robomimic.algo import algo_factory
    from robomimic.config import config_factory
    from robomimic.utils import obs_utils, train_utils

    config = config_factory("bc")
    with config.values_unlocked():
        config.observation.modalities.obs.low_dim = list(SHAPES)
        config.train.hdf5_normalize_obs = normalised
        config.algo.update(POLICIES[policy])
    rng, keys = np.random.default_rng(0), torch.Generator().manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        obs_utils.initialize_obs_utils_with_config(config)
        algorithm = algo_factory("bc", config, SHAPES, ACTION, torch.device("cpu"))
        for value in algorithm.nets.parameters():
            spread = 1.5 / value.shape[-1] ** 0.5 if value.dim() > 1 else 0.3
            value.data.copy_(torch.randn(value.shape, generator=keys) * spread)
        shapes = {"ac_dim": ACTION, "all_shapes": SHAPES, "all_obs_keys": list(SHAPES), "use_images": False}
        told = {
            key: {"mean": rng.normal(size=(1, n)), "std": rng.uniform(0.3, 3, (1, n))} for key, (n,) in SHAPES.items()
        }
        train_utils.save_model(algorithm, config, ENVIRONMENT, shapes, str(path), told if normalised else None)
    parameters = sum(value.numel() for value in algorithm.nets.parameters())
    print(f"{path.name}: {parameters / 1e6:.2f} M parameters")
    return path


def _rows() -> np.ndarray:
    """The episode's observations, [STEPS, Do]."""
    width = sum(n for (n,) in SHAPES.values())
    return np.random.default_rng(7).normal(size=(STEPS, width)).astype(np.float32)


def _ours(path: Path) -> np.ndarray:
    with open_torch_file(path) as contents:
        policy = from_robomimic(contents, tensors(contents["model"], "model"), path.name)
    policy.reset([0], [SEED])
    return np.stack([policy.predict_action_chunk(row[None, None], [0])[0, 0] for row in _rows()])


@torch.no_grad()
def _theirs(path: Path) -> np.ndarray:
    from robomimic.utils import file_utils

    with contextlib.redirect_stdout(io.StringIO()):
        policy, _ = file_utils.policy_from_checkpoint(device=torch.device("cpu"), ckpt_path=str(path))
    policy.start_episode()
    ends = np.cumsum([n for (n,) in SHAPES.values()])[:-1]
    observations = [dict(zip(SHAPES, np.split(row, ends), strict=True)) for row in _rows()]
    if "GMM" not in path.name:
        return np.stack([policy(told) for told in observations])
    return np.stack(_drawn(policy, observations))


def _drawn(policy: Any, observations: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """Of each step's mixture; the memory begins anew as in robomimic's own rollouts."""
    network, state, actions = policy.policy.nets["policy"], None, []
    for call, told in enumerate(observations):
        state = None if call % RNN["horizon"] == 0 else state
        mixture, state = network.forward_train_step(policy._prepare_observation(told), rnn_state=state)
        actions.append(draw(mixture, [SEED], [call])[0])
    return actions


def _versions() -> dict[str, str]:
    import robomimic

    return {"robomimic": robomimic.__version__, "torch": torch.__version__, "numpy": np.__version__}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the checkpoints are written")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.json is not None:
        check_place(options.json)
    torch.set_num_threads(1)
    ensure_torchvision()
    main(options.folder, options.json)
