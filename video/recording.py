"""A stream as an MP4 file, encoded beside the loop: constant memory, and a whole file even when it is interrupted."""

from __future__ import annotations

import importlib
import math
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import InputError, RunFailed
from ..files import check_place, whole

SMALLEST = (256, 2)  # height and width in pixels of a picture that people can look at
WAITING = 8  # frames that may wait for the encoder
# Without frames that wait for later ones the first is shown at 0, which a file in fragments cannot mend afterwards.
QUALITY = {"preset": "veryfast", "crf": "18", "bf": "0"}
# A fragment is written at each keyframe, so that neither the encoder nor the file's index grows with the stream.
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}


class Recording:
    """A file that frames are written to: `with Recording("out.mp4", fps=10) as film: film.write(frame)`.

    H.264 (yuv420p) in a fragmented MP4. Every frame is enlarged by the least whole factor, pixel by pixel, that reaches
    `size`, (height, width) in pixels (256 high unless told), and a last odd row or column is doubled. The file takes
    its name when the block ends, by an exception too if at least one frame came; without a frame there is no file.
    Encoding runs in a thread of its own; `write` waits only while 8 frames are ahead of it. Raises InputError for a
    place that cannot be written, a rate that is no number from 0.01 to 1000 Hz, a bad size, or without the package av.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int] | None = None):
        self.path, self.rate, self.size = check_place(path), _rate(fps), _size(size)
        if self.path.is_dir():
            raise InputError(f"got {self.path}, which is a folder, wanted the name of a file: add a name such as a.mp4")
        self.frames = 0
        self._av = _av()
        self._shape: tuple[int, ...] | None = None
        self._whole: AbstractContextManager[Path] | None = None
        self._encoder: _Encoder | None = None

    def __enter__(self) -> Recording:
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add one frame, uint8 [H, W, 3] in RGB; it is copied. Raises InputError for a frame of another kind or shape
        than the first, RunFailed when the file cannot be written any more."""
        check_frame(frame, self._shape)
        if self._encoder is None:
            self._encoder = self._open(frame)
        self._encoder.put(enlarged(frame, self.size))
        self.frames += 1

    def _open(self, frame: np.ndarray) -> _Encoder:
        height, width = enlarged(frame, self.size).shape[:2]
        place = whole(self.path)
        try:
            encoder = _Encoder(self._av, place.__enter__(), self.rate, height, width)
        except BaseException as failed:
            place.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._shape, self._whole = frame.shape, place
        return encoder

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._whole is None or self._encoder is None:
            return
        try:
            self._encoder.close()
        except BaseException as failed:
            # `whole` raises again what it is told, after it has removed the temporary file.
            self._whole.__exit__(type(failed), failed, failed.__traceback__)
            raise
        else:
            # An exception of the block goes on its way, but what was recorded until then is kept.
            self._whole.__exit__(None, None, None)
        finally:
            self._whole = self._encoder = None


class _Encoder:
    """The file and the thread that encodes into it. An interrupt of the main thread cannot fall between two packets."""

    def __init__(self, av: Any, path: Path, rate: Fraction, height: int, width: int):
        self._av, self._path = av, path
        self._frames: Queue[np.ndarray | None] = Queue(WAITING)
        self._failed: Exception | None = None
        try:
            self._file = av.open(str(path), "w", format="mp4", options=FRAGMENTS)
            self._stream = self._file.add_stream("libx264", rate=rate, options=QUALITY)
        except (OSError, ValueError, av.FFmpegError) as error:
            raise RunFailed(f"the recording cannot be written: {_said(error)}") from error
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = 1 / rate
        self._stream.gop_size = max(1, round(rate))  # a fragment a second
        self._thread = Thread(target=self._run, name="ontick-recording", daemon=True)
        self._thread.start()

    def put(self, frame: np.ndarray) -> None:
        self._raise()
        self._frames.put(frame)

    def close(self) -> None:
        self._frames.put(None)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._failed is not None:
            raise RunFailed(f"the recording failed, no file is kept: {_said(self._failed)}") from self._failed

    def _run(self) -> None:
        index = 0
        # After a failure frames are still taken, so that the producer never hangs; it hears of it at its next one.
        while (frame := self._frames.get()) is not None:
            if self._failed is None:
                self._attempt(self._encode, index, frame)
            index += 1
        if self._failed is None:
            self._attempt(self._mux, None)
        self._attempt(self._file.close)

    def _attempt(self, work: Any, *inputs: Any) -> None:
        try:
            work(*inputs)
        except Exception as error:  # of any kind: the thread that writes raises it, and must not wait for this one
            self._failed = self._failed or error

    def _encode(self, index: int, frame: np.ndarray) -> None:
        picture = self._av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts, picture.time_base = index, self._stream.codec_context.time_base
        self._mux(picture)

    def _mux(self, picture: Any) -> None:
        for packet in self._stream.encode(picture):
            self._file.mux(packet)


def enlarged(frame: np.ndarray, size: tuple[int, int] = SMALLEST) -> np.ndarray:
    """A copy of `frame` [H, W, 3] with each pixel repeated by the least whole factor that reaches `size` (height,
    width), a last odd row or column doubled: [2 h, 2 w, 3]."""
    height, width = frame.shape[:2]
    factor = max(1, math.ceil(size[0] / height), math.ceil(size[1] / width))
    large = frame.repeat(factor, axis=0).repeat(factor, axis=1)
    odd = ((0, large.shape[0] % 2), (0, large.shape[1] % 2), (0, 0))
    return np.ascontiguousarray(np.pad(large, odd, mode="edge"))


def check_frame(frame: Any, shape: tuple[int, ...] | None = None) -> None:
    """Raises InputError unless `frame` is an array uint8 [H, W, 3] with pixels, of the shape `shape` if one is told."""
    fine = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    if not fine or not frame.size:
        got = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(f"got {got} as a frame, wanted uint8 [H, W, 3]: convert it")
    if shape is not None and frame.shape != shape:
        raise InputError(f"got a frame {list(frame.shape)}, wanted {list(shape)} as before: start another recording")


def _rate(fps: float) -> Fraction:
    if not isinstance(fps, int | float | Fraction) or not 0.01 <= fps <= 1000:
        raise InputError(f"got {fps!r} frames a second, wanted a number from 0.01 to 1000: mend fps")
    return Fraction(fps).limit_denominator(1000)


def _size(size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        return SMALLEST
    if len(size) != 2 or not all(isinstance(side, int) and 1 <= side <= 8192 for side in size):
        raise InputError(f"got size {size!r}, wanted (height, width) in pixels from 1 to 8192: mend it")
    return size[0], size[1]


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise InputError(f'a recording needs the package av ({error}): pip install "ontick[video]"') from error


def _said(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
