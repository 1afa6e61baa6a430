"""Collecting expert demonstrations: DART-style, resumable, and the same for any number of workers.

The expert's action is recorded and a noisy copy of it is executed (Laskey et al., DART, 2017). The noise leads the
robot beside the expert's path, where the recorded action still says how to come back: coverage with clean labels.
With styles, each episode's expert has a manner of its own besides.
"""

import json
import multiprocessing
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ..errors import InputError
from ..files import whole
from .demonstrations import Demonstrations
from .seeds import SEEDS_PER_BASE, demonstration_seeds
from .tasks import Expert, Task, find_task

MIN_SUCCESS = 0.1  # an expert that succeeds less often is refused, not waited for


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a set of demonstrations."""

    task: str
    episodes: int
    seed: int = 0
    noise: float = 0.1  # standard deviation added to each executed action, of a range of [-1, 1]
    settle_steps: int = 10  # recorded after success, so that the last chunks have a target at rest
    styled: bool = False  # each episode in a manner of its own, or all in the plain one

    def __post_init__(self) -> None:
        find_task(self.task)
        if not 1 <= self.episodes <= SEEDS_PER_BASE // 20:
            raise InputError(f"got {self.episodes} episodes, wanted 1 to {SEEDS_PER_BASE // 20}")
        if not (np.isfinite(self.noise) and 0.0 <= self.noise <= 1.0):
            raise InputError(f"got noise {self.noise}, wanted a standard deviation of 0 to 1")
        if not 0 <= self.settle_steps <= find_task(self.task).max_steps:
            raise InputError(f"got {self.settle_steps} settling steps, wanted 0 or a few")
        demonstration_seeds(self.seed, 1)  # checks the base


@dataclass(frozen=True)
class Episode:
    """One attempt of the expert: t rows, and the row at which it succeeded, or -1."""

    seed: int
    observations: np.ndarray  # float32 [t, Do]
    actions: np.ndarray  # float32 [t, Da], what the expert wanted
    success_step: int
    mode: str | None = None  # which of the task's ways was taken; None where it does not tell
    states: np.ndarray | None = None  # float64 [t, Ds], before each step; None where the environment does not tell
    scene: str | None = None  # XML; None where the environment does not tell


def expert_of(recipe: Recipe, seed: int) -> Expert:
    """The expert for the episode of that seed. Its style is drawn from a stream of its own."""
    return find_task(recipe.task).expert(np.random.default_rng([seed, 2]) if recipe.styled else None)


def record_episode(env: gymnasium.Env, expert: Expert, task: Task, recipe: Recipe, seed: int) -> Episode:
    """Let the expert act until it has succeeded and settled, or the episode ends. A function of the seed alone.

    An environment that ends the episode without success (a contact, on Avoid) makes it a failed attempt.
    Where `info` has an `expert_observation`, the expert is shown it: what a policy has to find in the pixels.
    """
    noise = np.random.default_rng([seed, 1])  # a stream of its own: the environment draws from the bare seed
    observations, actions, states, success_step = [], [], [], -1
    simulator = getattr(env, "unwrapped", env)
    state_of = getattr(simulator, "simulator_state", None)
    observation, info = env.reset(seed=seed)
    scene = simulator.scene_xml() if state_of else None  # type: ignore[union-attr]
    for step in range(task.max_steps):
        observations.append(np.array(observation, np.float32))  # first: some scripts write into what they are given
        if state_of:
            states.append(state_of())
        wanted = expert(info.get("expert_observation", observation))
        actions.append(wanted)
        disturbed = wanted + recipe.noise * noise.standard_normal(wanted.shape)
        observation, _, terminated, truncated, info = env.step(np.clip(disturbed, -1.0, 1.0).astype(np.float32))
        if info["success"] and success_step < 0:
            success_step = step
        if terminated and not info["success"]:
            success_step = -1
        if terminated or truncated or 0 <= success_step <= step - recipe.settle_steps:
            break
    told = np.stack(states) if state_of else None
    return Episode(seed, np.stack(observations), np.stack(actions), success_step, info.get("mode"), told, scene)


def collect(
    recipe: Recipe,
    partial: Path,
    workers: int = 1,
    on_episode: Callable[[Episode], None] = lambda _: None,
) -> Demonstrations:
    """The first `episodes` successful demonstrations, in the order of their seeds.

    Each attempt is kept in the folder `partial` as soon as it is over; a second call with the same recipe goes on
    from there. The caller deletes the folder once the demonstrations are saved. Raises InputError where the folder
    belongs to another recipe or the expert nearly always fails.
    """
    if workers < 1:
        raise InputError(f"got {workers} workers, wanted at least 1")
    _claim(partial, recipe)
    kept: list[Episode] = []
    failed: list[int] = []
    with _mapper(recipe, partial, workers) as attempt_all:
        while len(kept) < recipe.episodes:
            # As many attempts as episodes are missing: so the kept ones never depend on who finished first.
            tried, missing = len(kept) + len(failed), recipe.episodes - len(kept)
            if tried >= 20 and len(kept) < MIN_SUCCESS * tried:
                raise InputError(f"got {len(kept)} successes in {tried} attempts at {recipe.task}: lower --noise")
            seeds = demonstration_seeds(recipe.seed, tried + missing)[tried:]
            for seed in attempt_all(seeds):
                episode = _load(partial, seed)
                if episode.success_step < 0:
                    failed.append(seed)
                else:
                    kept.append(episode)
                on_episode(episode)
    return _joined(recipe, kept, failed)


def discard(partial: Path) -> None:
    """Delete the attempts, once the demonstrations made of them are saved."""
    shutil.rmtree(partial, ignore_errors=True)


def attributes_of(recipe: Recipe) -> dict[str, Any]:
    """What a file says about its making; a file with other values holds other demonstrations."""
    expert = "scripted, styled" if recipe.styled else "scripted"
    return {**asdict(recipe), "versions": find_task(recipe.task).version, "expert": expert}


def difference(found: dict[str, Any], recipe: Recipe) -> str | None:
    """Where a file's attributes differ from the recipe's, such as "noise 0.1, not 0.3"; None where they do not."""
    found = {"styled": False} | found  # older files do not say
    for key, wanted in attributes_of(recipe).items():
        if found.get(key) != wanted:
            return f"{key} {found.get(key)}, not {wanted}"
    return None


def _joined(recipe: Recipe, kept: list[Episode], failed: list[int]) -> Demonstrations:
    modes = [episode.mode for episode in kept if episode.mode is not None]
    states = [episode.states for episode in kept if episode.states is not None]
    scenes = [episode.scene for episode in kept if episode.scene is not None]
    return Demonstrations(
        observations=np.concatenate([episode.observations for episode in kept]),
        actions=np.concatenate([episode.actions for episode in kept]),
        episode_ends=np.cumsum([len(episode.actions) for episode in kept], dtype=np.int64),
        attributes=attributes_of(recipe)
        | {
            "seeds": [episode.seed for episode in kept],
            "failed_seeds": failed,
            "success_steps": [episode.success_step for episode in kept],
        }
        | ({"modes": modes} if modes else {})
        | _about_environment(find_task(recipe.task)),
        states=np.concatenate(states) if states else None,
        scenes=tuple(scenes),
    )


def _about_environment(task: Task) -> dict[str, Any]:
    """What robomimic's files keep of an environment, where the task tells it; as JSON gives it back."""
    about: dict[str, Any] = {}
    if task.observation_keys:
        about["observation_keys"] = [list(part) for part in task.observation_keys]
    if task.env_args is not None:
        about["env_args"] = task.env_args()
    return about


def _claim(partial: Path, recipe: Recipe) -> None:
    """Mark the folder as belonging to this recipe, or make sure that it does. The episode count may differ."""
    note = partial / "recipe.json"
    if note.exists():
        if difference(json.loads(note.read_text()) | {"episodes": recipe.episodes}, recipe):
            raise InputError(f"got unfinished work of other settings in {partial}: finish it, or delete that folder")
        return
    noted = attributes_of(recipe)
    del noted["episodes"]
    with whole(note) as temporary:
        temporary.write_text(json.dumps(noted))


def _attempt_path(partial: Path, seed: int) -> Path:
    return partial / f"seed-{seed}.npz"


def _save(partial: Path, episode: Episode) -> None:
    with whole(_attempt_path(partial, episode.seed)) as temporary, temporary.open("wb") as file:
        np.savez(file, **{key: value for key, value in asdict(episode).items() if value is not None})


def _load(partial: Path, seed: int) -> Episode:
    path = _attempt_path(partial, seed)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mode = str(arrays["mode"]) if "mode" in arrays else None
            scene = str(arrays["scene"]) if "scene" in arrays else None
            states = arrays.get("states")
            rows = arrays["observations"], arrays["actions"], int(arrays["success_step"])
            return Episode(seed, *rows, mode, states, scene)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"got {path}, which cannot be read ({error}): delete it and run the command again") from error


class _Attempt:
    """Makes and saves one episode of a recipe. It builds its environment on first use, once a process."""

    def __init__(self, recipe: Recipe, partial: Path):
        self.recipe, self.partial, self.task = recipe, partial, find_task(recipe.task)
        self.env: gymnasium.Env | None = None

    def __call__(self, seed: int) -> int:
        if not _attempt_path(self.partial, seed).exists():
            if self.env is None:
                self.env = self.task.make(stop_on_success=False)
            expert = expert_of(self.recipe, seed)
            _save(self.partial, record_episode(self.env, expert, self.task, self.recipe, seed))
        return seed

    def close(self) -> None:
        if self.env is not None:
            self.env.close()


_worker_attempt: _Attempt  # of this worker process


def _start_worker(recipe: Recipe, partial: Path) -> None:
    global _worker_attempt
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    _worker_attempt = _Attempt(recipe, partial)


def _work(seed: int) -> int:
    return _worker_attempt(seed)


@contextmanager
def _mapper(recipe: Recipe, partial: Path, workers: int) -> Iterator[Callable[[list[int]], Iterator[int]]]:
    """A map over seeds, in their order: in this process, or in several started afresh."""
    if workers == 1:
        attempt = _Attempt(recipe, partial)
        try:
            yield lambda seeds: map(attempt, seeds)
        finally:
            attempt.close()
        return
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker, (recipe, partial)) as pool:
        yield lambda seeds: pool.imap(_work, seeds)
