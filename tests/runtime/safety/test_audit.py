"""The last look at a command."""

import numpy as np
import pytest

from ontick.runtime.robots import Limits
from ontick.runtime.safety.audit import Audit

LIMITS = Limits(low=[-1, 0], high=[1, 1], speed=[1, np.inf], acceleration=[4, np.inf], jerk=[40, np.inf])
REST = np.zeros(2)


def audit(*positions, period_s=0.02):
    """An audit that has let these commands through, each at rest for long enough."""
    made = Audit(LIMITS, period_s)
    made.begin(np.array(positions[-1], float) if positions else REST)
    return made


def test_rest_is_let_through_and_so_is_a_switch():
    judge = audit()
    assert judge.refuses(REST, REST) is None
    assert judge.refuses(np.array([0.0, 1.0]), REST) is None
    assert judge.last.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(number):
    assert "finite" in (audit().refuses(np.array([number, 0.0]), REST) or "")
    assert "finite" in (audit().refuses(REST, np.array([number, 0.0])) or "")


@pytest.mark.parametrize(
    ("position", "period_s", "name"),
    [(0.03, 0.02, "speed"), (0.01, 0.02, "acceleration"), (0.001, 0.02, "jerk"), (1.1, 10.0, "position")],
)
def test_a_command_beyond_a_limit_is_refused_by_its_name_and_forgotten(position, period_s, name):
    judge = audit(period_s=period_s)
    assert name in (judge.refuses(np.array([position, 0.0]), REST) or "")
    assert judge.last.tolist() == REST.tolist()
    assert judge.refuses(REST, REST) is None


def test_a_velocity_beyond_its_limit_is_refused():
    assert "velocity" in (audit().refuses(REST, np.array([1.1, 0.0])) or "")


def test_from_outside_the_limits_the_way_in_is_free_and_the_way_out_is_not():
    assert audit([1.5, 0.0]).refuses(np.array([1.5 - 1e-5, 0.0]), REST) is None
    assert "position" in (audit([1.5, 0.0]).refuses(np.array([1.5 + 1e-5, 0.0]), REST) or "")
