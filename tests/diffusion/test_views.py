import pytest

from ontick.diffusion.views import calls, lookahead_context
from ontick.errors import InputError


@pytest.mark.parametrize(("view", "window", "pieces"), [("all", 7, 1), ("partitions", 12, 3), ("partitions", 5, 5)])
def test_every_position_is_kept_once(view, window, pieces):
    kept = [p for call in calls(view, window, pieces) for p in range(call.keep, call.stop)]
    assert kept == list(range(window))


def test_lookahead_keeps_every_moving_position_once_with_half_a_piece_of_cleaner_ones_in_sight():
    steps, pieces = 12, 3
    half = lookahead_context(steps, pieces)
    found = calls("lookahead", steps + half, pieces)
    kept = [p for call in found for p in range(call.keep, call.stop)]
    assert len(found) == 2 * pieces and kept == list(range(half, steps + half))
    assert all(call.keep - call.start == half for call in found)


def test_windows_that_do_not_divide_are_refused():
    with pytest.raises(InputError):
        calls("partitions", 7, 2)
    with pytest.raises(InputError):
        lookahead_context(7, 2)
