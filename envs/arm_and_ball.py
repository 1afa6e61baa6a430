"""Arm and ball: a Cartesian arm slides over a table and knocks a ball about, seen from above.

Made for video that answers to actions. The arm slides along its rail at the lower border and reaches over the table by
its second joint; both are driven by velocity, so that a keyboard can steer them. It cannot reach so far that the ball
has no room left beside it. Walls bounce the ball back softly. The tiles outside the walls never move.

Lengths are in units of half the table's side, x to the right and y up in the image.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .rendering import Camera, import_mujoco

mujoco: Any = import_mujoco()

FPS, SUBSTEPS = 10, 20
FULL_SPEED = 1.0  # of either joint, at an action of 1 [1/s]
RANGE = ((-0.6, 0.6), (-0.75, 0.5))  # of the slide along the rail and of the reach
BAR_RADIUS, HAND_RADIUS, BALL_RADIUS = 0.10, 0.16, 0.15
WALL_HALF_THICKNESS = 0.04
BALL_SPEED = 1.0  # at most, at the start of an episode [1/s]
CAMERA_HEIGHT, SEEN = 6.0, 1.12  # half the side of the square that the camera sees
TILES = ("0.36 0.52 0.70", "0.62 0.50 0.66", "0.42 0.62 0.52", "0.70 0.62 0.44")
KEYS_SHARE, REST_SHARE = 0.7, 0.15  # of the stretches steered by keys; of the keys that are up
HOLD_FRAMES = (3, 12)
FOLLOW = 0.4  # how far a smooth stretch goes towards its target in a frame


class ArmAndBall:
    """The scene at 10 frames a second. Frames are uint8 [size, size, 3], actions float32 [2] in [-1, 1].

    Action: velocity of the slide (1: to the right) and of the reach (1: up), 0.1 a frame at 1. The frame that `step`
    returns is the one after the action. Raises InputError for a size below 8.
    """

    def __init__(self, size: int = 64):
        if size < 8:
            raise InputError(f"got frames of {size} pixels, wanted at least 8")
        self.size = size
        self._model = mujoco.MjModel.from_xml_string(_scene())
        self._data = mujoco.MjData(self._model)
        self._camera = Camera(self._model, name="above", width=size, height=size)

    def reset(self, seed: int) -> NDArray[np.uint8]:
        """Start an episode; the first frame. Arm, ball and the ball's velocity are a function of `seed` alone."""
        rng = np.random.default_rng(seed)
        while True:
            mujoco.mj_resetData(self._model, self._data)
            joints = [rng.uniform(*limits) for limits in RANGE]
            self._data.qpos[:] = *joints, *rng.uniform(-0.8, 0.8, 2)
            self._data.qvel[2:] = rng.uniform(-BALL_SPEED, BALL_SPEED, 2)
            mujoco.mj_forward(self._model, self._data)
            if self._data.ncon == 0:
                return self._frame()

    def step(self, action: NDArray[Any]) -> NDArray[np.uint8]:
        """The frame after 0.1 s of `action`. Raises InputError for an action misshapen or with a NaN."""
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise InputError(f"got action {action.tolist()}, wanted 2 finite numbers from -1 to 1")
        self._data.ctrl[:] = np.clip(action, -1.0, 1.0) * FULL_SPEED
        mujoco.mj_step(self._model, self._data, SUBSTEPS)
        mujoco.mj_forward(self._model, self._data)  # places of the bodies are those of a substep ago
        return self._frame()

    @property
    def joints(self) -> NDArray[np.float64]:
        """Where the slide and the reach are. [2]"""
        return self._data.qpos[:2].copy()

    @property
    def ball(self) -> NDArray[np.float64]:
        """Where the ball's centre is, (x, y). [2]"""
        return self._data.qpos[2:].copy()

    def close(self) -> None:
        """Free the renderer."""
        self._camera.close()

    def _frame(self) -> NDArray[np.uint8]:
        return self._camera.frame(self._data)


def random_actions(seed: int, frames: int) -> NDArray[np.float32]:
    """Persistent steering for `frames` frames, a function of `seed`. float32 [frames, 2]

    Stretches of 3 to 12 frames. In most of them a keyboard steers: each joint is at -1, 0 or 1. In the others the
    joints glide towards a target drawn from [-1, 1]. Raises InputError for fewer than 1 frame.
    """
    if frames < 1:
        raise InputError(f"got {frames} frames of actions, wanted at least 1")
    rng = np.random.default_rng([seed, 1])  # a stream apart from the one that draws the initial state
    actions, last = np.zeros((frames, 2), np.float32), np.zeros(2)
    start = 0
    while start < frames:
        stop = min(frames, start + int(rng.integers(HOLD_FRAMES[0], HOLD_FRAMES[1] + 1)))
        keys = rng.random() < KEYS_SHARE
        signs = rng.choice([-1.0, 1.0], 2) * (rng.random(2) > REST_SHARE)
        target = signs if keys else rng.uniform(-1.0, 1.0, 2)
        for frame in range(start, stop):
            last = target if keys else last + FOLLOW * (target - last)
            actions[frame] = last
        start = stop
    return actions


def model_digest() -> str:
    """Names the scene's physics and looks: clips with another digest were made of another scene. 12 hex digits"""
    return hashlib.sha256(_scene().encode()).hexdigest()[:12]


def _scene() -> str:
    """The MuJoCo model. Arm, ball and wall are at one height, so that all contacts lie in the plane."""
    fovy_deg = 2 * np.degrees(np.arctan2(SEEN, CAMERA_HEIGHT))
    arm = 'density="20" contype="1" conaffinity="2"'
    return f"""
    <mujoco model="arm_and_ball">
      <option timestep="{1 / FPS / SUBSTEPS}" gravity="0 0 0" integrator="implicitfast"/>
      <visual>
        <headlight ambient="0.7 0.7 0.7" diffuse="0.3 0.3 0.3" specular="0.1 0.1 0.1"/>
      </visual>
      <default><default class="drawn"><geom contype="0" conaffinity="0"/></default></default>
      <worldbody>
        <camera name="above" pos="0 0 {CAMERA_HEIGHT}" xyaxes="1 0 0 0 1 0" fovy="{fovy_deg}"/>
        <geom class="drawn" type="box" size="2 2 0.01" pos="0 0 -0.2" rgba="0.30 0.31 0.35 1"/>
        <geom class="drawn" type="box" size="1 1 0.01" pos="0 0 -0.17" rgba="0.09 0.10 0.13 1"/>
        {_tiles()}
        {_wall()}
        <body name="arm">
          <joint name="slide" type="slide" axis="1 0 0" limited="true" range="{_span(0)}"/>
          <joint name="reach" type="slide" axis="0 1 0" limited="true" range="{_span(1)}"/>
          <geom {arm} type="capsule" size="{BAR_RADIUS}" fromto="0 0 0 0 -2 0" rgba="1.00 0.86 0.20 1"/>
          <geom {arm} type="sphere" size="{HAND_RADIUS}" rgba="0.25 0.90 1.00 1"/>
        </body>
        <body name="ball">
          <joint name="x" type="slide" axis="1 0 0" damping="0.01"/>
          <joint name="y" type="slide" axis="0 1 0" damping="0.01"/>
          <geom type="sphere" size="{BALL_RADIUS}" mass="0.05" contype="2" conaffinity="5" rgba="1.00 0.25 0.28 1"/>
        </body>
      </worldbody>
      <actuator>
        <velocity joint="slide" kv="40" forcerange="-80 80"/>
        <velocity joint="reach" kv="40" forcerange="-80 80"/>
      </actuator>
    </mujoco>"""


def _span(joint: int) -> str:
    return f"{RANGE[joint][0]} {RANGE[joint][1]}"


def _tiles() -> str:
    """Coloured tiles along the border of the image, outside the wall."""
    places = [(x, y) for x in (-1.06, 1.06) for y in (-1.06, 1.06)]
    return "".join(
        f'<geom class="drawn" type="box" size="0.14 0.14 0.01" pos="{x} {y} -0.15" rgba="{TILES[i]} 1"/>'
        for i, (x, y) in enumerate(places)
    )


def _wall() -> str:
    """Four boxes, the lower one below the arm. Contacts with them spring back: a stiffness, a damping."""
    out, half = 1 + WALL_HALF_THICKNESS, 1 + 2 * WALL_HALF_THICKNESS
    places = ((out, 0.0, 0), (0.0, out, 1), (-out, 0.0, 0), (0.0, -out, 1))
    sizes = (f"{WALL_HALF_THICKNESS} {half} 0.1", f"{half} {WALL_HALF_THICKNESS} 0.1")
    return "".join(
        f'<geom type="box" size="{sizes[lies]}" pos="{x} {y} 0" contype="4" conaffinity="2" priority="1"'
        f' solref="-900 -4" friction="0.1" rgba="0.60 0.62 0.66 1"/>'
        for x, y, lies in places
    )
