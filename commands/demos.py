"""Collect expert demonstrations of a task. Interrupted, the same command goes on where it stopped."""

import argparse
from pathlib import Path

from ..envs.collection import Episode, Recipe, collect, difference, discard
from ..envs.dataset import FORMATS, read_demonstrations, write_demonstrations
from ..envs.tasks import Task, find_task
from ..errors import InputError
from ..files import check_place
from ..runtime import WallClock
from ..runtime.statistics import mode_entropy
from .progress import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick demos`."""
    parser.add_argument("id", metavar="TASK", nargs="?", help="task id, such as metaworld/pick-place-v3")
    parser.add_argument("--task", help="the same, as an option")
    parser.add_argument("--episodes", type=int, default=200, help="successful episodes to keep")
    parser.add_argument("--seed", type=int, default=0, help="base seed; never shared with evaluation")
    parser.add_argument(
        "--noise", type=float, help="noise on executed actions, standard deviation (default: the task's, mostly 0.1)"
    )
    parser.add_argument("--styled", action="store_true", help="each episode in a manner of its own")
    parser.add_argument("--settle-steps", type=int, default=10, help="steps recorded after success")
    parser.add_argument("--out", type=Path, required=True, help="file to write; its ending follows the format")
    parser.add_argument(
        "--format", choices=[*FORMATS, "both"], help="zarr: Diffusion Policy; hdf5: robomimic (default: by the ending)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes; any number gives the same demonstrations")


def run(options: argparse.Namespace) -> int:
    """Collect, save, report."""
    task = find_task(_task_id(options))
    return _collect(options, task) if task.recorded_as is None else _make_absolute(options, task)


def _make_absolute(options: argparse.Namespace, task: Task) -> int:
    """Demonstrations with displacements, in a file of their own beside, and of them the absolute ones."""
    if options.out.suffix != ".hdf5" or options.format not in (None, "hdf5"):
        raise InputError(f"got --out {options.out} for {task.id}, wanted a name that ends in .hdf5")
    if options.out.exists():
        raise InputError(f"{options.out} is already there; choose another --out or remove it")
    from ..envs.absolute_actions import absolute_actions

    target, recorded = options.out, find_task(str(task.recorded_as))
    options.out = target.with_name(f"{target.stem}-displacements.hdf5")
    _collect(options, recorded)
    absolute_actions(options.out, target)
    print(f"saved {target} ({_size(target) / 1e6:.2f} MB), its actions absolute")
    return 0


def _collect(options: argparse.Namespace, task: Task) -> int:
    noise = task.noise if options.noise is None else options.noise
    recipe = Recipe(task.id, options.episodes, options.seed, noise, options.settle_steps, options.styled)
    if options.workers < 1:
        raise InputError(f"got {options.workers} workers, wanted at least 1")
    check_place(options.out)
    stem, targets = _targets(options.out, options.format)
    missing = [path for path in targets if not _holds(path, recipe)]
    if not missing:
        print(f"{' and '.join(map(str, targets))}: already there, nothing to do")
        return 0
    partial = stem.with_name(stem.name + ".partial")
    clock = WallClock()
    start_s = clock.now()
    with progress_bar(recipe.episodes, recipe.task, "episode") as bar:

        def advance(episode: Episode) -> None:
            bar.update(episode.success_step >= 0)

        demonstrations = collect(recipe, partial, options.workers, advance)
    for path in missing:
        write_demonstrations(path, demonstrations)
    discard(partial)
    failed, lengths = len(demonstrations.attributes["failed_seeds"]), demonstrations.lengths
    print(
        f"{len(demonstrations)} episodes of {recipe.task}, {lengths.mean():.1f} steps on average "
        f"({lengths.min()} to {lengths.max()}); the expert succeeded in {len(demonstrations)} of "
        f"{len(demonstrations) + failed} attempts; {clock.now() - start_s:.1f} s"
    )
    if modes := demonstrations.attributes.get("modes"):
        print(f"{len(set(modes))} modes, of entropy {mode_entropy(modes):.2f} nats")
    for path in missing:
        print(f"saved {path} ({_size(path) / 1e6:.2f} MB)")
    return 0


def _task_id(options: argparse.Namespace) -> str:
    """The task, told by its place or by its option."""
    given = {told for told in (options.id, options.task) if told is not None}
    if len(given) != 1:
        got = " and ".join(sorted(given)) or "no task"
        raise InputError(f"got {got}, wanted one, as in: ontick demos metaworld/pick-place-v3 --out demos.zarr")
    return given.pop()


def _targets(out: Path, form: str | None) -> tuple[Path, list[Path]]:
    """The path without its ending, and the files to write."""
    ending = out.suffix.removeprefix(".")
    if ending and ending not in FORMATS:
        raise InputError(f"got --out {out}, wanted an ending of {' or '.join(f'.{f}' for f in FORMATS)}, or none")
    stem = out.with_suffix("") if ending in FORMATS else out
    form = form or (ending if ending in FORMATS else "zarr")
    if ending in FORMATS and form not in (ending, "both"):
        raise InputError(f"got --out {out} with --format {form}: name it {stem}.{form}, or leave out --format")
    formats = FORMATS if form == "both" else (form,)
    return stem, [stem.with_name(f"{stem.name}.{ending}") for ending in formats]


def _holds(path: Path, recipe: Recipe) -> bool:
    """Whether these demonstrations are there already. Raises InputError where others are."""
    if not path.exists():
        return False
    if other := difference(read_demonstrations(path).attributes, recipe):
        raise InputError(f"got {path}, which holds other demonstrations ({other}): choose another --out")
    return True


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
