"""A schedule as a straight line: the same sums as adding block by block, in fewer additions."""

import itertools

import numpy as np
import pytest

from ontick.accel.caching.line import Corrected, Refresh, Reuse, Sum, follow, straight_line
from ontick.accel.caching.predictors import AFFINE, PREDICTORS, predictor_named
from ontick.errors import InputError


def random_schedule(rng, blocks=7, steps=12, share=0.3):
    refresh = rng.random((blocks, steps)) < share
    refresh[:, 0] = True
    return refresh


def run(line, outputs):
    """The stream after each step, for branches that give outputs[block, step]."""
    values, streams = {}, []
    for k, step in enumerate(line):
        streams.append(follow(step, 0.0, values, lambda block, h, k=k: outputs[block, k]))
    return np.array(streams), values


def added_one_by_one(refresh, outputs, predictor):
    kept, weights = predictor_named(predictor)
    taken, streams = [[] for _ in refresh], []
    for k in range(refresh.shape[1]):
        total = 0.0
        for block in range(len(refresh)):
            if refresh[block, k]:
                taken[block] = [k, *taken[block]][:kept]
                total += outputs[block, k]
            else:
                used = weights(k, taken[block])
                total += sum(w * outputs[block, at] for w, at in zip(used, taken[block], strict=False))
        streams.append(total)
    return np.array(streams)


@pytest.mark.parametrize("predictor", [name for name in PREDICTORS if name != AFFINE])
@pytest.mark.parametrize("seed", range(5))
def test_it_adds_what_adding_block_by_block_adds(seed, predictor):
    rng = np.random.default_rng(seed)
    refresh, outputs = random_schedule(rng), rng.standard_normal((7, 12))
    got, _ = run(straight_line(refresh, predictor), outputs)
    np.testing.assert_allclose(got, added_one_by_one(refresh, outputs, predictor), atol=1e-10)


def test_it_computes_as_many_branches_as_the_schedule_says_and_each_where_it_says(rng):
    refresh = random_schedule(rng)
    done = np.zeros_like(refresh)
    for k, step in enumerate(straight_line(refresh)):
        for instruction in step.instructions:
            if isinstance(instruction, Refresh):
                done[instruction.block, k] = True
    assert (done == refresh).all()


def test_a_step_with_nothing_to_refresh_is_one_addition_and_its_sum_is_made_once():
    refresh = np.zeros((24, 10), bool)
    refresh[:, [0, 5]] = True
    line = straight_line(refresh)
    kinds = [[type(instruction) for instruction in step.instructions] for step in line]
    assert kinds[1] == kinds[6] == [Sum, Reuse]
    assert all(kind == [Reuse] for k, kind in enumerate(kinds) if k not in (0, 1, 5, 6))
    assert all(len(step.instructions[-1].terms) == 1 for k, step in enumerate(line) if k not in (0, 5))


def test_a_run_between_refreshed_blocks_is_one_addition(rng):
    for step in straight_line(random_schedule(rng, blocks=12, steps=30)):
        kinds = [type(i) for i in step.instructions if not isinstance(i, Sum)]
        assert all(not (a is b is Reuse) for a, b in itertools.pairwise(kinds))


def test_sums_are_put_together_from_those_that_are_there():
    refresh = np.zeros((9, 3), bool)
    refresh[:, 0] = True
    refresh[8, 1] = True
    line = straight_line(refresh)
    assert line[1].instructions[0].parts == tuple((block, (0,)) for block in range(8))
    assert line[2].instructions[0].parts == ((0, (0,) * 8), (8, (1,)))


def test_nothing_is_kept_after_its_last_use(rng):
    _, values = run(straight_line(random_schedule(rng)), rng.standard_normal((7, 12)))
    assert values == {}


def test_polynomials_are_extrapolated_exactly():
    """taylor-P of a polynomial of degree P is that polynomial, wherever it was computed."""
    steps = np.arange(20)
    for order, name in enumerate(("reuse", "taylor-1", "taylor-2")):
        refresh = np.zeros((1, 20), bool)
        refresh[0, [0, 1, 4, 9]] = True
        outputs = (0.3 * steps**order - 1.0)[None].astype(float)
        got, _ = run(straight_line(refresh, name), outputs)
        np.testing.assert_allclose(got[4:], outputs[0, 4:], rtol=1e-9)


def test_adams_bashforth_extrapolates_one_interval():
    refresh = np.zeros((1, 10), bool)
    refresh[0, [0, 3, 6]] = True
    outputs = np.arange(10.0)[None] * 2
    got, _ = run(straight_line(refresh, "adams-bashforth-2"), outputs)
    assert got[7] == got[8] == got[9] == outputs[0, 9]  # 2 x the value at 6, less that at 3


def test_a_corrected_run_is_its_sum_scaled_and_shifted(rng):
    refresh, outputs = random_schedule(rng), rng.standard_normal((7, 12))
    runs = [
        (k, i.terms[0][1]) for k, s in enumerate(straight_line(refresh)) for i in s.instructions if type(i) is Reuse
    ]
    tables = {(k, first): rng.standard_normal(2) for k, (first, _) in runs}
    got, values = run(straight_line(refresh, AFFINE, tables), outputs)
    wanted = np.where(refresh, outputs, 0).sum(0)
    for k, (first, taken) in runs:
        scale, shift = tables[k, first]
        wanted[k] += scale * sum(outputs[first + i, at] for i, at in enumerate(taken)) + shift
    np.testing.assert_allclose(got, wanted, atol=1e-10)
    assert values == {}


def test_a_corrected_line_is_as_long_as_a_plain_one(rng):
    refresh = random_schedule(rng, blocks=12, steps=30)
    plain = straight_line(refresh)
    tables = {(k, i.terms[0][1][0]): (1, 0) for k, s in enumerate(plain) for i in s.instructions if type(i) is Reuse}
    corrected = straight_line(refresh, AFFINE, tables)
    for one, other in zip(plain, corrected, strict=True):
        assert [type(i) for i in other.instructions] == [
            Corrected if type(i) is Reuse else type(i) for i in one.instructions
        ]
        assert one.forget == other.forget


def test_tables_are_for_the_affine_predictor_which_needs_all_of_them():
    refresh = np.array([[True, False], [True, False]])
    with pytest.raises(InputError, match="predictor affine needs its tables"):
        straight_line(refresh, AFFINE)
    with pytest.raises(InputError, match="predictor taylor-1 has no tables"):
        straight_line(refresh, "taylor-1", {(1, 0): (1, 0)})
    with pytest.raises(InputError, match="no table for the run from block 0 at step 1"):
        straight_line(refresh, AFFINE, {(1, 1): (1, 0)})


def test_an_unknown_predictor_is_refused():
    with pytest.raises(InputError, match=r"'oracle', wanted one of reuse, taylor-1"):
        straight_line(np.ones((2, 3), bool), "oracle")
