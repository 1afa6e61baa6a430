"""Accelerators are found by name, put in the order of their stages, and refused where they cannot stand together."""

import dataclasses
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from ontick import accel
from ontick.accel import GROUP, Accelerator, Stage, accelerator_names, find_accelerator, registry
from ontick.diffusion import GridSpec, Plan
from ontick.errors import InputError

REWRITES: list[str] = []
OWN_NAMES = [own.name for own in registry.OWN]


class Noted(Accelerator):
    """Writes down that it was asked, and changes nothing."""

    def rewrite(self, program, settings, use):
        REWRITES.append(self.name)
        return dataclasses.replace(program)


class EarlyA(Noted):
    name, stage = "zebra", Stage.NETWORK


class LateA(Noted):
    name, stage = "ant", Stage.SCHEDULE


class LateB(Noted):
    name, stage = "bee", Stage.SCHEDULE


class Rival(Noted):
    name, stage, clashes = "wasp", Stage.SCHEDULE, {"bee": "both keep the network's output in the same place"}


@pytest.fixture
def bring(monkeypatch):
    """bring(name="class", ...): as if installed distributions had these entry points."""
    module = ModuleType("brought")
    module.__dict__.update({kind.__name__: kind for kind in (EarlyA, LateA, LateB, Rival)}, NotOne=dict, value=3)
    monkeypatch.setitem(sys.modules, "brought", module)
    REWRITES.clear()

    def make(*brought: tuple[str, str]) -> None:
        points = [EntryPoint(name, f"brought:{kind}", GROUP) for name, kind in brought]
        monkeypatch.setattr(registry, "entry_points", lambda group: points if group == GROUP else [])

    return make


@pytest.fixture
def all_four(bring):
    bring(("zebra", "EarlyA"), ("ant", "LateA"), ("bee", "LateB"), ("wasp", "Rival"))


def build(mixer, *names):
    plan = Plan(name="mine", grid=GridSpec(steps=4), solver="ddim", accelerators={name: {} for name in names})
    return accel.build(mixer(), plan, (2,), 8)


# -- names -------------------------------------------------------------------------------------------------------------


def test_our_own_accelerators_and_installed_ones_are_known_by_name(all_four):
    assert accelerator_names() == sorted([*OWN_NAMES, "ant", "bee", "wasp", "zebra"])
    assert isinstance(find_accelerator("ant"), LateA)
    assert find_accelerator("exact").exact


def test_an_unknown_name_is_refused_with_the_known_ones(bring, mixer):
    bring(("ant", "LateA"))
    with pytest.raises(InputError, match=r"unknown accelerator 'gnat'; known: ant, cache, exact"):
        build(mixer, "gnat")


def test_a_name_that_two_distributions_bring_is_refused(bring, mixer):
    bring(("ant", "LateA"), ("ant", "LateB"))
    with pytest.raises(InputError, match=r"'ant' is brought by 2 distributions; uninstall all but one"):
        build(mixer, "ant")


def test_a_distribution_that_is_found_twice_is_one(bring, mixer):
    bring(("ant", "LateA"), ("ant", "LateA"))
    assert isinstance(find_accelerator("ant"), LateA)


@pytest.mark.parametrize("what", ["NotOne", "value", "LateB"])
def test_an_entry_point_that_is_no_accelerator_of_that_name_is_refused(bring, mixer, what):
    bring(("ant", what))
    with pytest.raises(InputError, match=f"brought:{what} is no Accelerator of that name"):
        build(mixer, "ant")


# -- order and clashes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("ant", "bee", "zebra"), ("bee", "zebra", "ant"), ("zebra", "ant", "bee")])
def test_stages_decide_the_order_and_then_names_whatever_the_plan_says(all_four, mixer, names):
    build(mixer, *names)
    assert REWRITES == ["zebra", "ant", "bee"]


@pytest.mark.parametrize("names", [("wasp", "bee"), ("bee", "wasp", "ant")])
def test_a_clash_is_refused_with_its_reason_before_anything_is_rewritten(all_four, mixer, names):
    with pytest.raises(InputError, match="wasp cannot be used with bee: both keep the network's output"):
        build(mixer, *names)
    assert REWRITES == []


def test_one_that_clashes_stands_well_beside_others(all_four, mixer):
    build(mixer, "wasp", "ant")
    assert REWRITES == ["ant", "wasp"]


def test_a_refusal_says_which_plan_and_which_accelerator(all_four, mixer, monkeypatch):
    def refuse(self, program, settings, use):
        raise InputError("no wings")

    monkeypatch.setattr(LateA, "rewrite", refuse)
    with pytest.raises(InputError, match=r"^plan 'mine', accelerator ant: no wings$"):
        build(mixer, "ant")
