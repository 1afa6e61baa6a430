"""Solvers against diffusers' schedulers at the same noise, and their orders of convergence on an exact Gaussian."""

import dataclasses

import numpy as np
import pytest
import torch

from ontick._torchvision import ensure_torchvision
from ontick.diffusion import GridSpec, History, Plan, build, run_chunk, schedule, solver_step, solver_table
from ontick.diffusion.grids import at_indices, flow, spaced
from ontick.diffusion.predictions import conversion
from ontick.diffusion.steps import empty_history, uniform_coefficients
from ontick.errors import InputError

ensure_torchvision()
import diffusers  # noqa: E402

COSINE = schedule("squaredcos_cap_v2", 100)


def ours(grid, solver, model, x, noise, clip, eta=0.0, prediction="epsilon"):
    table = solver_table(solver, grid, eta)
    coefficients = uniform_coefficients(table, conversion(prediction, grid))
    history: History = empty_history(table, x)
    for k in range(grid.steps, 0, -1):
        x, history = solver_step(x, model(x, grid.label[k]), history, noise[k - 1], coefficients[k], clip)
    return x


def theirs(scheduler, steps, model, x, noise, labels, **step):
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == labels[:0:-1].tolist()
    for k, t in zip(range(steps, 0, -1), scheduler.timesteps, strict=True):
        with fixed_noise(noise[k - 1]):
            x = scheduler.step(model(x, float(t)), t, x, **step).prev_sample
    return x


class fixed_noise:
    """diffusers draws its own noise; hand it ours."""

    def __init__(self, z):
        self.z = z

    def __enter__(self):
        self.modules = [diffusers.schedulers.scheduling_ddpm, diffusers.schedulers.scheduling_ddim]
        self.saved = [m.randn_tensor for m in self.modules]
        for m in self.modules:
            m.randn_tensor = lambda *a, **k: self.z

    def __exit__(self, *_):
        for m, f in zip(self.modules, self.saved, strict=True):
            m.randn_tensor = f


def model(x, label):
    """Any bounded function of x and the level will do."""
    return torch.tanh(x + 0.01 * label)


@pytest.fixture
def start():
    g = torch.Generator().manual_seed(3)
    return torch.randn(4, 16, 3, generator=g), torch.randn(100, 4, 16, 3, generator=g)


SETTINGS = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True}


@pytest.mark.parametrize("steps", [100, 50, 10, 5])
def test_ddpm_equals_diffusers(start, steps):
    x, noise = start
    grid = spaced(COSINE, steps)
    scheduler = diffusers.DDPMScheduler(**SETTINGS, variance_type="fixed_small")
    expected = theirs(scheduler, steps, model, x, noise, grid.label)
    torch.testing.assert_close(ours(grid, "ddpm", model, x, noise, 1.0), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [100, 25, 10, 4])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_diffusers(start, steps, spacing, eta):
    x, noise = start
    grid = spaced(COSINE, steps, spacing)
    scheduler = diffusers.DDIMScheduler(**SETTINGS, timestep_spacing=spacing, set_alpha_to_one=True)
    scheduler.alphas_cumprod = torch.from_numpy(COSINE.alpha_bar)  # theirs is fp32, too coarse for the top level
    expected = theirs(scheduler, steps, model, x.double(), noise, grid.label, eta=eta).float()
    torch.testing.assert_close(ours(grid, "ddim", model, x, noise, 1.0, eta), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_every_parameterisation_equals_diffusers(start, prediction):
    x, noise = start
    grid = spaced(COSINE, 20)
    scheduler = diffusers.DDPMScheduler(**SETTINGS, variance_type="fixed_small", prediction_type=prediction)
    expected = theirs(scheduler, 20, model, x, noise, grid.label)
    got = ours(grid, "ddpm", model, x, noise, 1.0, prediction=prediction.removesuffix("_prediction"))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("solver", "scheduler"), [("dpmpp", "DPMSolverMultistepScheduler"), ("unipc", "UniPCMultistepScheduler")]
)
@pytest.mark.parametrize("steps", [4, 10, 20])
def test_multistep_solvers_equal_diffusers(start, solver, scheduler, steps):
    """At the same levels; diffusers' own choice of levels is read off the scheduler."""
    x, noise = start
    other = getattr(diffusers, scheduler)(
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", solver_order=2, final_sigmas_type="zero"
    )
    other.set_timesteps(steps)
    grid = at_indices(COSINE, other.timesteps.numpy()[::-1].copy())
    expected = theirs(other, steps, model, x, noise, grid.label)
    got = ours(grid, solver, model, x, noise, None)
    tolerance = 1e-4 * expected.abs().max().item()  # theirs keeps its schedule in fp32
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=1e-3)


def test_euler_equals_diffusers_flow_matching(start):
    x, noise = start
    grid = flow(8)
    other = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    other.set_timesteps(sigmas=grid.sigma[:0:-1].tolist())
    expected = x
    for k, t in zip(range(8, 0, -1), other.timesteps, strict=True):
        expected = other.step(model(expected, grid.label[k]), t, expected).prev_sample
    got = ours(grid, "euler", model, x, noise, None, prediction="velocity")
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_euler_along_the_straight_path_is_ddim_there():
    grid = flow(7, shift=2.0)
    table_e, table_d = solver_table("euler", grid).next, solver_table("ddim", grid).next
    a, s = grid.alpha[1:, None], grid.sigma[1:, None]
    basis = np.concatenate([a * 0.3 + s * 1.7, 0 * a + 0.3, 0 * a + 1.7], 1)  # x = a x0 + s eps
    np.testing.assert_allclose((table_e[1:, :3] * basis).sum(1), (table_d[1:, :3] * basis).sum(1), atol=1e-12)


# RMSE to the exact solution of the probability-flow ODE, and the spread of the result, where the truth is N(.4, .1^2).
# (steps, spacing, solver): (rmse, std)
TOY = {
    (2, "leading", "ddim"): (0.056, 0.045),
    (4, "leading", "ddim"): (0.054, 0.047),
    (4, "leading", "dpmpp"): (0.035, 0.066),
    (4, "leading", "unipc"): (0.035, 0.067),
    (5, "leading", "ddim"): (0.050, 0.050),
    (5, "leading", "dpmpp"): (0.029, 0.072),
    (5, "leading", "unipc"): (0.029, 0.073),
    (5, "logsnr", "ddim"): (0.040, 0.060),
    (5, "logsnr", "dpmpp"): (0.024, 0.076),
    (5, "logsnr", "unipc"): (0.022, 0.078),
    (8, "leading", "ddim"): (0.040, 0.061),
    (8, "leading", "dpmpp"): (0.015, 0.087),
    (8, "leading", "unipc"): (0.015, 0.088),
    (8, "logsnr", "ddim"): (0.026, 0.074),
    (8, "logsnr", "dpmpp"): (0.008, 0.092),
    (8, "logsnr", "unipc"): (0.005, 0.095),
    (10, "logsnr", "ddim"): (0.021, 0.079),
    (10, "logsnr", "dpmpp"): (0.005, 0.095),
    (10, "logsnr", "unipc"): (0.002, 0.098),
    (20, "linspace", "ddim"): (0.023, 0.078),
    (20, "linspace", "dpmpp"): (0.0001, 0.100),
    (20, "linspace", "unipc"): (0.0005, 0.101),
    (100, "linspace", "ddim"): (0.007, 0.093),
    (100, "linspace", "dpmpp"): (0.002, None),
    (100, "linspace", "unipc"): (0.002, None),
}


@pytest.mark.parametrize(("case", "expected"), TOY.items())
def test_the_convergence_table_on_an_exact_gaussian(gaussian, case, expected):
    steps, spacing, solver = case
    rmse, std = toy_error(gaussian(), steps, spacing, solver)
    assert rmse == pytest.approx(expected[0], abs=0.0015)
    if expected[1] is not None:
        assert std == pytest.approx(expected[1], abs=0.002)


def toy_error(denoiser, steps, spacing, solver):
    """Started from N(0, 1) wherever the grid begins, as policies are; the exact solution starts at the very top,
    where N(0, 1) is the truth. (RMSE to it, spread of the result.)"""
    plan = Plan(name="toy", grid=GridSpec(steps=steps, spacing=spacing), solver=solver)
    program = build(denoiser, plan, (20000,), 1)
    keys = torch.tensor([1]), torch.tensor([0])
    exact = 0.4 + 0.1 * program.start(*keys).x
    x = run_chunk(program, None, *keys)
    return (x - exact).pow(2).mean().sqrt().item(), x.std().item()


@pytest.mark.parametrize("solver", ["ddim", "dpmpp", "unipc"])
def test_trailing_levels_that_end_far_from_clean_are_the_worst(gaussian, solver):
    for steps in (5, 10):
        trailing, _ = toy_error(gaussian(), steps, "trailing", solver)
        logsnr, _ = toy_error(gaussian(), steps, "logsnr", solver)
        assert trailing > 1.5 * logsnr


def test_the_full_ddpm_chain_keeps_the_published_share_of_spread(gaussian):
    plan = Plan(name="full", grid=GridSpec(steps=100), solver="ddpm")
    for std, kept in {0.05: 0.78, 0.1: 0.87, 0.2: 0.93}.items():
        program = build(gaussian(std=std), plan, (20000,), 1)
        x = run_chunk(program, None, torch.tensor([1]), torch.tensor([0]))
        assert x.std().item() / std == pytest.approx(kept, abs=0.02)


# -- gamma ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "eta"), [("ddpm", None), ("ddim", 0.5), ("ddim", 1.0)])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
def test_gamma_scales_fresh_noise_and_nothing_else(solver, eta, gamma):
    grid = spaced(COSINE, 10)
    plain, scaled = solver_table(solver, grid, eta).next, solver_table(solver, grid, eta, gamma).next
    assert np.array_equal(scaled[:, :-1], plain[:, :-1])
    assert np.array_equal(scaled[:, -1], gamma * plain[:, -1]) and plain[:, -1].any()


def test_gamma_1_is_the_solver_itself_and_gamma_0_draws_nothing(gaussian):
    plan = Plan(name="g", grid=GridSpec(steps=10), solver="ddpm")
    keys = torch.tensor([3]), torch.tensor([1])

    def run(gamma):
        return run_chunk(build(gaussian(), dataclasses.replace(plan, gamma=gamma), (7,), 5), None, *keys)

    program = build(gaussian(), dataclasses.replace(plan, gamma=0.0), (7,), 5)
    assert not program.table.uses(6)
    assert torch.equal(run(1.0), run_chunk(build(gaussian(), plan, (7,), 5), None, *keys))
    assert not torch.equal(run(0.5), run(1.0)) and not torch.equal(run(0.5), run(0.0))


@pytest.mark.parametrize("solver", ["ddim", "dpmpp", "unipc"])
def test_gamma_is_refused_where_there_is_no_fresh_noise_to_scale(solver, gaussian):
    plan = Plan(name="g", grid=GridSpec(steps=10), solver=solver, gamma=0.5)
    with pytest.raises(InputError, match=r"gamma 0.5 scales fresh noise, and solver \w+ adds none"):
        build(gaussian(), plan, (7,), 5)
