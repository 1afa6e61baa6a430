import itertools

import numpy as np
import pytest

from ontick.diffusion import Staircase
from ontick.errors import InputError


def recurrence(steps, stagger, blocks):
    """AR-Diffusion's schedule as it is told there: the first block, or one whose predecessor is already finished,
    advances by one; any other sits s steps behind its predecessor."""
    done, rows = np.zeros(blocks, int), []
    while done[-1] < steps:
        new = done.copy()
        for i in range(blocks):
            free = i == 0 or done[i - 1] == steps
            new[i] = done[i] + 1 if free else new[i - 1] - stagger
        done = new.clip(0, steps)
        rows.append(done)
    return np.array(rows)


def test_the_test_vector():
    table = Staircase(6, 2).table(4)
    rows = ["1000", "2000", "3100", "4200", "5310", "6420", "6531", "6642", "6653", "6664", "6665", "6666"]
    assert ["".join(map(str, row)) for row in table] == rows


def test_it_equals_the_ar_diffusion_recurrence_in_all_1320_cases():
    cases = list(itertools.product(range(1, 12), range(1, 9), range(15)))
    assert len(cases) == 1320
    for steps, blocks, stagger in cases:
        ours = Staircase(steps, stagger).table(blocks)
        np.testing.assert_array_equal(ours, recurrence(steps, stagger, blocks), f"{steps=} {blocks=} {stagger=}")


@pytest.mark.parametrize("block", [1, 2, 5])
def test_positions_of_a_block_move_together(block):
    table = Staircase(5, 2, block).table(3 * block)
    assert (table.reshape(len(table), 3, block) == table.reshape(len(table), 3, block)[..., :1]).all()


def test_stagger_0_moves_all_and_stagger_of_s_or_more_moves_one_after_another():
    assert (Staircase(4, 0).table(3) == np.arange(1, 5)[:, None]).all()
    for stagger in (4, 9):
        table = Staircase(4, stagger).table(3)
        moving = np.diff(np.vstack([np.zeros(3, int), table]), axis=0)
        assert (moving.sum(1) == 1).all()


def test_ticks_and_blocks_in_flight_are_what_the_table_shows():
    for steps, stagger, blocks in itertools.product(range(1, 8), range(1, 9), range(1, 12)):
        stair = Staircase(steps, stagger)
        table = stair.table(blocks)
        assert len(table) == stair.ticks(blocks) == steps + min(stagger, steps) * (blocks - 1)
        moving = (np.diff(np.vstack([np.zeros(blocks, int), table]), axis=0) > 0).sum(1).max()
        assert moving == min(blocks, stair.blocks_in_flight)


def test_positions_before_the_stream_are_clean_from_the_start():
    assert (Staircase(5, 1).done(0, np.array([-3, -1, 0])) == [5, 5, 0]).all()


@pytest.mark.parametrize("arguments", [(0, 1, 1), (3, -1, 1), (3, 1, 0)])
def test_impossible_staircases_are_refused(arguments):
    with pytest.raises(InputError):
        Staircase(*arguments)
