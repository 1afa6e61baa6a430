"""Motion within limits. Every law is judged on the commanded positions alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontick.errors import InputError
from ontick.runtime.robots import Limits
from ontick.runtime.safety import Motion
from ontick.runtime.safety.axis import Axis

PERIOD_S = 0.02


def limits(dims=1, low=-1.0, high=1.0, speed=1.0, acceleration=4.0, jerk=40.0):
    return Limits(
        **{
            name: np.full(dims, value)
            for name, value in (
                ("low", low),
                ("high", high),
                ("speed", speed),
                ("acceleration", acceleration),
                ("jerk", jerk),
            )
        }
    )


def gripping():
    """One dimension that moves, and a gripper."""
    return Limits(low=[-1, 0], high=[1, 1], speed=[1, np.inf], acceleration=[4, np.inf], jerk=[40, np.inf])


def keeps(positions, bounds, period_s=PERIOD_S, began=None):
    """Assert that commands which follow rest at `began` are finite and keep the limits."""
    positions = np.asarray(positions)
    assert np.isfinite(positions).all()
    assert (positions >= bounds.low).all() and (positions <= bounds.high).all()
    began = positions[0] if began is None else np.asarray(began, float)
    path = np.vstack([began, began, began, positions])
    for order, most in enumerate((bounds.speed, bounds.acceleration, bounds.jerk), start=1):
        differences = np.abs(np.diff(path, order, axis=0)) / period_s**order
        coarse = 2**order * 4 * np.finfo(float).eps * np.abs(path).max() / period_s**order
        assert (differences <= most * (1 + 1e-9) + coarse).all(), f"difference {order}"


def moved(bounds, asked, period_s=PERIOD_S, began=None, **more):
    """The commands that answer `asked`, a target or (target, velocity) a period."""
    motion = Motion(bounds, period_s, **more)
    motion.begin(np.zeros(len(bounds.low)) if began is None else began)
    return np.array([motion.step(*(ask if isinstance(ask, tuple) else (ask,)))[0] for ask in asked])


@st.composite
def some_limits(draw):
    dims = draw(st.integers(1, 2))

    def numbers(low, high):
        return 10.0 ** np.array(draw(st.lists(st.floats(low, high), min_size=dims, max_size=dims)))

    width = numbers(-2, 2)
    low = width * draw(st.floats(-5, 5))
    speed = width * numbers(-1, 1)
    acceleration = speed * numbers(-0.5, 1.5)
    return Limits(low=low, high=low + width, speed=speed, acceleration=acceleration, jerk=acceleration * numbers(0, 2))


@settings(max_examples=60, deadline=None)
@given(some_limits(), st.sampled_from([0.005, 0.02, 0.1]), st.integers(0, 2**32 - 1), st.floats(0.1, 20))
def test_every_command_keeps_every_limit_whatever_is_asked(bounds, period_s, seed, wild):
    rng = np.random.default_rng(seed)
    middle, width = (bounds.low + bounds.high) / 2, bounds.high - bounds.low
    began = middle + width * rng.uniform(-0.5, 0.5, len(width))
    asked = []
    while len(asked) < 60:
        target, velocity = (
            middle + wild * width * rng.normal(size=len(width)),
            bounds.speed * rng.normal(size=len(width)),
        )
        kind = rng.integers(7)
        spoilt = np.where(rng.random(len(width)) < 0.5, rng.choice([np.nan, np.inf, -np.inf, 1e308, 5e-324]), target)
        ask = [(target, None), (target, velocity), None, (spoilt, velocity), (target, spoilt), (bounds.high, velocity)]
        asked += [ask[kind] if kind < 6 else (rng.choice([bounds.low, bounds.high]), None)] * rng.integers(1, 15)
    keeps(moved(bounds, asked, period_s, began), bounds, period_s, began)


@pytest.mark.parametrize("every", [1, 2, 3, 5, 8, 13, 21, 40])
def test_alternation_between_the_limits_keeps_every_limit(every):
    bounds = limits(2, jerk=15.0)
    asked = [(bounds.high if step // every % 2 else bounds.low, 0.9 * bounds.speed) for step in range(400)]
    keeps(moved(bounds, asked), bounds, began=np.zeros(2))


@pytest.mark.parametrize(
    "none",
    [
        None, np.nan, "far", [np.nan], [np.inf], [1.0, 2.0], [[1.0]], [], ["1.0"], [None], [1j], [True], {}, object(),
        np.array([1.0], object), np.float64(1), [10**400], [[1.0], [1.0, 2.0]],
    ],
)  # fmt: skip
def test_what_is_no_target_is_a_hold(none):
    bounds = limits()
    motion = Motion(bounds, PERIOD_S)
    motion.begin([0.0])
    path = [motion.step([1.0])[0] for _ in range(30)]
    path += [motion.step(none)[0] for _ in range(60)]
    assert motion.at_rest and path[-1] == path[-2]
    assert motion.counts["motion_held"] == (0 if none is None else 60)
    keeps(path, bounds, began=[0.0])


def test_it_comes_to_rest_on_the_target_and_stays_there_bit_for_bit():
    path = moved(limits(), [[0.7]] * 150)
    assert path[-1] == pytest.approx(0.7, abs=1e-6)
    assert (path[-50:] == path[-1]).all()


def test_the_way_to_a_target_takes_as_long_as_the_limits_allow():
    # Seven pieces of full jerk, acceleration and speed: 1 / 1 + 1 / 4 + 4 / 40 seconds for a way of 1.
    path = moved(limits(), [[1.0]] * 100)
    arrives = int(np.argmax(path[:, 0] > 1 - 1e-6)) + 1
    assert arrives * PERIOD_S == pytest.approx(1 + 1 / 4 + 4 / 40, abs=2 * PERIOD_S)


def test_a_smooth_line_is_kept_to():
    times_s = PERIOD_S * np.arange(1, 400)
    line, speeds = 0.3 * np.sin(2 * times_s), 0.6 * np.cos(2 * times_s)
    path = moved(limits(), [([at], [speed]) for at, speed in zip(line, speeds, strict=True)])
    assert np.abs(path[100:, 0] - line[100:]).max() < 1e-9


def test_a_line_is_caught_up_with_and_not_overtaken():
    line = 0.1 + 0.3 * PERIOD_S * np.arange(1, 120)
    path = moved(limits(), [([at], [0.3]) for at in line])
    assert (path[:, 0] <= line + 1e-9).all()
    assert np.abs(path[40:, 0] - line[40:]).max() < 1e-9


def test_velocity_is_that_of_the_commands():
    motion = Motion(limits(), PERIOD_S)
    motion.begin([0.0])
    steps = [motion.step([0.8]) for _ in range(50)]
    positions, velocities = (np.array(part)[:, 0] for part in zip(*steps, strict=True))
    assert np.diff(positions) / PERIOD_S == pytest.approx((velocities[1:] + velocities[:-1]) / 2, abs=2e-3)


@pytest.mark.parametrize("asked", [None, [np.nan], [-9.0], [0.5], [9.0]])
@pytest.mark.parametrize("began", [-1.5, -1.0 - 1e-12, 1.0 + 1e-9, 1.2, 4.0])
def test_whoever_begins_outside_is_led_in_by_every_command(began, asked):
    bounds = limits()
    path = np.array([[began], *moved(bounds, [asked] * 300, began=[began])])
    beyond = np.maximum(path - bounds.high, bounds.low - path).max(1)
    assert (np.diff(beyond)[beyond[:-1] > 0] <= 0).all()
    assert (beyond[-100:] <= 0).all()
    wide = limits(low=min(-1.0, began), high=max(1.0, began))
    keeps(path, wide)


def test_a_switch_is_clipped_and_obeyed_at_once_and_held_when_nothing_is_asked():
    asked = [[0.0, 1.0], [0.0, 7.0], [0.0, -3.0], [0.0, 0.25], None, [np.nan, 1.0], [0.0, np.nan]]
    path = moved(gripping(), asked)
    assert path[:, 1].tolist() == [1.0, 1.0, 0.0, 0.25, 0.25, 0.25, 0.25]
    assert (path[:, 0] == 0).all()


def test_a_switch_that_begins_outside_its_limits_is_put_inside_even_by_a_hold():
    assert moved(gripping(), [None], began=[0.0, 1.5])[:, 1].tolist() == [1.0]


def test_a_workspace_holds_for_every_command():
    bounds = limits(2)

    def inside(position):
        return np.hypot(*position) < 0.8

    rng = np.random.default_rng(0)
    asked = [target for target in rng.uniform(-1, 1, (60, 2)) for _ in range(20)]
    path = moved(bounds, asked, inside=inside)
    keeps(path, bounds, began=np.zeros(2))
    assert np.hypot(*path.T).max() < 0.8
    assert np.hypot(*path.T).max() > 0.7


def test_a_workspace_that_raises_is_a_way_out_of_it():
    calls = []

    def inside(position):
        calls.append(position)
        if len(calls) > 200:
            raise ZeroDivisionError
        return True

    bounds = limits()
    motion = Motion(bounds, PERIOD_S, inside)
    motion.begin([0.0])
    path = [motion.step([1.0])[0] for _ in range(100)]
    assert motion.at_rest and motion.counts["workspace_raised"] and motion.counts["motion_workspace"]
    keeps(path, bounds, began=[0.0])


@pytest.mark.parametrize("kind", ["random", "wild", "none", "nan", "backwards"])
def test_the_limits_do_not_depend_on_ruckig(kind, monkeypatch):
    rng = np.random.default_rng(0)

    def jerks(axis, target, velocity):
        if kind == "none":
            return []
        if kind == "nan":
            return [(0.01, np.nan), (0.01, 0.0)]
        if kind == "backwards":
            return [(-1.0, 10.0), (0.01, 0.0)]
        most = 40 if kind == "random" else 4000
        return [(float(rng.uniform(0, 0.02)), float(rng.uniform(-most, most))) for _ in range(4)]

    monkeypatch.setattr(Axis, "_jerks", jerks)
    bounds = limits()
    keeps(moved(bounds, [[1.0]] * 500), bounds, began=[0.0])


def test_ruckig_raising_is_a_hold_that_is_counted():
    class Raising:
        def calculate(self, asked, planned):
            raise RuntimeError

    bounds = limits()
    motion = Motion(bounds, PERIOD_S)
    motion.begin([0.0])
    path = [motion.step([1.0])[0] for _ in range(20)]
    for axis in motion._axes:
        axis._ruckig = Raising()
    path += [motion.step([1.0])[0] for _ in range(50)]
    assert motion.at_rest and motion.counts["motion_unsolved"] > 0
    keeps(path, bounds, began=[0.0])


@pytest.mark.parametrize("began", [1e300, -1.7e308, 5e-324, 1e9])
def test_the_wildest_beginning_is_survived(began):
    path = moved(limits(), [[0.5]] * 20 + [None] * 20, began=[began])
    assert np.isfinite(path).all() and (np.abs(path) <= max(abs(began), 1)).all()


@pytest.mark.parametrize("wrong", [[np.nan], [0.0, 0.0], [np.inf], None, ["a"]])
def test_it_begins_at_finite_numbers_alone(wrong):
    with pytest.raises(InputError, match="wanted 1 finite"):
        Motion(limits(), PERIOD_S).begin(wrong)


def test_it_begins_inside_its_workspace_and_steps_after_it_began():
    with pytest.raises(InputError, match="outside its workspace"):
        Motion(limits(), PERIOD_S, lambda position: False).begin([0.0])
    with pytest.raises(InputError, match="before begin"):
        Motion(limits(), PERIOD_S).step([0.0])


@pytest.mark.parametrize("period_s", [0.0, -1.0, np.nan, np.inf])
def test_a_period_is_above_0(period_s):
    with pytest.raises(InputError, match="period"):
        Motion(limits(), period_s)


def test_limits_finer_than_float64_are_refused():
    with pytest.raises(InputError, match="coarser"):
        Motion(limits(low=1e6, high=1e6 + 1, jerk=1e-3), 0.001)
