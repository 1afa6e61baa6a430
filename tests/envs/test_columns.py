"""Columns: what a file keeps under several keys, as one row."""

import numpy as np
import pytest

from ontick.envs.columns import key_of, parse_columns, side_by_side
from ontick.errors import InputError


def test_keys_stand_side_by_side_in_the_order_they_are_told():
    a, b = np.arange(6.0).reshape(3, 2), -np.ones((3, 1))
    rows = side_by_side(("b", "a"), (b, a), "file")
    np.testing.assert_array_equal(rows, [[-1, 0, 1], [-1, 2, 3], [-1, 4, 5]])
    assert rows.dtype == np.float32


def test_push_t_is_observed_as_diffusion_policy_does():
    columns = parse_columns("keypoint, state[:2]")
    assert columns == ("keypoint", "state[:2]") and [key_of(c) for c in columns] == ["keypoint", "state"]
    keypoint, state = np.arange(36.0).reshape(2, 9, 2), np.arange(10.0).reshape(2, 5)
    rows = side_by_side(columns, (keypoint, state), "file")
    assert rows.shape == (2, 20)
    np.testing.assert_array_equal(rows[1], [*range(18, 36), 5, 6])


def test_a_middle_part_can_be_picked():
    np.testing.assert_array_equal(side_by_side(("a[1:3]",), (np.arange(8.0).reshape(2, 4),), "f"), [[1, 2], [5, 6]])


def test_one_number_a_step_is_a_column_of_one():
    assert side_by_side(("a",), (np.arange(4.0),), "file").shape == (4, 1)


@pytest.mark.parametrize("text", ["", "a,,b", "a[", "a[1]", "a[:x]"])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(InputError, match="wanted a key"):
        parse_columns(text)


@pytest.mark.parametrize("column", ["a[:5]", "a[4:]", "a[2:2]"])
def test_numbers_that_are_not_there_are_refused(column):
    with pytest.raises(InputError, match="a has 4 numbers"):
        side_by_side((column,), (np.zeros((3, 4)),), "file")


@pytest.mark.parametrize("rows", [np.float64(3), np.array("far"), np.array(["a", "b"]), np.zeros(2, "c8")])
def test_what_is_no_rows_of_numbers_is_refused(rows):
    with pytest.raises(InputError, match=r"file, whose a is .*, wanted numbers \[t, n\]: name other keys"):
        side_by_side(("a",), (np.asarray(rows),), "file")


def test_no_steps_are_no_rows():
    assert side_by_side(("a",), (np.zeros((0, 4)),), "file").shape == (0, 4)


def test_pictures_and_unequal_lengths_are_refused():
    with pytest.raises(InputError, match=r"uint8 \[3, 8, 8, 3\]"):
        side_by_side(("img",), (np.zeros((3, 8, 8, 3), np.uint8),), "file")
    with pytest.raises(InputError, match="a: 3, b: 4"):
        side_by_side(("a", "b"), (np.zeros((3, 1)), np.zeros((4, 1))), "file")
