"""Kolmogorov flow: the laws of the equation, on the grid and in the modes that are kept."""

import numpy as np
import pytest
import torch

from ontick.data.kolmogorov import GRID, Flow, crop, start, vorticity_clips
from ontick.errors import InputError


@pytest.fixture(scope="module")
def flow():
    return Flow()


@pytest.fixture(scope="module")
def later(flow):
    """Three flows after 4 time units."""
    spectrum = torch.stack([start(seed) for seed in (1, 2, 3)])
    for _ in range(400):
        spectrum = flow.step(spectrum)
    return spectrum


def on_grid(spectrum):
    size = spectrum.shape[-2]
    return torch.fft.irfft2(spectrum, s=(size, size))


def test_the_flow_is_divergence_free_and_its_curl_is_the_vorticity(flow, later):
    u, v = flow.velocity(later)
    y, x = flow.waves
    scale = later.abs().max()
    assert (x * u + y * v).abs().max() < 1e-12 * scale
    assert (1j * x * v - 1j * y * u - later).abs().max() < 1e-12 * scale


def test_the_mean_vorticity_stays_zero(later):
    assert on_grid(later).mean(dim=(-2, -1)).abs().max() < 1e-12


def test_energy_and_enstrophy_stay_bounded_and_the_flow_stirs(flow, later):
    energy, enstrophy = flow.energy(later), on_grid(later).square().mean(dim=(-2, -1)) / 2
    assert torch.isfinite(later.abs()).all()
    assert ((energy > 0.1) & (energy < 10)).all() and ((enstrophy > 2) & (enstrophy < 60)).all()


def test_a_single_wave_decays_as_the_linear_terms_say():
    """One Fourier mode does not advect itself: w = w0 exp(-(nu k^2 + drag) t)."""
    flow = Flow(stirring=0.0, viscosity=0.02)
    angle = torch.arange(GRID, dtype=torch.float64) * 2 * torch.pi / GRID
    wave = torch.cos(3 * angle[:, None] + 2 * angle[None])[None]
    spectrum = torch.fft.rfft2(wave)
    for _ in range(50):
        spectrum = flow.step(spectrum, 0.02)
    wanted = wave * np.exp(-(0.02 * 13 + 0.1) * 1.0)
    torch.testing.assert_close(on_grid(spectrum), wanted, rtol=0, atol=1e-12)


def test_the_stirred_laminar_flow_stays_at_its_balance():
    """-k cos(k y) against drag and viscosity: w = -k cos(k y) / (nu k^2 + drag) does not move."""
    flow = Flow(viscosity=0.5)
    y = torch.arange(GRID, dtype=torch.float64) * 2 * torch.pi / GRID
    balance = (-4 * torch.cos(4 * y) / (0.5 * 16 + 0.1))[:, None].expand(GRID, GRID)[None]
    spectrum = torch.fft.rfft2(torch.zeros_like(balance))
    for _ in range(1000):
        spectrum = flow.step(spectrum, 0.01)
    torch.testing.assert_close(on_grid(spectrum), balance.clone(), rtol=0, atol=1e-7)


def test_advection_alone_keeps_energy_and_enstrophy():
    flow = Flow(stirring=0.0, viscosity=0.0, drag=0.0)
    first = start(5)[None] * flow.kept
    spectrum = first
    for _ in range(50):
        spectrum = flow.step(spectrum, 0.005)
    torch.testing.assert_close(flow.energy(spectrum), flow.energy(first), rtol=1e-6, atol=0)
    squares = [on_grid(s).square().mean() for s in (spectrum, first)]
    torch.testing.assert_close(*squares, rtol=1e-5, atol=0)


def test_the_tendency_is_minus_velocity_times_gradient(flow, later):
    kept = later * flow.kept
    u, v = (on_grid(part) for part in flow.velocity(kept))
    y, x = flow.waves
    advection = torch.fft.rfft2(u * on_grid(1j * x * kept) + v * on_grid(1j * y * kept)) * flow.kept
    wanted = Flow(stirring=0.0).tendency(kept)
    assert (wanted + advection).abs().max() < 1e-10 * advection.abs().max()


def test_steps_of_half_the_length_agree_to_fourth_order():
    flow, first = Flow(), start(7)[None]

    def after(dt):
        spectrum = first
        for _ in range(round(0.4 / dt)):
            spectrum = flow.step(spectrum, dt)
        return on_grid(spectrum)

    exact = after(0.0025)
    coarse, fine = ((after(dt) - exact).abs().max() for dt in (0.02, 0.01))
    assert 10 < coarse / fine < 24


def test_the_crop_keeps_low_modes_and_drops_the_rest(later):
    small = crop(later, 32)
    assert small.shape == (3, 32, 32)
    found, whole = torch.fft.rfft2(small) * 4, later  # the transform is not normalised: (64 / 32)^2
    torch.testing.assert_close(found[:, :16, :16], whole[:, :16, :16])
    torch.testing.assert_close(found[:, -15:, :16], whole[:, -15:, :16])
    assert found[:, 16].abs().max() < 1e-9 and found[:, :, 16].abs().max() < 1e-9


def test_a_crop_of_a_smooth_field_is_the_field_at_fewer_points():
    spectrum = start(4)
    torch.testing.assert_close(crop(spectrum, 32), on_grid(spectrum)[::2, ::2], rtol=0, atol=1e-12)
    for size in (31, 2, 66):
        with pytest.raises(InputError, match="even number from 4 to 64"):
            crop(spectrum, size)


def test_a_start_is_the_same_flow_on_every_grid():
    torch.testing.assert_close(on_grid(start(4, 64)), on_grid(start(4, 128))[::2, ::2], rtol=0, atol=1e-12)
    assert on_grid(start(4)).square().mean().sqrt() == pytest.approx(4.0)


def test_flows_depend_on_their_seed_alone_and_progress_is_told(monkeypatch):
    monkeypatch.setattr("ontick.data.kolmogorov.WARM_UP", 0.2)
    told = []
    fields = vorticity_clips([3, 8], 3, 32, told.append)
    assert fields.shape == (2, 3, 32, 32) and fields.dtype == np.float32 and told == [2]
    np.testing.assert_allclose(vorticity_clips([8], 3), fields[1:], atol=1e-5)
    assert np.abs(fields[0] - fields[1]).max() > 1


def test_a_grid_that_cannot_hold_the_stirring_is_refused():
    for grid in (12, 33):
        with pytest.raises(InputError, match="finer grid"):
            Flow(grid=grid)
