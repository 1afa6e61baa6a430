"""Deadlines of every run: late blocks by rate, and the longest row of them."""

from ontick.video.misses import Misses


def test_a_block_is_late_where_drawing_took_longer_than_showing_takes():
    misses = Misses()
    for seconds, frames in ((0.05, 1), (0.11, 1), (0.11, 1), (0.09, 1), (0.5, 6)):
        misses.count(seconds, frames)
    told = misses.told()
    assert told["10"] == {"late": 2 / 5, "longest": 2}
    assert told["15"] == {"late": 4 / 5, "longest": 4}
    assert told["30"] == {"late": 1.0, "longest": 5}


def test_nothing_drawn_is_nothing_late():
    assert all(row == {"late": 0, "longest": 0} for row in Misses().told().values())
