"""Bouncing sprites that choose: at every bounce off a wall, a new random direction and speed.

Two glyphs of different colours cross a dark square and pass over each other. Between bounces the future is certain;
at a bounce it is not, and the mean of the possible futures is a blur that never happens. The true centres are known,
and `locate` finds them in any frames, so that generated ones can be judged in pixels.

Legend: F frames, S = 2 sprites, P = size * size pixels. Places are (x, y) in pixels from the upper left corner.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

FPS = 10
COLOURS = np.array([[1.0, 0.78, 0.15], [0.20, 0.65, 1.0]])  # of the sprites, [S, RGB]
RADIUS, LINE = 0.15, 0.04  # of a glyph, of its strokes, in sides of the frame
SPEED = (0.03, 0.075)  # sides of the frame a frame
NARROWEST_RAD = 0.25  # between the wall and the way that a sprite leaves it
SPREAD = 128  # steps to a side of the grid that `locate` searches


@dataclass(frozen=True)
class Trajectory:
    """Where the sprites of one video are, and which glyph each has."""

    centres: NDArray[np.float64]  # [F, S, 2] px
    glyphs: tuple[str, ...]  # S names out of GLYPHS
    size: int  # px
    bounces: NDArray[np.int64]  # [F, S], how many each sprite has made so far


def trajectory(seed: int, frames: int, size: int = 32) -> Trajectory:
    """The sprites of one video, a function of `seed`; another size gives the same video, finer or coarser.

    Raises InputError for fewer than 1 frame or 8 pixels.
    """
    if frames < 1 or size < 8:
        raise InputError(f"got {frames} frames of {size} pixels, wanted at least 1 of at least 8")
    rng = np.random.default_rng(seed)
    glyphs = tuple(rng.choice(list(GLYPHS), len(COLOURS)).tolist())
    centres = np.empty((frames, len(COLOURS), 2))
    bounces = np.empty((frames, len(COLOURS)), np.int64)
    for sprite, stream in enumerate(rng.spawn(len(COLOURS))):  # one each, so that frames added change nothing before
        centres[:, sprite], bounces[:, sprite] = _path(stream, frames)
    return Trajectory(centres * size - 0.5, glyphs, size, bounces)


def centroids(seed: int, frames: int, size: int = 32) -> NDArray[np.float64]:
    """The true centres in the video of `seed`. float64 [F, S, 2] px"""
    return trajectory(seed, frames, size).centres


def draw(video: Trajectory) -> NDArray[np.uint8]:
    """The frames, with soft edges, so that motion below a pixel shows. uint8 [F, size, size, 3]"""
    image = np.zeros((len(video.centres), video.size, video.size, 3))
    for sprite, glyph in enumerate(video.glyphs):  # the second lies over the first
        cover = stamp(glyph, video.centres[:, sprite], video.size)[..., None]
        image = image * (1 - cover) + cover * COLOURS[sprite]
    return np.rint(image * 255).astype(np.uint8)


def stamp(glyph: str, centres: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """How much of each pixel a glyph at `centres` [..., 2] px covers, 0 to 1. float64 [..., size, size]"""
    pixels = np.arange(size)
    x = (pixels - centres[..., :1])[..., None, :] / size
    y = (pixels - centres[..., 1:])[..., :, None] / size
    return np.clip(0.5 - GLYPHS[glyph](x, y) * size, 0.0, 1.0)


def locate(frames: NDArray[np.uint8], glyphs: tuple[str, ...]) -> NDArray[np.float64]:
    """The centres that explain `frames` uint8 [F, size, size, 3] best, by template matching. float64 [F, S, 2] px

    Each colour is looked for by itself, on a grid of 1/128 of a side: the error is below 1/100 of a side in x and in y
    where a sprite is not covered. Raises InputError for frames of another shape, or another number of glyphs.
    """
    if frames.ndim != 4 or frames.shape[1] != frames.shape[2] or frames.shape[3] != 3 or len(glyphs) != len(COLOURS):
        wanted = f"[F, size, size, 3] and {len(COLOURS)} glyphs"
        raise InputError(f"got frames {frames.shape} and {len(glyphs)} glyphs, wanted {wanted}: check the video")
    size = frames.shape[1]
    amounts = (frames.reshape(-1, 3) / 255) @ np.linalg.pinv(COLOURS)  # of each colour in each pixel
    amounts = amounts.reshape(len(frames), size * size, len(COLOURS)).astype(np.float32)
    line = np.arange(RADIUS, 1 - RADIUS + 1e-9, 1 / SPREAD) * size - 0.5
    places = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    found = [_best(amounts[..., sprite], glyph, places, size) for sprite, glyph in enumerate(glyphs)]
    return np.stack(found, axis=1)


def _best(amount: NDArray[np.float32], glyph: str, places: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Of `places` [K, 2], those with the least squared error to each row of `amount` [F, P]. [F, 2]"""
    fits = []
    for some in np.array_split(places, max(1, len(places) * size * size // 2**22)):  # to bound the memory
        templates = stamp(glyph, some, size).reshape(len(some), -1).astype(np.float32)
        fits.append(2 * amount @ templates.T - (templates**2).sum(1))
    return places[np.concatenate(fits, axis=1).argmax(1)]


def _path(rng: np.random.Generator, frames: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Places in sides of the frame [F, 2], and bounces so far [F]."""
    low, high = RADIUS, 1 - RADIUS
    place, velocity = rng.uniform(low, high, 2), _velocity(rng, rng.uniform(-np.pi, np.pi))
    places, bounces, made = np.empty((frames, 2)), np.empty(frames, np.int64), 0
    for frame in range(frames):
        places[frame], bounces[frame] = place, made
        left = 1.0  # of the time to the next frame
        while True:
            with np.errstate(divide="ignore"):
                to_wall = np.where(velocity > 0, high - place, low - place) / velocity
            to_wall = np.where(velocity == 0, np.inf, to_wall)
            axis = int(to_wall.argmin())
            if to_wall[axis] > left:
                place = place + left * velocity
                break
            place, left = place + to_wall[axis] * velocity, left - to_wall[axis]
            place[axis] = high if velocity[axis] > 0 else low
            inward = (np.pi if velocity[axis] > 0 else 0.0) if axis == 0 else -np.sign(velocity[axis]) * np.pi / 2
            widest = np.pi / 2 - NARROWEST_RAD
            velocity, made = _velocity(rng, inward + rng.uniform(-widest, widest)), made + 1
    return places, bounces


def _velocity(rng: np.random.Generator, angle_rad: float) -> NDArray[np.float64]:
    return rng.uniform(*SPEED) * np.array([np.cos(angle_rad), np.sin(angle_rad)])


# Glyphs are distances to their outline, below 0 inside, in sides of the frame: each fits a circle of RADIUS.
def _disc(x: NDArray, y: NDArray) -> NDArray:
    return np.hypot(x, y) - RADIUS


def _ring(x: NDArray, y: NDArray) -> NDArray:
    return np.abs(np.hypot(x, y) - RADIUS + LINE) - LINE


def _square(x: NDArray, y: NDArray) -> NDArray:
    return np.maximum(np.abs(x), np.abs(y)) - RADIUS * np.sqrt(0.5)


def _diamond(x: NDArray, y: NDArray) -> NDArray:
    return (np.abs(x) + np.abs(y) - RADIUS) * np.sqrt(0.5)


def _cross(x: NDArray, y: NDArray) -> NDArray:
    arms = np.minimum(np.abs(x), np.abs(y)) - LINE
    return np.maximum(arms, np.maximum(np.abs(x), np.abs(y)) - 0.9 * RADIUS)


GLYPHS: dict[str, Callable[[NDArray, NDArray], NDArray]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "diamond": _diamond,
    "cross": _cross,
}
