import multiprocessing
import pickle

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime.rings import HEADER_BYTES, PREFIX, Ring

NUMBERED = np.dtype([("n", "i8"), ("copies", "i8", 64)])


def record(n: int) -> tuple:
    return n, np.full(64, n)


def test_the_newest_record_is_the_last_one_put():
    with Ring.create(NUMBERED, 4) as ring:
        assert ring.newest() is None and ring.written == 0
        for n in range(11):
            ring.put(record(n))
            newest = ring.newest()
            assert newest is not None and newest["n"] == n
        assert ring.written == 11


def test_a_reader_takes_each_record_once_and_counts_those_it_lost():
    with Ring.create(NUMBERED, 4) as ring:
        for n in range(3):
            ring.put(record(n))
        assert [int(taken["n"]) for taken in ring.take()] == [0, 1, 2] and ring.take() == [] and ring.lost == 0
        for n in range(3, 13):
            ring.put(record(n))
        assert [int(taken["n"]) for taken in ring.take()] == [9, 10, 11, 12] and ring.lost == 6


def test_a_record_given_out_is_a_copy():
    with Ring.create(NUMBERED, 2) as ring:
        ring.put(record(1))
        first = ring.newest()
        ring.put(record(2)), ring.put(record(3))
        assert first is not None and (first["copies"] == 1).all()


def test_readers_do_not_disturb_each_other():
    with Ring.create(NUMBERED, 4) as ring:
        other = pickle.loads(pickle.dumps(ring))
        ring.put(record(5))
        assert [taken["n"] for taken in other.take()] == [5]
        assert [taken["n"] for taken in ring.take()] == [5]
        other.close()


def test_a_half_written_record_is_never_given_out():
    with Ring.create(NUMBERED, 4) as ring:
        for n in range(3):
            ring.put(record(n))
        ring._view[ring._start(2) + PREFIX.size + 40] ^= 0xFF  # as another CPU might see it
        newest = ring.newest()
        assert newest is not None and newest["n"] == 1
        assert [taken["n"] for taken in ring.take()] == [0, 1]
        ring._view[ring._start(2) + PREFIX.size + 40] ^= 0xFF
        assert [taken["n"] for taken in ring.take()] == [2] and ring.lost == 0


def test_an_old_record_torn_for_good_is_lost_and_the_rest_is_read():
    """A writer killed while it overwrites the oldest."""
    with Ring.create(NUMBERED, 4) as ring:
        for n in range(4):
            ring.put(record(n))
        ring._view[HEADER_BYTES + PREFIX.size] ^= 0xFF
        assert [taken["n"] for taken in ring.take()] == [1, 2, 3] and ring.lost == 1


def test_what_is_unlinked_is_gone_and_again_is_no_error():
    ring = Ring.create(NUMBERED, 2)
    state = pickle.dumps(ring)
    for _ in range(2):
        ring.unlink()
        ring.close()
    with pytest.raises(FileNotFoundError):
        pickle.loads(state)


def test_who_outlives_the_creator_can_free_the_memory():
    ring = Ring.create(NUMBERED, 2)
    heir = pickle.loads(pickle.dumps(ring))
    heir.unlink()  # in whatever order
    heir.close()
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(ring))
    ring.close()
    ring.unlink()


def test_a_reader_that_ends_frees_nothing():
    with Ring.create(NUMBERED, 2) as ring:
        with pickle.loads(pickle.dumps(ring)):
            pass
        pickle.loads(pickle.dumps(ring)).close()


def test_a_ring_refuses_one_slot_and_objects():
    for dtype, capacity in (("f8", 1), ("O", 4)):
        with pytest.raises(InputError, match="plain numbers"):
            Ring.create(np.dtype(dtype), capacity)


def hammer(ring: Ring, count: int) -> None:
    for n in range(count):
        ring.put((n, np.full(64, n)))
    ring.close()


def test_two_processes_that_hammer_a_ring_never_see_a_torn_record():
    count = 30_000
    with Ring.create(NUMBERED, 4) as ring:
        writer = multiprocessing.get_context("spawn").Process(target=hammer, args=(ring, count))
        writer.start()
        seen, last = 0, -1
        while last < count - 1:
            assert writer.is_alive() or writer.exitcode == 0
            newest = ring.newest()
            assert newest is None or (newest["copies"] == newest["n"]).all()
            for taken in ring.take():
                assert taken["n"] > last and (taken["copies"] == taken["n"]).all()
                seen, last = seen + 1, int(taken["n"])
        writer.join(10)
        assert writer.exitcode == 0 and seen + ring.lost == count
