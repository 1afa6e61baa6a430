"""Sprites: straight between bounces, unforeseeable at them, and found again in their frames."""

import numpy as np
import pytest

from ontick.data.sprites import GLYPHS, RADIUS, SPEED, centroids, draw, locate, stamp, trajectory
from ontick.errors import InputError


def test_between_bounces_a_sprite_moves_straight_and_evenly():
    video = trajectory(3, 200)
    velocity = np.diff(video.centres, axis=0)
    free = np.diff(video.bounces, axis=0) == 0
    both = free[1:] & free[:-1]
    assert both.mean() > 0.5
    np.testing.assert_allclose(np.diff(velocity, axis=0)[both], 0, atol=1e-9)
    speeds = np.linalg.norm(velocity, axis=-1)[free] / video.size
    assert speeds.min() >= SPEED[0] - 1e-9 and speeds.max() <= SPEED[1] + 1e-9


def test_a_bounce_draws_a_new_velocity_that_no_mirror_would_give():
    video = trajectory(3, 400)
    velocity, bounced = np.diff(video.centres, axis=0), np.diff(video.bounces, axis=0)
    pairs = [
        (velocity[i - 1, s], velocity[i + 1, s])
        for i, s in zip(*np.nonzero(bounced[1:-1] == 1), strict=True)
        for i in [i + 1]
        if bounced[i - 1, s] == bounced[i + 1, s] == 0
    ]
    before, after = np.array(pairs).swapaxes(0, 1)
    mirrored = np.isclose(np.abs(before), np.abs(after), atol=1e-6).all(axis=-1)
    assert len(pairs) > 20 and not mirrored.any()


@pytest.mark.parametrize("size", [32, 64])
def test_sprites_stay_inside_the_frame(size):
    for seed in range(10):
        sides = (centroids(seed, 100, size) + 0.5) / size
        assert sides.min() >= RADIUS - 1e-9 and sides.max() <= 1 - RADIUS + 1e-9


def test_a_video_is_a_function_of_its_seed_and_begins_the_same_when_longer():
    short, long = trajectory(11, 30), trajectory(11, 60)
    np.testing.assert_array_equal(short.centres, long.centres[:30])
    assert short.glyphs == long.glyphs
    assert (trajectory(12, 30).centres != short.centres).any()


def test_another_size_shows_the_same_video():
    small, large = centroids(5, 20, 32), centroids(5, 20, 64)
    np.testing.assert_allclose((large + 0.5) / 64, (small + 0.5) / 32)


def test_frames_are_bytes_on_black_with_two_colours():
    frames = draw(trajectory(0, 8, 32))
    assert frames.shape == (8, 32, 32, 3) and frames.dtype == np.uint8
    assert (frames == 0).all(axis=-1).mean() > 0.5
    red, _, blue = np.moveaxis(frames.astype(int), -1, 0)
    assert (red - blue > 100).any() and (blue - red > 100).any()


@pytest.mark.parametrize("glyph", GLYPHS)
def test_a_glyph_is_centred_where_it_is_put(glyph):
    centre = np.array([14.3, 17.8])
    cover = stamp(glyph, centre, 32)
    y, x = np.mgrid[:32, :32]
    found = [(cover * x).sum() / cover.sum(), (cover * y).sum() / cover.sum()]
    np.testing.assert_allclose(found, centre, atol=0.06)


@pytest.mark.parametrize("size", [32, 64])
def test_template_matching_finds_the_centres_to_a_hundredth_of_a_side(size):
    for seed in range(3):
        video = trajectory(seed, 20, size)
        found = locate(draw(video), video.glyphs)
        apart = np.linalg.norm(video.centres[:, 0] - video.centres[:, 1], axis=-1) > 2 * RADIUS * size
        error = np.abs(found - video.centres)
        assert error[:, 1].max() < size / 100  # the second is never covered
        assert error[apart].max() < size / 100


def test_what_cannot_be_made_or_searched_is_refused():
    with pytest.raises(InputError, match="at least 8"):
        trajectory(0, 10, 4)
    with pytest.raises(InputError, match="at least 1"):
        trajectory(0, 0)
    with pytest.raises(InputError, match="2 glyphs"):
        locate(np.zeros((2, 32, 32, 3), np.uint8), ("disc",))
