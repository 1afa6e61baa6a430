"""A plan's name says all of it: what is built is what the name says, it survives being written down, and a name that
cannot be had is refused in one line that says what can.

Legend: K calls, H rows of a queue's block, N executed actions.
"""

import dataclasses

import numpy as np
import pytest

from ontick.diffusion import GuessSpec, Plan, known_plans, load_plan, named_plan, save_plan, schedule
from ontick.errors import InputError

COSINE, LINEAR = schedule("squaredcos_cap_v2", 100), schedule("scaled_linear", 1000)
PLAIN = ["ddpm-100", "ddim-10", "rti-1", "rti-3", "rti-20-renoise", "anchored-1", "anchored-2", "anchored-9"]
PLAIN += ["diagonal-1", "diagonal-2", "diagonal-4", "diagonal-8", "draft-1", "draft-3", "draft-regression-2"]
PARALLEL = ["picard-8", "picard-8-warm", "picard-16-ddim-15", "picard-4-ddim-15-warm"]


@pytest.mark.parametrize(
    "name",
    [
        *(prefix + name for name in (*PLAIN, *PARALLEL) for prefix in ("", "exact-")),
        *("rti-3-every-4", "exact-ddim-10-every-2", "exact-picard-8-warm-every-2"),
    ],
)
def test_every_name_survives_being_written_down(name, tmp_path):
    plan = load_plan(name)
    assert plan.name == name and Plan.from_dict(plan.to_dict()) == plan
    save_plan(plan, tmp_path / "plan.yaml")
    assert load_plan(str(tmp_path / "plan.yaml")) == plan


def test_what_is_written_down_leaves_defaults_out():
    assert load_plan("ddpm-7").to_dict() == {"name": "ddpm-7", "grid": {"steps": 7}, "solver": "ddpm"}
    assert load_plan("rti-3").to_dict()["guess"] == {"source": "previous"}


# -- what a name says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [1, 2, 3, 20, 100])
def test_real_time_iteration_visits_the_lowest_levels_and_tells_each_as_it_is(calls):
    for name, birth in ((f"rti-{calls}", "guess"), (f"rti-{calls}-renoise", "noised")):
        plan = load_plan(name)
        assert plan.grid.build(COSINE).label[1:].tolist() == list(range(calls))
        assert (plan.solver, plan.birth, plan.execute, plan.guess.source) == ("ddpm", birth, 1, "previous")


def test_anchors_are_noised_to_level_8_and_the_network_is_told_10_and_then_0():
    grid = load_plan("anchored-2").grid.build(LINEAR)
    assert grid.label[1:].tolist() == [0, 10]
    np.testing.assert_allclose(grid.sigma[1:] ** 2, 1 - LINEAR.alpha_bar[[0, 8]])


@pytest.mark.parametrize("calls", range(1, 10))
def test_any_number_of_anchored_calls_starts_at_the_published_entry(calls):
    plan = load_plan(f"anchored-{calls}")
    grid = plan.grid.build(LINEAR)
    assert grid.steps == calls and grid.label[-1] == 10
    assert grid.sigma[-1] ** 2 == pytest.approx(1 - LINEAR.alpha_bar[8])
    assert (np.diff(grid.sigma) > 0).all() and (np.diff(grid.label[1:]) > 0).all()
    assert (plan.birth, plan.guess.source) == ("noised", "anchors")


@pytest.mark.parametrize("block", [1, 2, 4, 8])
def test_a_queue_of_16_rows_is_one_diagonal_from_clean_to_noise(block):
    plan = load_plan(f"diagonal-{block}")
    grid = plan.grid.build(COSINE)
    assert grid.steps * plan.block == 16 and plan.stagger == 1 and plan.birth == "noise"
    assert grid.label[1] == 0 and grid.label[-1] == 98


@pytest.mark.parametrize("calls", [1, 2, 5])
@pytest.mark.parametrize("source", ["nearest", "regression"])
def test_a_draft_is_noised_to_level_30_however_few_the_calls(calls, source):
    plan = load_plan(f"draft-{'regression-' if source == 'regression' else ''}{calls}")
    grid = plan.grid.build(COSINE)
    assert (plan.birth, plan.guess.source, grid.steps, grid.label[-1]) == ("noised", source, calls, 30)


@pytest.mark.parametrize("name", PLAIN)
def test_exact_changes_how_a_plan_is_computed_and_nothing_else(name):
    plan, exact = load_plan(name), load_plan(f"exact-{name}")
    assert dataclasses.replace(exact.plain(), name=name) == plan
    rewritten = not name.startswith(("anchored", "diagonal"))  # the stack knows the published network alone
    assert (exact.accelerators, exact.backend) == ({"exact": {}} if rewritten else {}, "best")


@pytest.mark.parametrize("name", PARALLEL)
def test_parallel_plans_say_window_sampler_and_whether_they_are_warm(name):
    plan, exact = load_plan(name), load_plan(f"exact-{name}")
    window = int(name.split("-")[1])
    settings = {"window": window, "warm": True} if name.endswith("-warm") else {"window": window}
    assert plan.accelerators == {"picard": settings} and plan.backend == "eager"
    assert exact.accelerators == {"exact": {}, "picard": settings} and exact.backend == "best"
    sampler = "ddim-15" if "ddim" in name else "ddpm-100"
    assert plan.plain() == dataclasses.replace(load_plan(sampler), name=name)
    assert plan.uses_guess == name.endswith("-warm")


@pytest.mark.parametrize(
    "name", ["ddim-10", "exact-ddim-10", "rti-3", "exact-rti-3", "anchored-2", "bac-10", "draft-2"]
)
def test_every_changes_how_many_actions_are_executed_and_nothing_else(name):
    plan, every = load_plan(name), load_plan(f"{name}-every-3")
    assert every == dataclasses.replace(plan, name=f"{name}-every-3", execute=3)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("diagonal-5", "blocks of 5 rows, wanted a divisor of 16"),
        ("diagonal-0", "blocks of 0 rows"),
        ("diagonal-16", "blocks of 16 rows"),
        ("exact-diagonal-3", "blocks of 3 rows"),
        ("anchored-0", "0 calls, wanted 1 to 9"),
        ("anchored-20", "20 calls, wanted 1 to 9"),
        ("rti-0", "at least 1 step"),
        ("draft-0", "at least 1 step"),
        ("ddim-10-every-0", "executes 0 actions"),
    ],
)
def test_a_number_that_cannot_be_had_is_refused(name, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        load_plan(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("picard", "picard-8-rti-3", "picard-8-warm-ddim-3", "picard-8-ddim", "uniform-5-picard-8"),
        *("rti", "rti-3-noise", "rti-3-renoise-2", "anchored-2-renoise", "diagonal", "draft-nearest-2", ""),
        *("exact-exact-ddim-3", "exact-uniform-10", "every-3", "ddim-10-every", "ddim-10-every-x", "ddimm-3-every-2"),
    ],
)
def test_any_other_name_is_unknown_and_the_complaint_lists_what_is_known(name):
    assert named_plan(name) is None
    with pytest.raises(InputError, match="unknown plan") as caught:
        load_plan(name)
    assert all(known in str(caught.value) for known in known_plans())


def test_what_is_said_to_be_known_is():
    for pattern in known_plans():
        for name in pattern.split(", "):
            name = (
                name.replace("-K", "-2").replace("-H", "-2").replace("-M", "-2").replace("-N", "-2").replace("-P", "-2")
            )
            assert load_plan(name.replace("exact-...", "exact-ddim-2").replace("...-every", "ddim-2-every"))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"birth": "noise", "guess": GuessSpec(source="previous")}, "starts from no guess"),
        ({"execute": -1}, "execute is -1"),
        ({"gamma": -0.5}, "gamma is -0.5"),
        ({"gamma": float("nan")}, "gamma is nan"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        dataclasses.replace(load_plan("ddpm-10"), **changes)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"source": "memory"}, "unknown source"), ({"pick": "best"}, "unknown pick"), ({"margin": 1.5}, "margin is 1.5")],
)
def test_a_guess_that_is_none_is_refused(settings, complaint):
    with pytest.raises(InputError, match=complaint):
        GuessSpec(**settings)
