"""Make training videos: an arm that knocks a ball about (with its actions), a turbulent flow, bouncing sprites."""

import argparse
from pathlib import Path

from ..data.scenes import SCENES, Recipe, difference, make_clips
from ..errors import InputError
from ..files import check_place
from ..runtime import WallClock
from ..video.clips import read_attributes, write_clips
from .progress import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick clips`."""
    parser.add_argument("scene", metavar="SCENE", help=", ".join(SCENES))
    parser.add_argument("--episodes", type=int, default=200, help="videos to make")
    parser.add_argument("--frames", type=int, default=100, help="of each video")
    parser.add_argument("--seed", type=int, default=0, help="base seed; two base seeds share no video")
    parser.add_argument("--size", type=int, metavar="PX", help="side of a frame (default: the scene's own)")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH.zarr", help="folder to write")


def run(options: argparse.Namespace) -> int:
    """Make, save, report."""
    recipe = Recipe(options.scene, options.episodes, options.frames, options.seed, options.size)
    if options.out.suffix != ".zarr":
        raise InputError(f"got --out {options.out}, wanted an ending of .zarr")
    check_place(options.out)
    if _holds(options.out, recipe):
        print(f"{options.out}: already there, nothing to do")
        return 0
    clock = WallClock()
    start_s = clock.now()
    with progress_bar(recipe.episodes, recipe.scene, "episode") as bar:
        clips = make_clips(recipe, bar.update)
    write_clips(options.out, clips)
    took_s = clock.now() - start_s
    shape = " x ".join(map(str, clips.frames.shape[1:]))
    print(
        f"{len(clips)} episodes of {recipe.scene}, {recipe.frames_per_episode} frames each of {shape} {clips.kind}, "
        f"{clips.actions.shape[1]} actions; {took_s:.1f} s, {took_s / len(clips):.2f} s an episode"
    )
    print(f"saved {options.out} ({_size(options.out) / 1e6:.2f} MB)")
    return 0


def _holds(path: Path, recipe: Recipe) -> bool:
    """Whether these clips are there already. Raises InputError where others are."""
    if not path.exists():
        return False
    if other := difference(read_attributes(path), recipe):
        raise InputError(f"got {path}, which holds other clips ({other}): choose another --out")
    return True


def _size(path: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
