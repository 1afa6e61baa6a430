"""Kolmogorov flow: two-dimensional turbulence in a periodic box, stirred by a sine, as a field of vorticity.

    w_t + u w_x + v w_y = nu lap w - drag w - k cos(k y),     u = psi_y, v = -psi_x, lap psi = -w

on [0, 2 pi]^2 with k = 4, nu = 1e-3 and a drag of 0.1. Pseudo-spectral in fp64: products on the grid, the 2/3 rule
against aliasing, Runge-Kutta of fourth order in time with the linear terms integrated exactly. The advection needs
four transforms in the form of Basdevant (1983): (d_xx - d_yy)(u v) + d_xy (v^2 - u^2).

Legend: B flows, N grid points of a side. Fields are [B, N, N], y first; spectra are `rfft2` of them, [B, N, N/2+1].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..errors import InputError

GRID, DT = 64, 0.01
SAVE_EVERY, WARM_UP = 0.1, 8.0  # time units of the flow
FPS = round(1 / SAVE_EVERY)
START_RMS, START_WAVENUMBER = 4.0, 6  # of the random vorticity that a flow starts from
BATCH = 8


@dataclass(frozen=True)
class Flow:
    """The equation and its grid. Raises InputError for a grid that cannot hold the stirring, or is odd."""

    grid: int = GRID
    viscosity: float = 1e-3
    drag: float = 0.1
    wavenumber: int = 4  # of the stirring
    stirring: float = 1.0  # times k cos(k y); 0 leaves the flow to decay

    def __post_init__(self) -> None:
        if self.grid % 2 or self.grid < 3 * self.wavenumber + 2:
            wanted = f"an even number of at least {3 * self.wavenumber + 2}"
            raise InputError(f"got a grid of {self.grid} points a side, wanted {wanted}: choose a finer grid")

    @cached_property
    def waves(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Wavenumbers along y and x. float64 [N, 1] and [1, N/2+1]"""
        y = torch.fft.fftfreq(self.grid, 1 / self.grid, dtype=torch.float64)
        return y[:, None], torch.arange(self.grid // 2 + 1, dtype=torch.float64)[None]

    @cached_property
    def kept(self) -> torch.Tensor:
        """1 for the modes that the 2/3 rule keeps. float64 [N, N/2+1]"""
        y, x = self.waves
        return ((y.abs() < self.grid / 3) & (x < self.grid / 3)).double()

    def velocity(self, spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spectra of u and v from that of the vorticity. complex128 [B, N, N/2+1] each"""
        return spectrum * self._to_velocity[0], spectrum * self._to_velocity[1]

    def tendency(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Advection and stirring; viscosity and drag are left to `step`. complex128 [B, N, N/2+1]"""
        u, v = torch.fft.irfft2(torch.stack(self.velocity(spectrum)), s=(self.grid, self.grid))
        of_uv, of_squares = torch.fft.rfft2(torch.stack([u * v, v * v - u * u]))
        return self._products[0] * of_uv + self._products[1] * of_squares + self._force

    def step(self, spectrum: torch.Tensor, dt: float = DT) -> torch.Tensor:
        """One step of `dt` time units."""
        y, x = self.waves
        half = torch.exp((-self.viscosity * (x**2 + y**2) - self.drag) * dt / 2)
        whole = half * half
        a = self.tendency(spectrum)
        b = self.tendency(half * (spectrum + dt / 2 * a))
        c = self.tendency(half * spectrum + dt / 2 * b)
        d = self.tendency(whole * spectrum + dt * half * c)
        return whole * spectrum + dt / 6 * (whole * a + 2 * half * (b + c) + d)

    def energy(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Mean of (u^2 + v^2) / 2 over the box. [B]"""
        u, v = torch.fft.irfft2(torch.stack(self.velocity(spectrum)), s=(self.grid, self.grid))
        return (u**2 + v**2).mean(dim=(-2, -1)) / 2

    @cached_property
    def _to_velocity(self) -> tuple[torch.Tensor, torch.Tensor]:
        y, x = self.waves
        square = x**2 + y**2
        square[0, 0] = 1.0  # the mean has no stream function
        # A derivative of the highest mode of an even grid is not real, so that mode is left out.
        return 1j * y / square * (y.abs() < self.grid / 2), -1j * x / square * (x < self.grid / 2)

    @cached_property
    def _products(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What turns spectra of u v and v^2 - u^2 into the advection, with its sign on the right-hand side."""
        y, x = self.waves
        return (x**2 - y**2) * self.kept, x * y * self.kept

    @cached_property
    def _force(self) -> torch.Tensor:
        y = torch.arange(self.grid, dtype=torch.float64) * (2 * torch.pi / self.grid)
        force = -self.stirring * self.wavenumber * torch.cos(self.wavenumber * y)
        return torch.fft.rfft2(force[:, None].expand(self.grid, self.grid)) * self.kept


def start(seed: int, grid: int = GRID) -> torch.Tensor:
    """The spectrum of a random vorticity of large eddies with mean 0. complex128 [grid, grid/2+1]

    The same flow on any grid that holds wavenumbers up to 6.
    """
    side = 2 * START_WAVENUMBER + 1
    coarse = torch.from_numpy(np.random.default_rng(seed).standard_normal((side, side)))
    spectrum = torch.fft.rfft2(coarse - coarse.mean())
    spectrum = spectrum * (START_RMS / torch.fft.irfft2(spectrum, s=(side, side)).square().mean().sqrt())
    return _with_modes(spectrum, side, grid, START_WAVENUMBER)


def crop(spectrum: torch.Tensor, size: int) -> torch.Tensor:
    """The field on a coarser grid: modes below size/2 kept as they are, the others dropped. float64 [..., size, size]

    Raises InputError for a size that is odd or beyond the grid.
    """
    grid = spectrum.shape[-2]
    if size % 2 or not 4 <= size <= grid:
        raise InputError(f"got fields of {size} points a side, wanted an even number from 4 to {grid}")
    return torch.fft.irfft2(_with_modes(spectrum, grid, size, size // 2 - 1), s=(size, size))


def vorticity_clips(
    seeds: Sequence[int], frames: int, size: int = 32, progress: Callable[[int], object] = lambda finished: None
) -> np.ndarray:
    """Flows from `seeds` after a warm-up of 8 time units, saved every 0.1. float32 [len(seeds), frames, size, size]

    `progress` is told of finished flows. Raises InputError for a size that `crop` refuses.
    """
    flow, every = Flow(), round(SAVE_EVERY / DT)
    crop(torch.zeros(1, GRID, GRID // 2 + 1, dtype=torch.complex128), size)  # refused before the work, not after
    fields = np.empty((len(seeds), frames, size, size), np.float32)
    for first in range(0, len(seeds), BATCH):
        spectrum = torch.stack([start(seed) for seed in seeds[first : first + BATCH]])
        for _ in range(round(WARM_UP / DT)):
            spectrum = flow.step(spectrum)
        for frame in range(frames):
            for _ in range(every):
                spectrum = flow.step(spectrum)
            fields[first : first + BATCH, frame] = crop(spectrum, size).numpy()
        progress(len(spectrum))
    return fields


def _with_modes(spectrum: torch.Tensor, grid: int, other: int, highest: int) -> torch.Tensor:
    """Modes up to `highest` of a spectrum of `grid` points a side, as a spectrum of `other` points a side."""
    moved = spectrum.new_zeros(*spectrum.shape[:-2], other, other // 2 + 1)
    columns = slice(0, highest + 1)
    moved[..., : highest + 1, columns] = spectrum[..., : highest + 1, columns]
    moved[..., other - highest :, columns] = spectrum[..., grid - highest :, columns]
    return moved * (other / grid) ** 2
