import pytest

from ontick.runtime import VirtualClock, WallClock


def test_a_virtual_clock_moves_only_when_told():
    clock = VirtualClock(5.0)
    assert clock.now() == clock.now() == 5.0
    clock.advance(0.25)
    assert clock.now() == 5.25
    clock.sleep_until(6.0)
    assert clock.now() == 6.0


def test_sleeping_until_the_past_does_not_turn_the_clock_back():
    clock = VirtualClock(5.0)
    clock.sleep_until(1.0)
    assert clock.now() == 5.0
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1.0)


def test_the_wall_clock_never_wakes_early():
    clock = WallClock()
    wake_s = clock.now() + 0.003
    clock.sleep_until(wake_s)
    assert clock.now() >= wake_s
