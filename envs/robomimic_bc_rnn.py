"""robomimic's BC-RNN as a baseline: a recurrent network whose answer is a Gaussian mixture, its published variant.

    policy = train_bc_rnn(read_demonstrations("demos.hdf5"), seed=0)
    policy.save(folder); policy = BCRNNPolicy.load(folder, width=16)

Legend: L lanes asked, W width, Do, Da, K components of the mixture, H numbers in a layer's state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from .demonstrations import Demonstrations
from .robomimic_algorithm import EPOCHS, OnStep, about_demonstrations, bc_algorithm, check_training, train_actor
from .robomimic_hdf5 import OBSERVATION_KEY
from .robomimic_policy import RobomimicPolicy

# robomimic's names and published numbers for low-dimensional observations (its generate_paper_configs.py)
RNN = {"horizon": 10, "hidden_dim": 400, "num_layers": 2}
GMM = {"num_modes": 5}
DRAW_STREAM = 0xB7C4  # a key of (seed, 0) alone would draw what the environment draws from its seed


@dataclass
class _Lane:
    """One episode: its seed, the calls so far, and the LSTM's hidden and cell state [layers, H], None when fresh."""

    seed: int
    calls: int = 0
    state: tuple[torch.Tensor, torch.Tensor] | None = None


class BCRNNPolicy(RobomimicPolicy):
    """An LSTM that remembers the observations since its last fresh start, which comes every `horizon` calls.

    As in robomimic's rollouts, an action is drawn from the mixture with all standard deviations set to 1e-4. The draw
    is keyed by the lane's seed and how often the lane was asked, so it does not depend on its neighbours. Converted
    checkpoints may have no mixture (`about["gmm"]` is None): their action is the network's answer.
    """

    family = "robomimic-bc-rnn"

    def __init__(
        self, network: torch.nn.Module, mean: np.ndarray, std: np.ndarray, about: dict[str, Any], width: int = 1
    ) -> None:
        super().__init__(network, mean, std, about, width)
        self._horizon = int(about["rnn"]["horizon"])
        self._lanes: dict[int, _Lane] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Forget what each lane has seen; its draws follow from its seed."""
        for lane, seed in zip(lanes, seeds, strict=True):
            self._lanes[lane] = _Lane(int(seed))

    def predict_with_tail(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        """obs float32 [L, 1, Do] -> actions float32 [L, 1, Da]; each call is one step of its lanes. Raises InputError
        for another shape, a NaN, a lane named twice or never reset."""
        if len(set(lanes)) < len(lanes):
            raise InputError(f"got lanes {list(lanes)}, which name one lane twice; a lane has one action a call")
        unknown = [lane for lane in lanes if lane not in self._lanes]
        if unknown:
            raise InputError(f"got lanes {unknown}, which were never reset; call reset(lanes, seeds) first")
        return super().predict_with_tail(obs, lanes)

    def _act(self, rows: torch.Tensor, lanes: Sequence[int]) -> np.ndarray:
        asked = [self._lanes[lane] for lane in lanes]
        hidden, cell = self.network.get_rnn_init_state(batch_size=len(rows), device=rows.device)  # [layers, W, H]
        for i, lane in enumerate(asked):
            if lane.state is not None:
                hidden[:, i], cell[:, i] = lane.state
        told, state = {OBSERVATION_KEY: rows}, (hidden, cell)
        if self.about["gmm"] is None:
            actions, (hidden, cell) = self.network.forward_step(told, rnn_state=state)
            actions = actions[: len(asked)].numpy()
        else:
            mixture, (hidden, cell) = self.network.forward_train_step(told, rnn_state=state)
            actions = draw(mixture, [lane.seed for lane in asked], [lane.calls for lane in asked])
        for i, lane in enumerate(asked):
            lane.calls += 1
            lane.state = (hidden[:, i], cell[:, i]) if lane.calls % self._horizon else None
        return actions

    @staticmethod
    def _network(observation_dim: int, about: dict[str, Any]) -> torch.nn.Module:
        settings = _settings(about["rnn"], about["gmm"], tuple(about.get("layers", ())))
        return bc_algorithm(observation_dim, int(about["action_dim"]), settings).nets["policy"]


def train_bc_rnn(
    demonstrations: Demonstrations,
    steps: int = 4000,
    seed: int = 0,
    *,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    width: int = 1,
    on_step: OnStep = lambda step, loss: None,
) -> BCRNNPolicy:
    """Train robomimic's BC-RNN (an LSTM, likelihood of a Gaussian mixture) on robomimic demonstrations, on the CPU.

    A sample is `horizon` consecutive steps of an episode, padded with its last step, as `SequenceDataset` gives
    them. Equal arguments give equal weights, already rounded to fp16. `on_step(step, loss)` is called after each step.
    """
    check_training(steps, batch_size, learning_rate)
    training = {"steps": steps, "seed": seed, "batch_size": batch_size, "learning_rate": learning_rate}
    sequences = partial(sequence_frames, torch.from_numpy(demonstrations.episode_ends))
    settings = _settings(RNN, GMM)
    network, mean, std = train_actor(demonstrations, settings, **training, frames_of=sequences, on_step=on_step)
    about = about_demonstrations(demonstrations) | {"rnn": RNN, "gmm": GMM, "training": training}
    return BCRNNPolicy(network, mean, std, about, width)


def sequence_frames(episode_ends: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """int64 ends [E] and first frames [B] -> the frames [B, horizon] of each sequence; an episode's last repeats."""
    last = episode_ends[torch.searchsorted(episode_ends, first, right=True)] - 1
    return torch.minimum(first[:, None] + torch.arange(RNN["horizon"]), last[:, None])


def draw(mixture: Any, seeds: Sequence[int], calls: Sequence[int]) -> np.ndarray:
    """An action [L, Da] for each key from torch's MixtureSameFamily of W >= L rows: first a component, then within."""
    keyed = [np.random.default_rng([DRAW_STREAM, *key]) for key in zip(seeds, calls, strict=True)]
    share = torch.tensor([rng.random() for rng in keyed], dtype=torch.float64)[:, None]
    normal = torch.from_numpy(np.stack([rng.standard_normal(mixture.event_shape[0]) for rng in keyed])).float()
    below = mixture.mixture_distribution.probs[: len(seeds)].double().cumsum(1)[:, :-1]
    chosen = torch.arange(len(seeds)), (below < share).sum(1)
    gaussians = mixture.component_distribution.base_dist  # loc and scale [W, K, Da]
    return (gaussians.loc[chosen] + gaussians.scale[chosen] * normal).numpy()


def _settings(rnn: dict[str, int], gmm: dict[str, Any] | None, layers: tuple[int, ...] = ()) -> dict[str, Any]:
    """gmm: None for the plain BC-RNN; layers: between the LSTM and the answer, none as published. The learning rate
    falls, because a short training at a high rate would end on a loss that still jumps."""
    falling = {"scheduler_type": "linear", "epoch_schedule": [EPOCHS], "decay_factor": 0.01}
    return {
        "actor_layer_dims": layers,
        "rnn": {"enabled": True, **rnn},
        "gmm": {"enabled": gmm is not None, **(gmm or {})},
        "optim_params": {"policy": {"learning_rate": falling}},
    }
