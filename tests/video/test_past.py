"""What a causal stream remembers: its shape never changes, and sinks and the newest frames stay, in order.

Legend: B lanes, P places, b frames of a block.
"""

import pytest
import torch

from ontick.video.past import empty_memory, remembered
from ontick.video.stream import memory_bytes

B = 2


def kept(*numbers):
    """[B, b, 1, 2, 1, 1]: frames whose keys and values are their own number, and a thousand more in lane 1."""
    frames = torch.tensor(numbers, dtype=torch.float32).reshape(1, -1, 1, 1, 1, 1)
    return frames.expand(1, -1, 1, 2, 1, 1) + 1000 * torch.arange(B).reshape(B, 1, 1, 1, 1, 1)


def held(memory, lane=0):
    return memory.held[lane, memory.there[lane]][:, 0, 0, 0, 0].tolist()


def test_a_new_memory_is_empty():
    memory = empty_memory(kept(5, 6), 4)
    assert memory.held.shape == (B, 4, 1, 2, 1, 1) and not memory.held.any() and not memory.there.any()


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("sinks", [0, 1, 2, 6])
def test_sinks_and_the_newest_stay_in_order_at_the_right_end_of_a_constant_shape(block, sinks):
    places = 6
    memory = empty_memory(kept(0), places)
    size = memory_bytes(memory)
    for first in range(0, 8 * block, block):
        memory = remembered(memory, kept(*range(first, first + block)), sinks)
        count = first + block
        drawn = list(range(count))
        wanted = drawn if count <= places else None
        assert memory.held.shape == (B, places, 1, 2, 1, 1) and memory_bytes(memory) == size
        assert memory.there[0].tolist() == [i >= places - min(count, places) for i in range(places)]
        assert torch.equal(memory.there[0], memory.there[1]) and held(memory, 1) == [n + 1000 for n in held(memory)]
        if wanted is None:
            wanted = drawn[:sinks] + drawn[len(drawn) - (places - sinks) :]
        assert held(memory) == wanted
    assert not memory.held[:, : places - min(count, places)].any()


def test_more_frames_than_there_are_places_are_taken_at_once():
    memory = remembered(empty_memory(kept(0), 3), kept(0, 1, 2, 3, 4), 1)
    assert held(memory) == [0, 3, 4]


def test_what_is_remembered_is_not_changed_by_what_comes_after():
    memory = remembered(empty_memory(kept(0), 2), kept(0), 1)
    before = memory.held.clone()
    remembered(remembered(memory, kept(1), 1), kept(2), 1)
    assert torch.equal(memory.held, before)


def test_a_stream_without_memory_holds_no_bytes():
    assert memory_bytes(None) == 0
