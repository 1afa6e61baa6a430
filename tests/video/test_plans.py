"""Samplers of a stream by name: each builds for any window, keeps its staircase, and sees no more frames than it was
trained with.

Legend: S steps, s stagger, b block, W blocks in flight.
"""

import dataclasses

import numpy as np
import pytest

from ontick.diffusion import Plan, load_plan, schedule
from ontick.errors import InputError
from ontick.video import STREAM_PLANS, StreamPlan, stream_plan

COSINE, FLOW = schedule("squaredcos_cap_v2", 1000), schedule("flow", 1000)
STAGGERED = ("rolling", "ar")


@pytest.fixture
def built(frame_oracle):
    """built(plan, frames) -> its program."""
    import torch

    from ontick.diffusion import build

    def make(plan, frames=8):
        return build(frame_oracle(torch.zeros(1, 3, 4, 4), frames), plan.plan, (3, 4, 4), None)

    return make


@pytest.mark.parametrize("frames", [2, 3, 6, 8, 10, 12, 16, 17])
@pytest.mark.parametrize("name", STREAM_PLANS)
def test_every_name_builds_for_every_window_and_shows_no_more_frames_than_it_has(name, frames, built):
    plan = stream_plan(name, COSINE, frames)
    program = built(plan, frames)
    assert plan.name == name and program.endless
    assert max(call.stop - call.start for call in program.views) + plan.memory <= frames
    assert plan.causal == (name == "causal") and bool(plan.clip) == (name == "fifo")


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 30])
@pytest.mark.parametrize("name", [name for name in STREAM_PLANS if name != "fifo"])
def test_steps_are_those_that_were_asked_for(name, steps, built):
    program = built(stream_plan(name, COSINE, 8, steps=steps))
    assert program.grid.steps == steps and program.grid.label[-1] == 999 and program.grid.label[0] == 0


@pytest.mark.parametrize("stagger", [2, 3, 4, 8, 20])
@pytest.mark.parametrize("name", STAGGERED)
def test_a_stagger_is_the_one_that_was_asked_for(name, stagger, built):
    program = built(stream_plan(name, COSINE, 8, steps=8, stagger=stagger))
    assert program.staircase.lag == min(stagger, 8) and program.plan.stagger == stagger


@pytest.mark.parametrize("name", STREAM_PLANS)
def test_steps_are_equally_long(name, built):
    label = built(stream_plan(name, COSINE, 8)).grid.label
    lengths = np.diff(np.where(np.arange(len(label)) == 0, -1.0, label))
    assert lengths.min() >= lengths.max() - 2, "to the rounding of levels"


@pytest.mark.parametrize(
    ("name", "lag", "block", "moving", "behind", "ahead"),
    [
        ("full", 12, 6, 6, 2, 0),
        ("fifo", 1, 1, 8, 4, 0),
        ("rolling", 2, 1, 6, 2, 0),
        ("ar", 2, 1, 4, 2, 2),
        ("causal", 4, 1, 1, 0, 0),
    ],
)
def test_each_sampler_has_its_own_staircase(name, lag, block, moving, behind, ahead, built):
    program = built(stream_plan(name, COSINE, 8))
    stairs, S = program.staircase, program.grid.steps
    assert (stairs.lag, stairs.block, program.moving, program.behind, program.ahead) == (
        lag,
        block,
        moving,
        behind,
        ahead,
    )
    table = stairs.table(4 * block)
    for tick, row in enumerate(table, 1):
        assert row.tolist() == [min(max(tick - i // block * min(lag, S), 0), S) for i in range(4 * block)]


def test_a_rolling_window_is_rolling_diffusions_schedule(built):
    # K steps shift a window of W frames by one: frame w has local time (w + t) / W, t falling from 1 to 0.
    program = built(stream_plan("rolling", COSINE, 8, steps=18))
    W, K, S = 6, 3, 18
    assert program.moving == W and program.staircase.lag == K
    ramp = [(S - program.staircase.done(tick, np.arange(W))) / S for tick in range(S)]
    for tick, levels in enumerate(ramp):  # the beginning: clip(w / W + t, 0, 1), t from 1 to 0
        assert levels.tolist() == pytest.approx([min(1.0, w / W + 1 - tick / S) for w in range(W)])
    after = [(S - program.staircase.done(S + tick, np.arange(1, W + 1))) / S for tick in range(K + 1)]
    for tick, levels in enumerate(after):
        assert levels.tolist() == pytest.approx([(w + 1 - tick / K) / W for w in range(W)])


@pytest.mark.parametrize(("view", "steps", "calls"), [("lookahead", 16, 4), ("partitions", 16, 2), ("all", 16, 1)])
def test_fifo_has_its_three_views(view, steps, calls, built):
    program = built(stream_plan("fifo", COSINE, 8, steps=steps, view=view))
    assert program.calls_per_tick == calls and program.moving == steps
    if view != "all":
        assert {call.stop - call.start for call in program.views} == {8}


def test_a_flow_is_sampled_by_euler():
    for name in STREAM_PLANS:
        plan = stream_plan(name, FLOW, 8).plan
        assert (plan.grid.kind, plan.solver) == ("flow", "euler")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("window", {}, "unknown plan 'window'; wanted one of full"),
        ("full", {"steps": 0}, "at least 1"),
        ("full", {"stagger": 2}, "takes no stagger"),
        ("causal", {"stagger": 2}, "takes no stagger"),
        ("rolling", {"stagger": 0}, "stagger 0, wanted 1 or more"),
        ("rolling", {"stagger": 1}, "12 frames in flight, the network sees 6 .* use stagger 2 or more"),
        ("ar", {"steps": 40, "stagger": 2}, "use stagger 7 or more"),
        ("rolling", {"view": "all"}, "view is fifo's"),
        ("fifo", {"stagger": 2}, "the diagonal itself"),
        ("fifo", {"steps": 12}, "steps 8, 16, ...; got 12"),
        ("fifo", {"view": "sideways"}, "sideways"),
        ("fifo", {"frames": 1}, "2 or more"),
        ("causal", {"frames": 1}, "2 or more"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, options, said):
    with pytest.raises(InputError, match=said) as caught:
        stream_plan(name, COSINE, **{"frames": 8, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("plan", "beside", "said"),
    [
        ({"stagger": 0}, {}, "stagger 0, wanted 1 or more"),
        ({}, {"memory": 3}, "only a causal network"),
        ({"stagger": 2}, {"memory": 3, "causal": True}, "stagger 4 or more, got 2"),
        ({"behind": 2}, {"memory": 3, "causal": True}, "set behind to 0"),
        ({}, {"memory": 3, "sinks": 4, "causal": True}, "4 sinks in a memory of 3"),
        ({}, {"sinks": -1, "causal": True}, "-1 sinks"),
        ({}, {"clip": 8, "causal": True}, "set clip to 0"),
    ],
)
def test_a_stream_plan_that_cannot_be_is_refused(plan, beside, said):
    base = stream_plan("causal", COSINE, 8).plan
    with pytest.raises(InputError, match=said):
        StreamPlan(plan=dataclasses.replace(base, **plan), **beside)


def test_frames_are_born_from_noise_alone():
    plan = load_plan("rti-4")
    assert isinstance(plan, Plan) and plan.birth != "noise"
    with pytest.raises(InputError, match="born from noise"):
        StreamPlan(plan=dataclasses.replace(plan, stagger=1))
