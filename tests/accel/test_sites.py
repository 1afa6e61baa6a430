"""Branches that nobody would find: named by the caller, and told from what is none."""

import numpy as np
import pytest
import torch
from torch import nn

from ontick.accel.attach import attach, record
from ontick.accel.caching import CacheSchedule, sampler_of
from ontick.diffusion import load_plan
from ontick.errors import InputError


def of_look(refresh, plan) -> CacheSchedule:
    """A schedule of the branch `look` alone."""
    return CacheSchedule(refresh=refresh, blocks=("look",), sampler=sampler_of(plan))


class Own(nn.Module):
    """Branches that nobody would find."""

    def __init__(self, calls=1):
        super().__init__()
        self.look, self.think, self.calls = nn.Linear(4, 4), nn.Linear(4, 4), calls

    def forward(self, x):
        for _ in range(self.calls):
            x = x + self.look(x)
        return x + self.think(x) if x.sum() > -1e9 else x


def test_branches_can_be_named():
    model = Own().eval().requires_grad_(False)
    plan = load_plan("ddim-2")
    x = torch.randn(2, 3, 4)
    schedule = of_look(np.array([[True, False]]), plan)
    with attach(model, plan, schedule=schedule, blocks={"look": model.look}):
        model(x[0])
        y = x[1] + model.look(x[0])  # by itself it is the plain branch
        assert torch.equal(model(x[1]), y + model.think(y))


def test_a_model_may_change_what_a_branch_gave_in_place():
    class InPlace(Own):
        def forward(self, x):
            out = self.look(x)
            out += x
            return out + self.think(out)

    torch.manual_seed(0)
    model = InPlace().eval().requires_grad_(False)
    x = torch.randn(3, 2, 4)
    refresh, plan = np.array([[True, False, False]]), load_plan("ddim-3")
    with attach(model, plan, schedule=of_look(refresh, plan), blocks={"look": model.look}):
        got = [model(part) for part in x]
    outs = [model.look(x[0]) + part for part in x]
    for out, wanted in zip(got, outs, strict=True):
        assert torch.equal(out, wanted + model.think(wanted))


def test_networks_without_branches_say_how_to_name_them():
    model = Own().eval()
    with pytest.raises(InputError, match="name its branches: blocks="):
        attach(model, "uniform-10")
    with pytest.raises(InputError, match="blocks: look; wanted modules of Own"):
        attach(model, "uniform-10", blocks={"look": Own().look})
    with pytest.raises(InputError, match="named twice"):
        attach(model, "uniform-10", blocks={"a": model.look, "b": model.look})
    with pytest.raises(InputError, match="none given"):
        attach(model, "uniform-10", blocks={})


def test_what_is_called_twice_or_never_is_no_branch():
    x = torch.zeros(1, 3, 4)
    model = Own(calls=2).eval().requires_grad_(False)
    with attach(model, "uniform-10", blocks={"look": model.look}), pytest.raises(InputError, match="called twice"):
        model(x)
    model = Own().eval().requires_grad_(False)
    both = {"look": model.look, "think": model.think}
    with attach(model, "uniform-10", blocks=both), pytest.raises(InputError, match="think: not called"):
        model(x - 1e9)


def test_branches_of_different_shapes_are_not_recorded_together():
    model = Own().eval()
    with pytest.raises(InputError, match="got look: 0 x"):
        record(model, lambda: None, blocks={"look": model.look})
    model.think = nn.Linear(4, 1)
    with pytest.raises(InputError, match="one shape of output"):
        record(model, lambda: model(torch.zeros(1, 4)), blocks={"look": model.look, "think": model.think})
