import numpy as np
import pytest

from ontick._torchvision import ensure_torchvision
from ontick.diffusion import schedule
from ontick.errors import InputError

ensure_torchvision()
from diffusers import DDPMScheduler  # noqa: E402

PUBLISHED = {
    0: 0.99937,
    1: 0.99825,
    2: 0.99665,
    5: 0.98897,
    10: 0.96672,
    20: 0.88910,
    50: 0.4783,
    75: 0.1335,
    90: 0.0195,
}


def test_the_cosine_schedule_is_diffusion_policys():
    alpha_bar = schedule("squaredcos_cap_v2", 100).alpha_bar
    for t, published in PUBLISHED.items():
        assert abs(alpha_bar[t] - published) < 1e-4
    assert alpha_bar[99] == pytest.approx(2.4e-7, rel=0.05)


@pytest.mark.parametrize("name", ["squaredcos_cap_v2", "linear", "scaled_linear"])
@pytest.mark.parametrize("levels", [50, 100, 1000])
def test_trained_schedules_are_those_of_diffusers(name, levels):
    theirs = DDPMScheduler(levels, beta_schedule=name).alphas_cumprod.numpy()
    np.testing.assert_allclose(schedule(name, levels).alpha_bar, theirs, rtol=3e-4, atol=2e-6)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="squaredcos_cap_v2"):
        schedule("cosin")
