"""Guided chunks: what is known pulls, what is not known does not, and the pull is the paper's."""

import numpy as np
import pytest
import torch

from ontick.diffusion import (
    Denoiser,
    GridSpec,
    Guidance,
    Plan,
    Prediction,
    build,
    guided,
    load_plan,
    run_chunk,
    schedule,
    soft_mask,
)
from ontick.diffusion.guidance import BETA, GuidedLook

SHAPE, POSITIONS, LANES = (2,), 5, 3
PLANS = ["ddpm-6", "ddim-6", "dpmpp-6"]


def told(weight, known=None):
    known = torch.rand(LANES, POSITIONS, *SHAPE) if known is None else known
    return Guidance(None, known, torch.full((LANES, POSITIONS), float(weight)))


@pytest.mark.parametrize("true_jacobian", [True, False])
@pytest.mark.parametrize("plan", PLANS)
def test_where_nothing_is_known_the_chunk_is_the_plain_one(mixer, keys, plan, true_jacobian):
    program = build(mixer(), load_plan(plan), SHAPE, POSITIONS)
    plain = run_chunk(program, None, *keys(LANES))
    assert torch.equal(run_chunk(guided(program, true_jacobian), told(0), *keys(LANES)), plain)


@pytest.mark.parametrize("true_jacobian", [True, False])
@pytest.mark.parametrize("plan", PLANS)
def test_known_rows_come_out_nearer_and_where_rows_do_not_mix_the_others_stay(gaussian, keys, plan, true_jacobian):
    program = build(gaussian(std=0.4), load_plan(plan), SHAPE, POSITIONS)
    known = torch.full((LANES, POSITIONS, *SHAPE), -0.2)
    weight = torch.zeros(LANES, POSITIONS)
    weight[:, :2] = 1.0
    plain = run_chunk(program, None, *keys(LANES))
    pulled = run_chunk(guided(program, true_jacobian), Guidance(None, known, weight), *keys(LANES))
    assert (pulled - known)[:, :2].norm() < 0.8 * (plain - known)[:, :2].norm()
    assert torch.equal(pulled[:, 2:], plain[:, 2:])


def test_lanes_are_pulled_by_their_own_rows_alone(mixer, keys):
    program = guided(build(mixer(), load_plan("ddim-6"), SHAPE, POSITIONS), true_jacobian=True)
    known = torch.rand(LANES, POSITIONS, *SHAPE)
    weight = torch.zeros(LANES, POSITIONS)
    weight[1] = 1.0
    none = run_chunk(program, Guidance(None, known, torch.zeros_like(weight)), *keys(LANES))
    one = run_chunk(program, Guidance(None, known, weight), *keys(LANES))
    assert torch.equal(one[[0, 2]], none[[0, 2]]) and not torch.equal(one[1], none[1])


def flow_step(velocity, x, tau, known, weight):
    """Real-time chunking as published, for flow from noise (tau 0) to data (1): equations 2 to 4."""
    x = x.clone().requires_grad_(True)
    clean = x + (1 - tau) * velocity(x)
    r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
    [pull] = torch.autograd.grad(clean, x, (weight[..., None] * (known - clean)).detach())
    return velocity(x).detach() + (min(BETA, (1 - tau) / (tau * r2)) if tau else BETA) * pull


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_on_flow_matching_it_is_the_published_velocity(step):
    trained = schedule("flow")
    torch.manual_seed(step)
    mix = torch.randn(POSITIONS * 2, POSITIONS * 2) / 3

    def velocity(x):
        """As published, from noise to data."""
        return torch.tanh(x.flatten(1) @ mix).reshape(x.shape)

    class Flow(Denoiser):
        levels, prediction, clip, windows = "sample", "velocity", None, True
        schedule = trained

        def prepare(self, obs):
            return obs

        def predict(self, x, level, context, rows):
            return Prediction(-velocity(x))

    plan = Plan(name="flow", grid=GridSpec(kind="flow", steps=5), solver="euler")
    program = build(Flow(), plan, SHAPE, POSITIONS)
    x, known = torch.randn(LANES, POSITIONS, *SHAPE), torch.randn(LANES, POSITIONS, *SHAPE)
    weight = torch.rand(LANES, POSITIONS)
    index = torch.arange(POSITIONS).expand(LANES, -1)
    out, _ = GuidedLook(program, True)(x, step, Guidance(None, known, weight), index, None)
    wanted = flow_step(velocity, x, float(program.grid.alpha[step]), known, weight)
    torch.testing.assert_close(-out, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("true_jacobian", [True, False])
def test_rows_of_weight_1_are_what_is_known_at_every_step(true_jacobian):
    class Still(Denoiser):
        levels, prediction, clip, windows, schedule = "sample", "sample", None, True, schedule("squaredcos_cap_v2")

        def prepare(self, obs):
            return obs

        def predict(self, x, level, context, rows):
            return Prediction(x.tanh())

    plan = Plan(name="p", grid=GridSpec(steps=4), solver="ddim")
    program = build(Still(), plan, SHAPE, POSITIONS)
    x, known = torch.randn(LANES, POSITIONS, *SHAPE), torch.randn(LANES, POSITIONS, *SHAPE)
    weight = torch.zeros(LANES, POSITIONS)
    weight[:, :2] = 1
    told, index = Guidance(None, known, weight), torch.arange(POSITIONS).expand(LANES, -1)
    for step in range(1, 5):
        out, _ = GuidedLook(program, true_jacobian)(x, step, told, index, None)
        torch.testing.assert_close(out[:, :2], known[:, :2], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(out[:, 2:], x[:, 2:].tanh(), rtol=1e-5, atol=1e-5)


def test_the_mask_is_1_on_fixed_rows_falls_on_what_is_left_and_is_0_after():
    weight = soft_mask(12, 8, 3)
    assert (weight[:3] == 1).all() and (weight[8:] == 0).all()
    assert (np.diff(weight[3:8]) < 0).all() and 0 < weight[7] < weight[3] < 1
    c = (8 - 4) / (8 - 3 + 1)
    assert weight[4] == pytest.approx(c * (np.exp(c) - 1) / (np.e - 1))


@pytest.mark.parametrize(("left", "fixed"), [(0, 0), (2, 5), (20, 4), (4, 4)])
def test_the_mask_is_within_0_and_1_whatever_is_left(left, fixed):
    weight = soft_mask(12, left, fixed)
    assert len(weight) == 12 and (weight >= 0).all() and (weight <= 1).all() and (weight[left:] == 0).all()
