"""What a message asks for is read, or refused in one line."""

import numpy as np
import pytest

from ontick.runtime.wire.codec import WireError
from ontick.runtime.wire.requests import read_request

FACTS = {"n_obs_steps": 2, "observation_dim": 3, "action_dim": 2, "plans": ["dear", "cheap"], "can_inpaint": True}


def read(observation=(0.0, 1.0, 2.0), facts=FACTS, **keys):
    return read_request({"observation": np.asarray(observation), **({"ontick": keys} if keys else {})}, facts)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2", "|u1", "<i8"])
def test_numbers_of_any_width_are_read_as_float32(dtype):
    obs = read(np.array([0, 1, 2], dtype)).obs
    assert obs.dtype == np.float32 and obs.tolist() == [0, 1, 2]


def test_lists_are_read_as_arrays_are():
    assert read_request({"observation": [0, 1.5, 2]}, FACTS).obs.tolist() == [0, 1.5, 2]
    assert read_request({"observation": [[0, 1, 2], [3, 4, 5]]}, FACTS).obs.shape == (2, 3)
    for nonsense in ([0, 1, True], [[0, 1, 2], [3]], ["0", "1", "2"], [[[0, 1, 2]]], []):
        with pytest.raises(WireError):
            read_request({"observation": nonsense}, FACTS)


def test_keys_that_are_not_there_have_their_defaults():
    request = read()
    assert not request.ours and request.seed is request.deadline_s is request.kept is request.number is None
    assert (request.behind, request.fixed, request.rung) == (0, 0, 0)


def test_keys_of_ours_are_read():
    kept = np.ones((3, 2), np.float32)
    request = read(request=7, seed=np.int64(5), deadline_s=0.2, behind=2, kept=kept, fixed=3, rung=1, observed_s=1.0)
    assert request.ours and (request.number, request.seed, request.deadline_s) == (7, 5, 0.2)
    assert (request.behind, request.fixed, request.rung) == (2, 3, 1)
    np.testing.assert_array_equal(request.kept, kept)


@pytest.mark.parametrize(
    "keys",
    [
        {"request": -1},
        {"request": 1.0},
        {"seed": 2**63},
        {"seed": True},
        {"deadline_s": -1.0},
        {"deadline_s": float("inf")},
        {"deadline_s": "soon"},
        {"behind": 10**6},
        {"fixed": 1},
        {"kept": np.ones((3, 3))},
        {"kept": np.ones(2)},
        {"kept": np.full((1, 2), np.nan)},
        {"kept": np.ones((1, 2)), "fixed": 2},
        {"rung": 2},
        {"rung": None, "seed": b"1"},
    ],
    ids=range(15),
)
def test_what_means_nothing_is_refused(keys):
    with pytest.raises(WireError) as refused:
        read(**keys)
    assert "\n" not in str(refused.value)


def test_rows_to_agree_with_are_refused_where_no_plan_can():
    with pytest.raises(WireError, match="agree"):
        read(facts={**FACTS, "can_inpaint": False}, kept=np.ones((1, 2)))
