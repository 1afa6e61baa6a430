"""Rendering: a picture where OpenGL starts, one clear line where it does not, and simulation in both cases."""

import os
import subprocess
import sys

import numpy as np
import pytest

from ontick.envs import find_task, rendering
from ontick.errors import InputError

AVAILABLE, REASON = rendering.render_available()
needs_renderer = pytest.mark.skipif(not AVAILABLE, reason=REASON)

# find_backend runs on a machine whose graphics libraries do not load: named so, ctypes finds nothing.
WITHOUT_OPENGL = """
from ontick.envs import rendering
rendering._load = lambda name: None
from ontick.envs import find_task
from ontick.errors import InputError
env = find_task("metaworld/reach-v3").make(render=True)
env.reset(seed=0)
env.step(env.action_space.sample())
try:
    env.render()
except InputError as error:
    print(error)
"""


@needs_renderer
def test_a_frame_shows_the_scene_and_repeats_bit_for_bit():
    env = find_task("metaworld/pick-place-v3").make(render=True, width=96, height=80)
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (80, 96, 3) and frame.dtype == np.uint8
    assert frame.std() > 20
    np.testing.assert_array_equal(frame, env.render())
    env.step(np.array([1, 1, -1, 1]))
    for _ in range(10):
        env.step(np.array([1, 1, -1, 1]))
    assert (frame != env.render()).any()
    env.close()


@needs_renderer
def test_the_default_camera_is_upright():
    """The red arm stands on the left; the floor, light and grey, is below the wall."""
    env = find_task("metaworld/pick-place-v3").make(render=True, width=96, height=96)
    env.reset(seed=0)
    frame = env.render().astype(int)
    env.close()
    rows, columns = np.nonzero((frame[..., 0] > 120) & (frame[..., 1] < 60))
    assert len(rows) > 50 and columns.mean() < 48
    assert frame[:8].mean() < frame[-30:, -10:].mean()  # the wall is darker than the floor


@needs_renderer
def test_closing_frees_the_renderer_and_a_later_frame_opens_another():
    env = find_task("metaworld/reach-v3").make(render=True, width=32, height=32)
    env.reset(seed=0)
    first = env.render()
    env.close()
    np.testing.assert_array_equal(first, env.unwrapped.render())
    env.close()


def test_an_environment_made_without_rendering_gives_no_frame():
    env = find_task("metaworld/reach-v3").make()
    env.reset(seed=0)
    assert env.render() is None
    env.close()


def test_without_opengl_the_simulation_runs_and_a_frame_names_the_packages():
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_OPENGL], capture_output=True, text=True, env=environment, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert "libegl1" in result.stdout and "libgl1-mesa-dri" in result.stdout and "libosmesa6" in result.stdout


def test_the_users_choice_is_respected(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    available, reason = rendering.render_available()
    assert not available and "libosmesa6" in reason


def test_a_users_choice_that_does_not_exist_is_refused():
    code = "from ontick.envs.rendering import import_mujoco as go; go()"
    environment = {**os.environ, "MUJOCO_GL": "teapot"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert "InputError: got MUJOCO_GL=teapot" in result.stderr


def test_osmesa_is_taken_where_egl_does_not_start(monkeypatch):
    monkeypatch.setattr(rendering, "_egl_starts", lambda: False)
    monkeypatch.setattr(rendering, "_osmesa_loads", lambda: True)
    monkeypatch.setattr(sys, "platform", "linux")
    assert rendering.find_backend() == "osmesa"


def test_a_camera_that_cannot_open_names_its_backend(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    camera = rendering.Camera(None, name="corner2", width=8, height=8)
    with pytest.raises(InputError, match="libegl1"):
        camera.frame(None)
