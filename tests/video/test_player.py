"""A real server on a free port: viewers get frames, hold keys, fall behind and leave, and the producer never waits."""

import json
import socket
import struct
import threading
import urllib.error
import urllib.request
from io import BytesIO
from queue import Empty, Queue

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime.clock import WallClock
from ontick.video import player as module
from ontick.video.player import Player

client = pytest.importorskip("websockets.sync.client", reason="the page needs the package websockets")
exceptions = pytest.importorskip("websockets.exceptions")
image = pytest.importorskip("PIL.Image", reason="the page needs the package pillow")

WAIT_S = 10
TOLD = {"plan": "fifo", "levels": [0.0, 0.5, 1.0], "frame_ms": {"p50": 1.5}}


@pytest.fixture
def heard():
    return Queue()


@pytest.fixture
def player(heard):
    with Player("127.0.0.1", 0, heard.put) as served:
        yield served
    assert not [thread for thread in threading.enumerate() if thread.name == "ontick-player"]


def stream(player, **options):
    return client.connect(player.url.replace("http", "ws") + "stream", compression=None, **options)


def until(holds):
    clock = WallClock()
    end_s = clock.now() + WAIT_S
    while not holds() and clock.now() < end_s:
        clock.sleep_until(clock.now() + 0.01)
    assert holds()


def watched(player, viewers):
    until(lambda: player.viewers == viewers)


def unpacked(message):
    (length,) = struct.unpack(">I", message[:4])
    picture = image.open(BytesIO(message[4 + length :]))
    assert picture.format == "JPEG"
    return json.loads(message[4 : 4 + length]), np.asarray(picture)


def picture(grey=128, side=48):
    return np.full((side, side + 16, 3), grey, np.uint8)


def held(heard):
    return heard.get(timeout=WAIT_S)


def keys(*names):
    return json.dumps({"keys": names})


def test_a_viewer_gets_frames_and_what_is_told(player):
    with stream(player) as viewer:
        watched(player, 1)
        for number in range(3):
            player.show(picture(50 * number), {**TOLD, "frame": number})
            told, shown = unpacked(viewer.recv(WAIT_S))
            assert told == {**TOLD, "frame": number, "dropped": 0}
            assert shown.shape == (48, 64, 3) and np.abs(shown.astype(int) - 50 * number).max() < 4
    watched(player, 0)
    assert player.dropped == 0


def test_every_frame_is_received_or_counted_as_dropped(player):
    with stream(player) as viewer:
        watched(player, 1)
        for number in range(200):
            player.show(picture(side=200), {"frame": number})
        received = [unpacked(viewer.recv(WAIT_S))[0]]
        while received[-1]["frame"] < 199:
            received.append(unpacked(viewer.recv(WAIT_S))[0])
    frames = [told["frame"] for told in received]
    assert frames == sorted(set(frames))
    assert len(received) + player.dropped == 200
    assert received[-1]["dropped"] == player.dropped


def test_a_viewer_that_never_reads_slows_nobody_and_its_drops_are_counted(player):
    noise, clock, took_s = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8), WallClock(), []
    with stream(player, max_queue=1, close_timeout=0.2) as lazy, stream(player) as keen:
        watched(player, 2)
        got = Queue()
        reader = threading.Thread(target=lambda: [got.put(unpacked(message)[0]) for message in keen])
        reader.start()
        for number in range(500):
            start_s = clock.now()
            player.show(noise, {"frame": number})
            took_s.append(clock.now() - start_s)
            clock.sleep_until(start_s + 0.004)
        seen = [got.get(timeout=WAIT_S)]
        while seen[-1]["frame"] < 499:
            seen.append(got.get(timeout=WAIT_S))
        assert np.median(took_s) < 0.002
        assert player.viewers == 2 and lazy.protocol.state.name == "OPEN"
        lazies = player.dropped - seen[-1]["dropped"]
        assert lazies > 100 and lazies > seen[-1]["dropped"]
        keen.close()
        reader.join(WAIT_S)
    watched(player, 0)


def test_nobody_watching_costs_no_picture(player, monkeypatch):
    monkeypatch.setattr(player, "_encoded", lambda frame: pytest.fail("encoded for nobody"))
    for number in range(100):
        player.show(picture(), {"frame": number})
    assert player.viewers == player.dropped == 0


def test_viewers_come_and_go_while_the_stream_runs(player):
    for visit in range(5):
        with stream(player) as viewer:
            watched(player, 1)
            player.show(picture(), {"frame": visit})
            assert unpacked(viewer.recv(WAIT_S))[0]["frame"] == visit
            if visit % 2:
                viewer.socket.close()  # without a word
        player.show(picture(), {})
        watched(player, 0)


def test_what_is_told_may_be_of_numpy_and_not_finite(player):
    with stream(player) as viewer:
        watched(player, 1)
        player.show(picture(), {"fps": np.float32(2.5), "levels": np.array([0.5, np.nan]), "reaction_ms": float("inf")})
        told, _ = unpacked(viewer.recv(WAIT_S))
    assert told == {"fps": 2.5, "levels": [0.5, None], "reaction_ms": None, "dropped": 0}


def test_keys_arrive_and_are_released_when_their_viewer_leaves(player, heard):
    with stream(player) as first, stream(player) as second:
        first.send(keys("ArrowLeft", "ArrowUp"))
        assert held(heard) == {"ArrowLeft", "ArrowUp"}
        first.send(keys("ArrowUp"))
        assert held(heard) == {"ArrowUp"}
        second.send(keys("ArrowDown"))
        assert held(heard) == {"ArrowUp", "ArrowDown"}
        first.close()
        assert held(heard) == {"ArrowDown"}
        second.socket.shutdown(socket.SHUT_RDWR)
        assert held(heard) == set()
    with pytest.raises(Empty):
        heard.get_nowait()


def test_an_error_in_on_keys_does_not_end_the_stream(caplog):
    def fails(keys):
        raise ValueError("no such key here")

    with Player("127.0.0.1", 0, fails) as player, stream(player) as viewer:
        viewer.send(keys("ArrowLeft"))
        until(lambda: "on_keys failed" in caplog.text)
        player.show(picture(), {"frame": 1})
        assert unpacked(viewer.recv(WAIT_S))[0]["frame"] == 1


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("x" * 4000, 1009),
        (b"\x00\x01", 1008),
        ("no json", 1008),
        ("[]", 1008),
        ('{"keys": "ArrowLeft"}', 1008),
        ('{"keys": ["Escape"]}', 1008),
        ('{"keys": [["ArrowLeft"]]}', 1008),
        ("[" * 500, 1008),
    ],
)
def test_a_malformed_message_closes_that_viewer_alone(player, heard, message, code):
    with stream(player) as good, stream(player) as bad:
        watched(player, 2)
        bad.send(keys("ArrowLeft"))
        assert held(heard) == {"ArrowLeft"}
        bad.send(message)
        with pytest.raises(exceptions.ConnectionClosed) as closed:
            bad.recv(WAIT_S)
        assert closed.value.rcvd.code == code
        assert held(heard) == set()
        watched(player, 1)
        player.show(picture(), {"frame": 7})
        assert unpacked(good.recv(WAIT_S))[0]["frame"] == 7


def test_the_page_is_served_and_needs_nothing_from_elsewhere(player):
    with urllib.request.urlopen(player.url, timeout=WAIT_S) as answer:
        page = answer.read().decode()
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert page.startswith("<!doctype html>") and "/stream" in page
    assert "src=" not in page and "@import" not in page and "url(" not in page


@pytest.mark.parametrize(("path", "status"), [("nothing", 404), ("stream/more", 404), ("stream", 426)])
def test_other_paths_are_refused(player, path, status):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(player.url + path, timeout=WAIT_S)
    assert refused.value.code == status
    refused.value.close()


def test_another_page_cannot_open_the_stream(player):
    with pytest.raises(exceptions.InvalidStatus) as refused:
        stream(player, origin="http://example.com").__enter__()
    assert refused.value.response.status_code == 403
    with stream(player, origin=player.url.rstrip("/")):
        watched(player, 1)


def test_there_is_room_for_so_many_viewers(player, monkeypatch):
    monkeypatch.setattr(module, "MOST_VIEWERS", 1)
    with stream(player):
        watched(player, 1)
        with pytest.raises(exceptions.InvalidStatus) as refused:
            stream(player).__enter__()
        assert refused.value.response.status_code == 503


def test_stopping_closes_viewers_and_unused_connections_and_may_be_repeated(heard):
    player = Player("127.0.0.1", 0, heard.put).start()
    host, port = player.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port))), stream(player, max_queue=1) as viewer:
        viewer.send(keys("ArrowLeft"))
        assert held(heard) == {"ArrowLeft"}
        player.stop()
        player.stop()
        assert held(heard) == set()
        with pytest.raises(exceptions.ConnectionClosed):
            viewer.recv(WAIT_S)
    player.show(picture(), {})
    assert player.viewers == 0 and player.url == ""
    again = player.start().url
    player.stop()
    assert again


@pytest.mark.parametrize("port", [-1, 65536, "80", 1.5, True, None])
def test_a_bad_port_is_refused(port):
    with pytest.raises(InputError, match="port"):
        Player("127.0.0.1", port)


@pytest.mark.parametrize("host", ["", None, "no host", "192.0.2.1", "a" * 300, "host.invalid"])
def test_a_bad_host_is_refused(host):
    with pytest.raises(InputError, match=r"got host|cannot be served"):
        Player(host, 0).start()
    assert not [thread for thread in threading.enumerate() if thread.name == "ontick-player"]


def test_a_taken_port_is_refused_in_one_line(player):
    port = int(player.url.rstrip("/").rsplit(":")[-1])
    with pytest.raises(InputError, match=f"127.0.0.1:{port}, which cannot be served") as refused:
        Player("127.0.0.1", port).start()
    assert "\n" not in str(refused.value)


def test_a_bad_frame_is_refused(player):
    for frame in (picture().astype(float), picture()[..., 0], picture()[:0], None):
        with pytest.raises(InputError, match="frame"):
            player.show(frame, {})


def test_without_the_packages_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(InputError, match=r'pip install "ontick\[video\]"'):
        Player("127.0.0.1", 0)
