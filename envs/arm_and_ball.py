"""Arm and ball: a two-link arm sweeps a round table and knocks a ball about, seen from above.

Made for video that answers to actions. The two joints are driven by velocity, so that a keyboard can steer them; the
arm turns about its base in the middle of the table and reaches the ball wherever it comes to rest. A round wall
bounces the ball back softly. The tiles outside the wall never move.

Lengths are in units of the table's radius, x to the right and y up in the image.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .rendering import Camera, import_mujoco

mujoco: Any = import_mujoco()

FPS, SUBSTEPS = 10, 20
FULL_SPEED_RAD_S = (2.2, 2.4)  # shoulder, elbow, at an action of 1
UPPER, FOREARM = 0.46, 0.40  # lengths of the links
ARM_RADIUS, BALL_RADIUS = 0.12, 0.22
ELBOW_LIMIT_RAD = 2.3
WALL_SIDES, WALL_HALF_THICKNESS = 24, 0.04
BALL_SPEED = 1.0  # at most, at the start of an episode [1/s]
CAMERA_HEIGHT, SEEN = 6.0, 1.12  # half the side of the square that the camera sees
TILES = ("0.36 0.52 0.70", "0.62 0.50 0.66", "0.42 0.62 0.52", "0.70 0.62 0.44")
KEYS_SHARE, REST_SHARE = 0.7, 0.15  # of the stretches steered by keys; of the keys that are up
HOLD_FRAMES = (3, 12)
FOLLOW = 0.4  # how far a smooth stretch goes towards its target in a frame


class ArmAndBall:
    """The scene at 10 frames a second. Frames are uint8 [size, size, 3], actions float32 [2] in [-1, 1].

    Action: velocity of shoulder and elbow; 1 turns the joint counter-clockwise by 0.22 and 0.24 rad a frame. The
    frame that `step` returns is the one after the action. Raises InputError for a size below 8.
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
            shoulder, elbow = rng.uniform(-np.pi, np.pi), rng.uniform(-2.0, 2.0)
            radius, angle = np.sqrt(rng.uniform(0.05, 0.6)), rng.uniform(-np.pi, np.pi)
            self._data.qpos[:] = shoulder, elbow, radius * np.cos(angle), radius * np.sin(angle)
            self._data.qvel[2:] = rng.uniform(-BALL_SPEED, BALL_SPEED, 2)
            mujoco.mj_forward(self._model, self._data)
            if self._data.ncon == 0:
                return self._frame()

    def step(self, action: NDArray[Any]) -> NDArray[np.uint8]:
        """The frame after 0.1 s of `action`. Raises InputError for an action misshapen or with a NaN."""
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise InputError(f"got action {action.tolist()}, wanted 2 finite numbers from -1 to 1")
        self._data.ctrl[:] = np.clip(action, -1.0, 1.0) * FULL_SPEED_RAD_S
        mujoco.mj_step(self._model, self._data, SUBSTEPS)
        mujoco.mj_forward(self._model, self._data)  # places of the bodies are those of a substep ago
        return self._frame()

    @property
    def joints_rad(self) -> NDArray[np.float64]:
        """Angles of shoulder and elbow. [2] rad"""
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
    link = f'type="capsule" size="{ARM_RADIUS}" density="20"'
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
        <geom class="drawn" type="cylinder" size="1 0.01" pos="0 0 -0.17" rgba="0.09 0.10 0.13 1"/>
        {_tiles()}
        {_wall()}
        <geom class="drawn" type="cylinder" size="{ARM_RADIUS * 1.2} 0.02" pos="0 0 -0.14" rgba="0.55 0.56 0.6 1"/>
        <body name="upper">
          <joint name="shoulder" type="hinge" axis="0 0 1"/>
          <geom {link} fromto="0 0 0 {UPPER} 0 0" rgba="1.00 0.86 0.20 1"/>
          <body name="forearm" pos="{UPPER} 0 0">
            <joint name="elbow" type="hinge" axis="0 0 1" limited="true"
              range="{np.degrees(-ELBOW_LIMIT_RAD)} {np.degrees(ELBOW_LIMIT_RAD)}"/>
            <geom {link} fromto="0 0 0 {FOREARM} 0 0" rgba="0.25 0.90 1.00 1"/>
          </body>
        </body>
        <body name="ball">
          <joint name="x" type="slide" axis="1 0 0" damping="0.01"/>
          <joint name="y" type="slide" axis="0 1 0" damping="0.01"/>
          <geom type="sphere" size="{BALL_RADIUS}" mass="0.05" rgba="1.00 0.25 0.28 1"/>
        </body>
      </worldbody>
      <actuator>
        <velocity joint="shoulder" kv="4" forcerange="-12 12"/>
        <velocity joint="elbow" kv="2" forcerange="-6 6"/>
      </actuator>
    </mujoco>"""


def _tiles() -> str:
    """Coloured tiles along the border of the image, outside the wall."""
    places = [(x, y) for x in (-0.95, 0.95) for y in (-0.95, 0.95)]
    return "".join(
        f'<geom class="drawn" type="box" size="0.14 0.14 0.01" pos="{x} {y} -0.15" rgba="{TILES[i]} 1"/>'
        for i, (x, y) in enumerate(places)
    )


def _wall() -> str:
    """A ring of boxes whose inner faces touch the unit circle. Contacts with it spring back: a stiffness, a damping."""
    length = np.tan(np.pi / WALL_SIDES) * (1 + 2 * WALL_HALF_THICKNESS)
    out = 1 + WALL_HALF_THICKNESS
    return "".join(
        f'<geom type="box" size="{WALL_HALF_THICKNESS} {length} 0.1" priority="1" solref="-900 -4" friction="0.1"'
        f' pos="{out * np.cos(angle)} {out * np.sin(angle)} 0" euler="0 0 {np.degrees(angle)}"'
        f' rgba="0.60 0.62 0.66 1"/>'
        for angle in 2 * np.pi * np.arange(WALL_SIDES) / WALL_SIDES
    )
