"""The scenes that clips are made of, by name. What a scene makes is a function of its recipe alone."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..envs.seeds import SEEDS_PER_BASE, demonstration_seeds
from ..errors import InputError
from ..video.clips import Clips

Progress = Callable[[int], object]  # told how many episodes were finished since the last call


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a set of clips. Raises InputError for what no scene can make."""

    scene: str
    episodes: int
    frames_per_episode: int
    seed: int = 0  # two seeds share no episode
    size: int | None = None  # pixels of a side; None is the scene's own

    def __post_init__(self) -> None:
        if self.scene not in SCENES:
            raise InputError(f"got no scene {self.scene!r}, wanted one of {', '.join(SCENES)}")
        if not 1 <= self.episodes <= SEEDS_PER_BASE // 20:
            raise InputError(f"got {self.episodes} episodes, wanted 1 to {SEEDS_PER_BASE // 20}")
        if not 2 <= self.frames_per_episode <= 100_000:
            raise InputError(f"got {self.frames_per_episode} frames an episode, wanted 2 to 100000")
        if self.size is None:  # noted as the number it is, so that naming the default makes no other recipe
            object.__setattr__(self, "size", SIZES[self.scene])
        if not 8 <= self.pixels <= 512:
            raise InputError(f"got frames of {self.size} pixels, wanted 8 to 512")
        demonstration_seeds(self.seed, 1)  # checks the base

    @property
    def pixels(self) -> int:
        """Of a side of a frame."""
        return self.size or 0

    @property
    def seeds(self) -> list[int]:
        """Of the episodes."""
        return demonstration_seeds(self.seed, self.episodes)


def make_clips(recipe: Recipe, progress: Progress = lambda finished: None) -> Clips:
    """The clips of `recipe`; `progress` is told of finished episodes. Raises InputError where it cannot be made."""
    return SCENES[recipe.scene](recipe, progress)


def difference(found: dict[str, Any], recipe: Recipe) -> str | None:
    """Where the attributes of clips differ from `recipe`, such as "seed 1, not 0"; None where they do not."""
    for key, wanted in asdict(recipe).items():
        if found.get(key) != wanted:
            return f"{key} {found.get(key)}, not {wanted}"
    return None


def _arm_and_ball(recipe: Recipe, progress: Progress) -> Clips:
    """uint8 frames [F, 64, 64, 3] and actions [F, 2]; frame i is the one after action i."""
    from ..envs.arm_and_ball import FPS, ArmAndBall, model_digest, random_actions

    size, seeds = recipe.pixels, recipe.seeds
    frames = np.empty((recipe.episodes * recipe.frames_per_episode, size, size, 3), np.uint8)
    actions = np.concatenate([random_actions(seed, recipe.frames_per_episode) for seed in seeds])
    scene = ArmAndBall(size)
    try:
        for row, action in enumerate(actions):
            episode, step = divmod(row, recipe.frames_per_episode)
            if step == 0:
                scene.reset(seeds[episode])
            frames[row] = scene.step(action)
            if step == recipe.frames_per_episode - 1:
                progress(1)
    finally:
        scene.close()
    return _clips(recipe, frames, actions, kind="rgb", fps=FPS, model=model_digest())


def _kolmogorov(recipe: Recipe, progress: Progress) -> Clips:
    """float32 vorticity [F, 32, 32, 1], without actions."""
    from .kolmogorov import FPS, vorticity_clips

    size = recipe.pixels
    fields = vorticity_clips(recipe.seeds, recipe.frames_per_episode, size, progress)
    frames = fields.reshape(-1, size, size, 1).astype(np.float32)
    return _clips(recipe, frames, kind="field", fps=FPS, scale=float(frames.std(dtype=np.float64)))


def _sprites(recipe: Recipe, progress: Progress) -> Clips:
    """uint8 frames [F, 32, 32, 3], without actions. `sprites.trajectory` gives the true centres of `recipe.seeds`."""
    from .sprites import FPS, draw, trajectory

    size, made = recipe.pixels, []
    for seed in recipe.seeds:
        made.append(draw(trajectory(seed, recipe.frames_per_episode, size)))
        progress(1)
    return _clips(recipe, np.concatenate(made), kind="rgb", fps=FPS)


def _clips(recipe: Recipe, frames: np.ndarray, actions: np.ndarray | None = None, **attributes: Any) -> Clips:
    if actions is None:
        actions = np.zeros((len(frames), 0), np.float32)
    ends = recipe.frames_per_episode * np.arange(1, recipe.episodes + 1, dtype=np.int64)
    return Clips(frames, actions, ends, asdict(recipe) | attributes)


SCENES: dict[str, Callable[[Recipe, Progress], Clips]] = {
    "arm-and-ball": _arm_and_ball,
    "kolmogorov": _kolmogorov,
    "sprites": _sprites,
}
SIZES = {"arm-and-ball": 64, "kolmogorov": 32, "sprites": 32}  # pixels of a side, where none is asked for
