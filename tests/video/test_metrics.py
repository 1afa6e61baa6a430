import numpy as np
import pytest

from ontick.errors import InputError
from ontick.video.metrics import (
    action_shuffle_ratio,
    bootstrap_interval,
    crps,
    drift,
    error_ratio_db,
    floor,
    mse_by_horizon,
    paired_difference,
    psnr_by_horizon,
    repeat_last,
    spatial_distance,
    spread_skill,
    temporal_distance,
)
from ontick.video.spectra import frechet, spatial_features, temporal_features

SIZE = 16


def moving_textures(videos: int, frames: int = 64, seed: int = 0, channels: int = 1) -> np.ndarray:
    """[N, T, H, W, C]: periodic textures with a falling spectrum whose modes turn at random steady speeds."""
    rng = np.random.default_rng(seed)
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIZE, 1 / SIZE)] * 2))[..., None]
    draws = rng.normal(size=(2, videos, 1, SIZE, SIZE, channels))
    speed = rng.normal(size=(videos, 1, SIZE, SIZE, channels))
    turn = np.exp(1j * speed * np.arange(frames)[None, :, None, None, None])
    return np.fft.ifft2((draws[0] + 1j * draws[1]) * turn / (1 + k) * SIZE, axes=(2, 3)).real


def blurred(videos: np.ndarray, cut: int) -> np.ndarray:
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIZE, 1 / SIZE)] * 2))[..., None]
    return np.fft.ifft2(np.fft.fft2(videos, axes=(2, 3)) * np.exp(-((k / cut) ** 2)), axes=(2, 3)).real


REAL = moving_textures(16)


def test_the_psnr_of_known_noise_is_its_variance_in_db():
    rng = np.random.default_rng(0)
    truth = rng.random((3, 4, 32, 32, 3))
    sigma = np.array([0.01, 0.05, 0.1, 0.5])[None, :, None, None, None]
    made = truth + sigma * rng.normal(size=truth.shape)
    assert psnr_by_horizon(truth, made) == pytest.approx(10 * np.log10(1 / sigma.ravel() ** 2), abs=0.3)
    assert mse_by_horizon(truth, made) == pytest.approx(sigma.ravel() ** 2, rel=0.07)


def test_psnr_does_not_change_when_values_and_peak_are_scaled():
    rng = np.random.default_rng(1)
    truth, made = rng.random((2, 2, 3, 8, 8, 1))
    assert psnr_by_horizon(2 * truth - 1, 2 * made - 1, peak=2) == pytest.approx(psnr_by_horizon(truth, made))


def test_psnr_is_the_mean_of_videos_in_db_and_100_for_identical_frames():
    truth = np.zeros((2, 1, 4, 4, 1))
    made = truth.copy()
    assert psnr_by_horizon(truth, made) == pytest.approx(100)
    made[1] = 0.1
    assert psnr_by_horizon(truth, made) == pytest.approx((100 + 20) / 2)


def test_single_precision_does_not_cost_the_error_its_digits():
    truth = np.zeros((1, 1, 64, 64, 3), dtype=np.float32)
    assert mse_by_horizon(truth, truth + np.float32(0.1))[0] == pytest.approx(np.float32(0.1) ** 2, rel=1e-6)


def test_the_last_frame_is_held_and_its_error_grows_with_the_horizon():
    held = repeat_last(REAL[:, 0], 4)
    assert held.shape == REAL[:, :4].shape
    assert (held == REAL[:, :1]).all()
    error = mse_by_horizon(REAL[:, :4], held)
    assert error[0] == 0 and (np.diff(error) > 0).all()


@pytest.mark.parametrize("distance", [spatial_distance, temporal_distance])
def test_equal_sets_are_at_distance_0_whatever_their_order(distance):
    assert distance(REAL, REAL[::-1]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("distance", [spatial_distance, temporal_distance])
def test_a_distance_is_symmetric(distance):
    other = blurred(REAL, 8)
    assert distance(REAL, other) == pytest.approx(distance(other, REAL), rel=1e-6)


def test_the_spatial_distance_rises_with_blur_and_noise_above_the_floor():
    rng = np.random.default_rng(2)
    made = moving_textures(16, seed=1)
    lowest = floor(spatial_distance, REAL, 0)
    blur = [spatial_distance(REAL, blurred(made, cut)) for cut in (16, 8, 4)]
    noise = [spatial_distance(REAL, made + sigma * rng.normal(size=made.shape)) for sigma in (0.3, 1.0)]
    assert spatial_distance(REAL, made) < 2 * lowest
    assert lowest < blur[0] < blur[1] < blur[2] and lowest < noise[0] < noise[1]
    assert 10 * lowest < blur[1]


def test_freezing_is_seen_in_time_and_hardly_in_space():
    frozen = repeat_last(REAL[:, 0], REAL.shape[1])
    in_space = spatial_distance(REAL, frozen)
    assert in_space < 0.1 * spatial_distance(REAL, blurred(REAL, 8))
    assert temporal_distance(REAL, frozen) > 100 * floor(temporal_distance, REAL, 0)
    assert temporal_distance(REAL, frozen) > 100 * in_space


def test_shuffled_frames_are_seen_in_time_and_not_in_space():
    shuffled = REAL[:, np.random.default_rng(3).permutation(REAL.shape[1])]
    assert spatial_distance(REAL, shuffled) == pytest.approx(0, abs=1e-6)
    smooth = np.cumsum(REAL, axis=1)
    mixed = smooth[:, np.random.default_rng(3).permutation(REAL.shape[1])]
    assert temporal_distance(smooth, mixed) > 10 * floor(temporal_distance, smooth, 0)


def test_the_floor_is_keyed_and_falls_with_more_videos():
    assert floor(spatial_distance, REAL, 5) == floor(spatial_distance, REAL, 5)
    assert floor(spatial_distance, REAL, 5) < floor(spatial_distance, REAL[:4], 5)


def test_a_plane_wave_is_in_its_own_shell_with_its_power():
    x = np.arange(SIZE) / SIZE
    wave = np.sin(2 * np.pi * 3 * x)[None, None, None, :, None] * np.ones((1, 2, SIZE, 1, 2))
    features = spatial_features(wave)
    assert features.shape == (2, 2 * (SIZE // 2))
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIZE, 1 / SIZE)] * 2))
    members = (np.rint(frequency) == 3).sum()
    power = np.exp(features[:, : SIZE // 2]) - 1e-10
    assert power[:, 2] == pytest.approx(2 * (SIZE**2 / 2) ** 2 / SIZE**2 / members)
    assert np.delete(power, 2, axis=1) == pytest.approx(0, abs=1e-9)


def test_an_oscillation_is_in_its_own_bin_and_the_last_frames_are_left_out():
    wave = np.cos(2 * np.pi * 2 * np.arange(20) / 8)[None, :, None, None, None] * np.ones((1, 1, 4, 4, 1))
    power = np.exp(temporal_features(wave, window=8)) - 1e-10
    assert power.shape == (2, 5)
    assert power[:, 2] == pytest.approx(4**2 / 8)
    assert np.delete(power, 2, axis=1) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_of_scaled_and_shifted_samples_is_known():
    samples = np.random.default_rng(4).normal(size=(500, 3))
    covariance = np.cov(samples, rowvar=False)
    wanted = 3 * 2.0**2 + np.trace(covariance) * (1.5 - 1) ** 2
    centred = samples - samples.mean(0)
    assert frechet(centred, 1.5 * centred + 2.0) == pytest.approx(wanted, rel=1e-5)


def test_too_few_samples_are_told():
    with pytest.warns(UserWarning, match="biased"):
        spatial_distance(REAL[:1, :4], REAL[1:2, :4])
    with pytest.raises(InputError, match="2 or more"):
        spatial_distance(REAL[:1, :1], REAL[1:2, :1])


def test_the_crps_of_members_equal_to_the_truth_is_0():
    truth = np.random.default_rng(5).normal(size=(2, 3, 4))
    assert crps(np.stack([truth] * 5), truth) == pytest.approx(np.zeros(3), abs=1e-15)


def test_the_crps_is_the_double_sum_it_stands_for():
    rng = np.random.default_rng(6)
    ensemble, truth = rng.normal(size=(5, 2, 3, 4)), rng.normal(size=(2, 3, 4))
    pairs = np.abs(ensemble[:, None] - ensemble[None]).sum((0, 1)) / (2 * 5 * 4)
    wanted = (np.abs(ensemble - truth).mean(0) - pairs).mean((0, 2))
    assert crps(ensemble, truth) == pytest.approx(wanted)


@pytest.mark.parametrize("members", [2, 4, 16])
def test_the_crps_of_a_gaussian_is_known_at_its_centre_and_in_the_mean_for_any_number_of_members(members):
    """CRPS(N(0, s^2), 0) = s (sqrt 2 - 1) / sqrt pi; if the truth is from the same Gaussian its mean is s / sqrt pi."""
    rng, sigma = np.random.default_rng(7), 0.7
    ensemble = sigma * rng.normal(size=(members, 20, 2, 5000))
    centre, drawn = np.zeros((20, 2, 5000)), sigma * rng.normal(size=(20, 2, 5000))
    assert crps(ensemble, centre) == pytest.approx(sigma * (np.sqrt(2) - 1) / np.sqrt(np.pi), abs=0.01)
    assert crps(ensemble, drawn) == pytest.approx(sigma / np.sqrt(np.pi), abs=0.01)


@pytest.mark.parametrize("members", [2, 8])
def test_spread_over_skill_is_1_if_the_truth_could_be_a_member_and_scales_with_the_spread(members):
    rng = np.random.default_rng(8)
    centre = rng.normal(size=(10, 3, 4000))
    truth = centre + rng.normal(size=centre.shape)
    noise = rng.normal(size=(members, *centre.shape))
    assert spread_skill(centre + noise, truth) == pytest.approx(1, abs=0.02)
    assert (spread_skill(centre + 0.5 * noise, truth) < 0.8).all()
    assert (spread_skill(centre + 2 * noise, truth) > 1.1).all()


def test_spread_over_skill_is_not_a_number_where_nothing_is_spread_or_wrong():
    truth = np.ones((2, 3, 4))
    assert np.isnan(spread_skill(np.stack([truth, truth]), truth)).all()


def test_drift_has_the_sign_of_the_trend_and_its_interval_holds_it():
    rng = np.random.default_rng(9)
    trend = np.linspace(0, 1, 101) + 0.01 * rng.normal(size=(20, 101))
    up, down = drift(trend, 11), drift(-trend, 11)
    assert up.mean == pytest.approx(0.9, abs=0.01)
    assert up.low < 0.9 < up.high and up.low > 0
    assert down.mean == pytest.approx(-up.mean) and down.high < 0


def test_shuffled_actions_cost_a_loss_that_uses_them_and_only_such_a_loss():
    actions = np.random.default_rng(10).normal(size=(6, 5, 2))
    target = actions + 0.5
    assert action_shuffle_ratio(lambda given: float(np.square(given - target).mean()), actions, 4) > 2
    assert action_shuffle_ratio(lambda given: 0.3, actions, 4) == pytest.approx(1)


def test_no_video_keeps_its_actions_and_derangements_are_keyed():
    actions = np.arange(5.0)[:, None, None] * np.ones((1, 2, 1))
    seen = {0: [], 1: []}
    for seed in (0, 0, 1):
        action_shuffle_ratio(lambda given, seed=seed: seen[seed].append(given[:, 0, 0]) or 1.0, actions, 6, seed)
    first, again = np.array(seen[0][1:7]), np.array(seen[0][8:])
    assert (first == again).all() and (first != np.array(seen[1][1:])).any()
    assert (first != np.arange(5)).all() and (np.sort(first) == np.arange(5)).all()


def test_the_bootstrap_interval_covers_the_mean_95_times_in_100():
    rng = np.random.default_rng(11)
    intervals = [bootstrap_interval(rng.normal(2.0, 1.0, 60), seed, 500) for seed in range(300)]
    assert 0.90 < np.mean([low < 2.0 < high for low, high in intervals]) < 0.98


def test_pairs_tell_a_difference_that_videos_apart_hide():
    rng = np.random.default_rng(12)
    video = 10 * rng.normal(size=30)
    found = paired_difference(video + 0.1 + 0.05 * rng.normal(size=30), video)
    assert 0 < found.low < found.mean < found.high and found.mean == pytest.approx(0.1, abs=0.05)


NAN = np.full_like(REAL, np.nan)
WRONG = {
    "another length": lambda: mse_by_horizon(REAL, REAL[:, :3]),
    "uint8": lambda: psnr_by_horizon(REAL.astype(np.uint8), REAL),
    "peak 0": lambda: psnr_by_horizon(REAL, REAL, peak=0),
    "NaN": lambda: spatial_distance(REAL, NAN),
    "other frames": lambda: spatial_distance(REAL, REAL[:, :, :8]),
    "a window too long": lambda: temporal_distance(REAL, REAL, window=65),
    "one real video": lambda: floor(spatial_distance, REAL[:1], 0),
    "videos to repeat": lambda: repeat_last(REAL, 3),
    "one member": lambda: crps(REAL[None], REAL),
    "an ensemble of others": lambda: spread_skill(REAL[None, :3], REAL),
    "ends that overlap": lambda: drift(np.zeros((3, 5)), 3),
    "one value": lambda: bootstrap_interval(np.zeros(1), 0),
    "no pairs": lambda: paired_difference(np.zeros(3), np.zeros(4)),
    "one video's actions": lambda: action_shuffle_ratio(lambda given: 1.0, np.zeros((1, 3, 2)), 4),
    "no actions": lambda: action_shuffle_ratio(lambda given: 1.0, np.zeros((3, 3, 0)), 4),
    "a loss of 0": lambda: action_shuffle_ratio(lambda given: 0.0, np.zeros((3, 3, 1)), 4),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_measured_is_refused(call):
    with pytest.raises(InputError, match="wanted"):
        call()


def test_a_ratio_of_errors_is_the_difference_of_the_psnrs_of_their_means():
    rng = np.random.default_rng(0)
    better = rng.uniform(0.01, 0.02, 40)
    estimate = error_ratio_db(2 * better, better)
    np.testing.assert_allclose(estimate, 10 * np.log10(2), atol=1e-9)
    still = np.append(better, 0.0)  # a clip in which nothing moves
    assert error_ratio_db(np.append(2 * better, 0.0), still).mean == pytest.approx(10 * np.log10(2), abs=1e-6)
    with pytest.raises(InputError):
        error_ratio_db(better, better[:-1])
