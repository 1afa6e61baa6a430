"""The entry level of warm starts: laws on denoisers whose answer is known, and a transformer's Jacobian."""

import numpy as np
import pytest
import torch

from ontick.accel.entry_level import choose, contraction, deviations, entry_level, level_sigmas, narrowing
from ontick.accel.entry_level import sampled as samples_of
from ontick.diffusion import Denoiser, Prediction, begin, build, load_plan, schedule, shifted, unroll
from ontick.errors import InputError

COSINE = schedule("squaredcos_cap_v2", 100)

# Of data N(mu, s^2), for the highest training index K, which is K + 1 calls: the share G of a guess's error that is
# kept; std / s after one call on an exact guess, after many calls fed back, and after one call on an exact guess that
# was noised to the entry level.
TABLE = [
    (0.05, 1, 0.59, 0.67, 0.40, 0.83),
    (0.05, 2, 0.43, 0.63, 0.52, 0.80),
    (0.05, 5, 0.18, 0.68, 0.67, 0.78),
    (0.05, 10, 0.07, 0.74, 0.74, 0.78),
    (0.10, 2, 0.75, 0.81, 0.47, 0.92),
    (0.10, 5, 0.47, 0.73, 0.63, 0.89),
    (0.10, 10, 0.23, 0.77, 0.75, 0.87),
    (0.10, 20, 0.08, 0.83, 0.83, 0.87),
    (0.20, 5, 0.79, 0.86, 0.58, 0.95),
    (0.20, 10, 0.55, 0.80, 0.70, 0.94),
    (0.20, 20, 0.26, 0.83, 0.81, 0.93),
]


def affine_of_gaussian(std: float, calls: int) -> tuple[float, float]:
    """Gain G and injected variance Q of `calls` DDPM steps on N(mu, std^2):
    g_k = (1 - beta_k / (ab_k s^2 + 1 - ab_k)) / sqrt(alpha_k), and the posterior variance of every step but the last.
    """
    ab = COSINE.alpha_bar
    before = np.concatenate([[1.0], ab[:-1]])
    beta = 1 - ab / before
    posterior = (1 - before) / (1 - ab) * beta
    G, Q = 1.0, 0.0
    for k in range(calls - 1, -1, -1):
        gain = (1 - beta[k] / (ab[k] * std**2 + 1 - ab[k])) / np.sqrt(1 - beta[k])
        G, Q = G * gain, gain**2 * Q + posterior[k]
    return G, Q


def built(denoiser, name: str, shape=(2,), positions: int = 8):
    return build(denoiser, load_plan(name), shape, positions)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"s={row[0]}, K={row[1]}")
def test_the_contraction_of_a_gaussian_is_the_known_gain(gaussian, keys, row):
    std, index, G, once, often, renoised = row
    program = built(gaussian(std=std), f"rti-{index + 1}")
    obs, guess = torch.zeros(2, 1, 1), torch.full((2, 8, 2), 0.4)
    gain, Q = affine_of_gaussian(std, index + 1)
    found = contraction(program, obs, guess, keys(2)[0], iterations=1)
    assert found.tolist() == pytest.approx([gain, gain], rel=1e-4) and gain == pytest.approx(G, abs=0.0061)
    noise = 1 - COSINE.alpha_bar[index]
    exact = gain**2 * std**2 + Q
    spreads = (exact, Q / (1 - gain**2), exact + gain**2 * noise * (1 - std**2))
    assert (np.sqrt(spreads) / std).tolist() == pytest.approx([once, often, renoised], abs=0.0061)


@pytest.mark.parametrize("birth", ["", "-renoise"])
def test_the_narrowing_of_a_gaussian_is_the_known_one(gaussian, birth):
    std, calls, seed = 0.1, 6, torch.arange(48)
    obs = torch.zeros(1, 1, 1)
    full, warm = built(gaussian(std=std), "ddpm-100", positions=64), built(gaussian(std=std), f"rti-6{birth}", (2,), 64)
    answers = samples_of(full, obs.expand(48, 1, 1), seed)
    G, Q = affine_of_gaussian(std, calls)
    ab = COSINE.alpha_bar[calls - 1]
    share, injected = (ab * G**2, Q + G**2 * (1 - ab)) if birth else (G**2, Q)
    wanted = np.sqrt(injected / (1 - share)) / np.sqrt(affine_of_gaussian(std, 100)[1])
    assert narrowing(answers, warm, obs, seed, ticks=12) == pytest.approx(wanted, rel=0.04)


class Linear(Denoiser):
    """x0 is a fixed matrix times the row, whatever the level: one step to clean has that matrix as its Jacobian."""

    prediction = "sample"
    levels = "position"

    def __init__(self, matrix):
        self.matrix, self.schedule, self.clip = matrix, COSINE, None

    def prepare(self, obs):
        return obs

    def predict(self, x, label, context, rows):
        return Prediction(context[:, :, :1] * (x @ self.matrix.T))


def test_power_iteration_finds_the_top_singular_value_of_every_lane(rng, keys):
    matrix = torch.from_numpy(rng.normal(size=(4, 4))).float()
    program = built(Linear(matrix), "rti-1", (4,), 3)
    obs, guess = torch.tensor([0.1, 0.5, 2.0]).reshape(3, 1, 1), torch.randn(3, 3, 4)
    found = contraction(program, obs, guess, keys(3)[0], iterations=60)
    wanted = torch.linalg.matrix_norm(matrix, 2) * obs.flatten()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize("birth", ["", "-renoise"])
@pytest.mark.slow
def test_the_factor_of_a_transformer_is_that_of_its_whole_jacobian(randomised_network, observation, keys, birth):
    network = randomised_network(n_action_steps=3)
    program = built(network, f"rti-3{birth}")
    guess = 0.3 * torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(1))
    obs, seed = observation(2), keys(2)[0]
    found = contraction(program, obs, guess, seed, iterations=150)
    for lane in range(2):
        one = slice(lane, lane + 1)
        start = begin(program, program.prepare(obs[one]), seed[one], torch.ones(1, dtype=torch.int64), guess[one])
        jacobian = torch.func.jacrev(lambda x, s=start: unroll(program, s._replace(x=x)).x.flatten())(start.x)
        wanted = torch.linalg.matrix_norm(jacobian.reshape(16, 16), 2)
        assert float(found[lane]) == pytest.approx(float(wanted), rel=1e-3)


def test_a_lane_does_not_depend_on_its_neighbours(randomised_network, observation, keys):
    program = built(randomised_network(), "rti-2")
    obs, guess, seed = observation(19), torch.randn(19, 8, 2), keys(19)[0]
    all_lanes = contraction(program, obs, guess, seed, iterations=3)
    assert len(all_lanes) == 19
    alone = contraction(program, obs[17:18], guess[17:18], seed[17:18], iterations=3)
    torch.testing.assert_close(alone, all_lanes[17:18], rtol=1e-4, atol=1e-5)


def test_the_entry_level_is_the_first_whose_noise_covers_the_deviation():
    sigma = level_sigmas(COSINE)
    assert sigma[[0, 2, 5]].tolist() == pytest.approx([0.0251, 0.0579, 0.1050], abs=1e-4)
    assert entry_level(sigma, 0.0) == 1
    assert entry_level(sigma, 0.0579) == 4  # the third level's is 0.0579 rounded up
    assert entry_level(sigma, 0.0578) == 3
    assert entry_level(sigma, 0.0578, c=2.0) == 7
    assert entry_level(sigma, 1.1) is None
    for K in (1, 2, 10, 99):
        assert entry_level(sigma, float(sigma[K - 1])) == K


def test_the_rule_goes_by_all_pairs_and_the_median_by_the_typical_one():
    chosen = choose(level_sigmas(COSINE), torch.tensor([0.03, 0.03, 0.03, 0.9]))
    assert chosen.median == pytest.approx(0.03) and chosen.by_median == 2
    assert chosen.rms == pytest.approx(np.sqrt((3 * 0.03**2 + 0.81) / 4)) and chosen.by_rms == 30
    with pytest.raises(InputError, match="at least one pair"):
        choose(level_sigmas(COSINE), torch.tensor([]))


def test_windows_that_agree_deviate_by_the_shift_alone(randomised_network, observation, keys):
    program = built(randomised_network(), "ddim-5")
    obs, seed = observation(3), keys(3)[0]
    found = deviations(program, obs, obs, seed)
    assert torch.equal(found.guess[:, :-1], found.fresh[:, 1:]) and torch.equal(found.guess[:, -1], found.fresh[:, -1])
    assert torch.allclose(found.rms, (found.guess - found.fresh).square().mean((1, 2)).sqrt())
    assert deviations(program, obs, obs, seed, rows=0).rms.tolist() == [0.0, 0.0, 0.0]


def test_shifting_repeats_the_last_row():
    rows = torch.arange(4.0).reshape(1, 4, 1)
    assert shifted(rows, 3).flatten().tolist() == [3, 3, 3, 3] and shifted(rows, 1).flatten().tolist() == [1, 2, 3, 3]


def test_what_cannot_be_measured_is_refused(gaussian, mixer, keys):
    obs, guess, seed = torch.zeros(2, 1, 1), torch.zeros(2, 8, 2), keys(2)[0]
    warm, full = built(gaussian(), "rti-2"), built(gaussian(), "ddim-5")
    with pytest.raises(InputError, match="birth noise, wanted guess or noised"):
        contraction(full, obs, guess, seed)
    with pytest.raises(InputError, match="birth guess, wanted noise"):
        deviations(warm, obs, obs, seed)
    with pytest.raises(InputError, match="a seed for every pair"):
        deviations(full, obs, obs, seed[:1])
    with pytest.raises(InputError, match="at least 2 answers"):
        narrowing(guess[:1], warm, obs[:1], seed[:1], 3)
    with pytest.raises(InputError, match="0 power iterations"):
        contraction(warm, obs, guess, seed, 0)
    with pytest.raises(InputError, match="move together"):
        deviations(built(mixer(), "diagonal-8", (2,), 16), obs, obs, seed)
    with pytest.raises(InputError, match="no trained levels"):
        level_sigmas(schedule("flow"))
