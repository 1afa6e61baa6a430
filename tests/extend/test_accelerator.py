"""The accelerator of docs/extend/accelerator.md is found by its entry point, keeps the laws and does what it says."""

import pytest
import torch

from ontick import accel
from ontick.accel.conformance import LAWS
from ontick.diffusion import GridSpec, Plan, load_plan, run_chunk


@pytest.fixture(scope="module")
def straight(installed):
    return installed("accelerator", "ontick_straight")


@pytest.fixture(scope="module")
def its_test(straight, page):
    """The names of the page's own test file."""
    names: dict = {}
    exec(compile(page("accelerator")["test_straight.py"], "test_straight.py", "exec"), names)
    return names


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_page_s_accelerator_conforms(law, its_test):
    law(its_test["CASE"])


def test_the_page_s_plan_runs_on_the_exact_stack(straight, page, its_test, tmp_path):
    file = tmp_path / "straight.yaml"
    file.write_text(page("accelerator")["straight.yaml"])
    program = accel.build(its_test["network"](), load_plan(str(file)), (2,), 8)
    with torch.inference_mode():
        chunk = run_chunk(program, program.prepare(its_test["observations"](3)), torch.arange(3), torch.zeros(3).long())
    assert chunk.shape[0] == 3 and chunk.isfinite().all()
    assert program.calls == len({20, 17, 13, 9, 5, 1})


class Linear:
    """A look whose answer is a straight line in the step, so that nothing is lost by drawing one."""

    def __init__(self, slope):
        self.slope, self.asked = slope, []

    def __call__(self, x, step, context, index, carry):
        self.asked.append(step)
        return self.slope * step + 1.0, carry


def test_a_straight_line_is_continued_exactly_and_the_first_and_last_steps_are_asked(straight, its_test):
    program = accel.build(its_test["network"](), Plan(name="p", grid=GridSpec(steps=9), solver="ddim"), (2,), 8)
    line = Linear(torch.tensor([[0.5, -2.0]]))
    rewritten = straight.Straight().rewrite(_with_look(program, line), {"every": 3}, accel.Use()).rewritten
    carry, given = None, {}
    for step in range(9, 0, -1):
        given[step], carry = rewritten(None, step, None, None, carry)
    assert line.asked == [9, 7, 4, 1]
    for step in (6, 5, 3, 2):  # once two answers are there
        torch.testing.assert_close(given[step], line.slope * step + 1.0)
    torch.testing.assert_close(given[8], given[9])  # with one answer there is no slope yet


def _with_look(program, look):
    import dataclasses

    return dataclasses.replace(program, rewritten=look)
