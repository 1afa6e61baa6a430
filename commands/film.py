"""One episode as a short video for the report."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..envs import find_task
from ..envs.disturbances import make_disturbed
from ..envs.episodes import play
from ..envs.evaluation import Job
from ..envs.rendering import render_available
from ..errors import InputError
from ..runtime import Ledger

FPS, SIZE = 30, 384
MOST_FRAMES = 300


def film_episode(job: Job, plan: str, width: int) -> tuple[bytes | None, str]:
    """(an mp4 of the job's first episode or None, a line that says what it shows or why there is none).

    With the width and the job of an evaluated row, the episode is the row's own.
    """
    available, reason = render_available()
    if not available:
        return None, f"No video: {reason}."
    task, seed = find_task(job.task), job.seeds[0]
    env, frames = make_disturbed(task, job.disturbance, render=True, width=SIZE, height=SIZE), []

    def shoot(env: Any) -> None:
        if len(frames) < MOST_FRAMES:
            frames.append(env.render())

    try:
        policy, episodes = job.make_policy(width), iter([(0, seed)])
        episode = next(play(task, policy, [env], episodes, job.budget, job.charges, Ledger(), job.overlap, shoot))
    except InputError as error:
        return None, f"No video: {error}."
    finally:
        env.close()
    outcome = "succeeds" if episode.success else "fails"
    speed = FPS / env.metadata.get("render_fps", FPS)
    try:
        video = encode_mp4(frames)
    except (OSError, RuntimeError) as error:
        return None, f"No video: ffmpeg failed ({' '.join(str(error).split())})."
    return video, f"The video shows {plan} on {job.task}, seed {seed}: it {outcome}. Speed {speed:.2g}x."


def encode_mp4(frames: list[np.ndarray]) -> bytes:
    """uint8 [height, width, 3] frames -> an H.264 mp4 at FPS that browsers play."""
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(path),
            (width, height),
            fps=FPS,
            codec="libx264",
            quality=6,
            macro_block_size=2,
            ffmpeg_log_level="error",
        )
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        return path.read_bytes()
