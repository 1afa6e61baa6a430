"""Recordings are decoded again: every frame is there at its time, and a file is whole or absent."""

import threading
from fractions import Fraction

import numpy as np
import pytest

from ontick.errors import InputError, RunFailed
from ontick.video import recording
from ontick.video.recording import Recording, enlarged

av = pytest.importorskip("av", reason="recordings need the package av")


def frames(count, height=24, width=32):
    """uint8 [count, height, width, 3]: a grey that grows with the frame, so that frames can be told apart."""
    grey = np.linspace(16, 235, count).astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (count, height, width, 3))


def decoded(path):
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def recording_threads():
    return [thread for thread in threading.enumerate() if thread.name == "ontick-recording"]


@pytest.mark.parametrize("fps", [10, 7.5, 30])
def test_a_recording_holds_every_frame_at_its_time(tmp_path, fps):
    shown = frames(23)
    with Recording(tmp_path / "a.mp4", fps) as film:
        for frame in shown:
            film.write(frame)
    back = decoded(tmp_path / "a.mp4")
    assert film.frames == len(back) == 23
    assert [frame.pts * frame.time_base for frame in back] == [index / Fraction(fps) for index in range(23)]
    greys = [frame.to_ndarray(format="rgb24").mean() for frame in back]
    assert np.abs(np.array(greys) - shown[:, 0, 0, 0]).max() < 3
    assert {frame.format.name for frame in back} == {"yuv420p"}
    assert not recording_threads()


@pytest.mark.parametrize(
    ("height", "width", "size", "wanted"),
    [
        (64, 64, None, (256, 256)),
        (60, 33, None, (300, 166)),  # five times; the odd last column of 165 is doubled
        (301, 255, None, (302, 256)),
        (480, 640, None, (480, 640)),
        (64, 64, (500, 700), (704, 704)),
    ],
)
def test_small_frames_are_enlarged_by_whole_factors_to_even_sizes(tmp_path, height, width, size, wanted):
    frame = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    with Recording(tmp_path / "a.mp4", 10, size) as film:
        film.write(frame)
    (back,) = decoded(tmp_path / "a.mp4")
    assert (back.height, back.width) == wanted


def test_enlarging_repeats_pixels_and_nothing_else():
    frame = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    large = enlarged(frame, (15, 1))
    assert large.shape == (16, 22, 3)
    assert (large[:15, :21] == np.kron(frame, np.ones((3, 3, 1), np.uint8))).all()
    assert (large[15, :21] == large[14, :21]).all() and (large[:, 21] == large[:, 20]).all()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RunFailed, ValueError])
def test_an_interrupted_recording_is_kept_whole(tmp_path, error):
    with pytest.raises(error), Recording(tmp_path / "a.mp4", 10) as film:
        for frame in frames(15):
            film.write(frame)
        raise error("on the way")
    assert len(decoded(tmp_path / "a.mp4")) == 15
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert not recording_threads()


def test_without_a_frame_there_is_no_file_and_an_old_one_stays(tmp_path):
    (tmp_path / "old.mp4").write_text("old")
    with Recording(tmp_path / "a.mp4", 10):
        pass
    with pytest.raises(KeyboardInterrupt), Recording(tmp_path / "old.mp4", 10):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["old.mp4"]
    assert (tmp_path / "old.mp4").read_text() == "old"


def test_a_recording_that_cannot_be_encoded_fails_in_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(encoder, picture):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording._Encoder, "_mux", full)
    with pytest.raises(RunFailed, match="No space left"), Recording(tmp_path / "a.mp4", 10) as film:
        for frame in frames(60):  # more than may wait: a failed encoder does not hold up its producer
            film.write(frame)
    assert not list(tmp_path.iterdir())
    assert not recording_threads()


def test_fragments_reach_the_temporary_file_while_it_grows(tmp_path):
    rng, sizes = np.random.default_rng(0), []
    with Recording(tmp_path / "a.mp4", 5) as film:
        for _ in range(12):
            for _ in range(10):
                film.write(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
            sizes.append(sum(path.stat().st_size for path in tmp_path.glob(".*.tmp")))
        assert not (tmp_path / "a.mp4").exists()
        # Most frames are on the disk already; an index at the end of the file would have kept them in memory.
        assert sizes[-1] > 2 * sizes[5] > 0 and sizes == sorted(sizes)
    assert sizes[-1] > 0.3 * (tmp_path / "a.mp4").stat().st_size
    assert (tmp_path / "a.mp4").read_bytes().count(b"moof") >= 20


def test_a_frame_may_be_changed_after_it_was_written(tmp_path):
    frame = np.zeros((16, 16, 3), np.uint8)
    with Recording(tmp_path / "a.mp4", 10) as film:
        for grey in (20, 120, 220):
            frame[:] = grey
            film.write(frame)
    greys = [frame.to_ndarray(format="rgb24").mean() for frame in decoded(tmp_path / "a.mp4")]
    assert np.allclose(greys, [20, 120, 220], atol=3)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1e6, "10"])
def test_a_bad_rate_is_refused(tmp_path, fps):
    with pytest.raises(InputError, match="frames a second"):
        Recording(tmp_path / "a.mp4", fps)


@pytest.mark.parametrize("size", [(0, 10), (1.5, 2), (10,), (10, 10, 10)])
def test_a_bad_size_is_refused(tmp_path, size):
    with pytest.raises(InputError, match="height, width"):
        Recording(tmp_path / "a.mp4", 10, size)


def test_a_folder_is_refused_as_a_place(tmp_path):
    with pytest.raises(InputError, match="a folder"):
        Recording(tmp_path, 10)


def test_bad_frames_are_refused_and_the_others_kept(tmp_path):
    good = np.zeros((16, 16, 3), np.uint8)
    bad = (good.astype(float), good[..., :2], good[None], good[:0], good[:8], [[1]])
    with Recording(tmp_path / "a.mp4", 10) as film:
        film.write(good)
        for frame in bad:
            with pytest.raises(InputError, match="frame"):
                film.write(frame)
    assert len(decoded(tmp_path / "a.mp4")) == 1


def test_without_av_the_package_to_install_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r'pip install "ontick\[video\]"'):
        Recording(tmp_path / "a.mp4", 10)
