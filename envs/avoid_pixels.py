"""Avoid, seen by a camera that the tool carries: where the obstacles are stands in the picture alone.

Physics, actions and success are Avoid's. Avoid's obstacles lie within a centimetre of places that can be learnt by
heart, so here each row is shifted sideways besides, further than the gap that is left to an obstacle.
"""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from .avoid import ROW_OF_OBSTACLE, AvoidEnv, mujoco
from .rendering import Camera

CAMERA, SIZE = "carried", 64
STATE_DIM = 2
OBSERVATION_DIM = STATE_DIM + 3 * SIZE * SIZE
ROW_SHIFT_M = (0.06, 0.06, 0.04)  # at most, to either side; the walls leave the last row the least


class AvoidPixelsEnv(AvoidEnv):
    """Observation float32 [2 + 3 * 64 * 64], action float32 [2] in [-1, 1] as Avoid's.

    Observation: tool (x, y), in metres; then the picture, from 0 to 1: red, green and blue, each row by row from the
    top left. The camera looks down from 0.45 m above the tool's middle; of what is as high as that, 3.5 cm, the picture
    shows 18 cm to either side, 6 cm back and 30 cm ahead. `info` has Avoid's own besides, `expert_observation` [6].

    The state leaves out how far the target is from the tool, which Avoid tells: it tells what the demonstrator does at
    this moment, and a policy learns to go on with that sooner than to look where the obstacles are.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._eye = Camera(self._model, name=CAMERA, width=SIZE, height=SIZE)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION_DIM,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Start an episode: Avoid's of that seed, its rows shifted as the seed says."""
        _, info = super().reset(seed=seed, options=options)
        drawn = np.random.default_rng([info["seed"], 3]).uniform(-1.0, 1.0, len(ROW_SHIFT_M))  # a stream of its own
        self._obstacles_m[:, 0] += (drawn * ROW_SHIFT_M)[list(ROW_OF_OBSTACLE)]
        self._model.body_pos[self._obstacle_bodies, :2] = self._obstacles_m
        mujoco.mj_forward(self._model, self._data)
        self._clearance_m = self._gap_to_nearest_m()
        return self._observation(), {**info, **self._info()}

    def close(self) -> None:
        """Free the renderers."""
        self._eye.close()
        super().close()

    def _observation(self) -> NDArray[Any]:
        pixels = self._eye.frame(self._data).transpose(2, 0, 1).ravel() / np.float32(255)
        return np.concatenate([super()._observation()[:STATE_DIM].astype(np.float32), pixels])

    def _info(self) -> dict[str, Any]:
        return {**super()._info(), "expert_observation": super()._observation()}
