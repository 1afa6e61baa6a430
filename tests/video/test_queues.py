"""The queue between drawing and showing: bounded, first in first out, and nobody waits for ever."""

import threading

import pytest

from ontick.video.queues import FrameQueue

SOON_S = 5.0


@pytest.fixture
def queue():
    return FrameQueue(3)


def waiting(queue, room):
    """A thread that waits for room, and what it was told."""
    told = []
    thread = threading.Thread(target=lambda: told.append(queue.wait_for(room)), daemon=True)
    thread.start()
    return thread, told


def test_frames_come_out_in_order_and_then_nothing(queue):
    for frame in "abc":
        queue.put(frame)
    assert len(queue) == 3 and [queue.take() for _ in range(4)] == ["a", "b", "c", None]


def test_it_is_bounded_and_the_oldest_goes_and_is_counted(queue):
    for frame in range(10):
        queue.put(frame)
        assert len(queue) <= 3
    assert queue.dropped == 7 and [queue.take() for _ in range(3)] == [7, 8, 9]


def test_a_flush_empties_it_and_is_counted(queue):
    queue.put(1)
    queue.put(2)
    queue.flush()
    assert (len(queue), queue.take(), queue.flushed, queue.dropped) == (0, None, 2, 0)


@pytest.mark.parametrize("frees", ["take", "flush"])
def test_who_draws_waits_for_room_and_goes_on_when_there_is_some(frees, queue):
    assert queue.wait_for(3)
    for frame in range(3):
        queue.put(frame)
    thread, told = waiting(queue, 1)
    thread.join(0.02)
    assert thread.is_alive() and not told
    getattr(queue, frees)()
    thread.join(SOON_S)
    assert told == [True]


def test_closing_ends_every_wait(queue):
    for frame in range(3):
        queue.put(frame)
    threads = [waiting(queue, room) for room in (1, 3)]
    queue.close()
    for thread, told in threads:
        thread.join(SOON_S)
        assert told == [False]
    assert not queue.wait_for(0) and queue.take() == 0, "what is there can still be shown"
