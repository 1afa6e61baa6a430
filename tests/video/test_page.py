"""The page in a headless Chromium, driven over its DevTools protocol."""

import base64
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
from queue import Queue

import numpy as np
import pytest

from ontick.runtime.clock import WallClock
from ontick.video.player import Player

client = pytest.importorskip("websockets.sync.client", reason="the page needs the package websockets")
image = pytest.importorskip("PIL.Image", reason="the page needs the package pillow")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
OPTIONS += ("--disable-background-networking", "--remote-debugging-port=0", "--window-size=1280,860", "--mute-audio")
WAIT_S = 30


class Tab:
    """One tab of a browser: commands of the DevTools protocol, answered one at a time."""

    def __init__(self, url):
        self.connection, self.numbers = client.connect(url, compression=None, max_size=None), itertools.count(1)

    def __enter__(self):
        self.socket = self.connection.__enter__()
        return self

    def __exit__(self, *error):
        self.connection.__exit__(*error)

    def command(self, method, **inputs):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": inputs}))
        while (answer := json.loads(self.socket.recv(WAIT_S))).get("id") != number:
            pass  # an event
        assert "error" not in answer, answer
        return answer["result"]

    def value(self, expression):
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def key(self, kind, code):
        self.command("Input.dispatchKeyEvent", type=kind, code=code, key=code)

    def mouse(self, kind, x, y):
        self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self):
        """uint8 [H, W, 3]."""
        data = base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])
        return np.asarray(image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """The address of the browser's DevTools."""
    folder = tmp_path_factory.mktemp("browser")
    command = [BROWSER, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    # In a session of its own, so that its helpers end with it.
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        said = itertools.takewhile(bool, iter(running.stderr.readline, ""))
        found = next(filter(None, (re.search(r"listening on (ws://\S+)", line) for line in said)), None)
        assert found, "the browser did not start"
        yield found[1]
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait(WAIT_S)
        running.stderr.close()


@pytest.fixture
def tab(browser):
    """A new tab; it is closed again."""
    with Tab(browser) as whole:
        target = whole.command("Target.createTarget", url="about:blank")["targetId"]
        with Tab(browser.split("/devtools")[0] + f"/devtools/page/{target}") as tab:
            yield tab
        whole.command("Target.closeTarget", targetId=target)


def told(number):
    return {
        "frame": number,
        "plan": "fifo-12",
        "fps": 24.6,
        "first_frame_ms": 412.0,
        "frame_ms": {"p50": 38.24, "p99": 41.9, "max": 55.1},
        "reaction_ms": 321.5,
        "calls_per_frame": 1.5,
        "repeats": 3,
        "effort": "12 levels, every block",
        "budget": {"name": "25 Hz", "met": True},
        "levels": [(place + 1) / 12 for place in range(12)],
        "action": [0.4, -0.8],
    }


def gradient(number, side=64):
    """uint8 [side, side, 3]: colours that move, so that no two frames are alike."""
    rows, columns = np.mgrid[:side, :side] / side * 2 * np.pi
    shades = [np.sin(columns + number / 9), np.sin(rows + 2 + number / 14), np.cos(rows + columns - number / 11)]
    return (127.5 + 110 * np.stack(shades, -1)).astype(np.uint8)


def showing(player, tab, holds):
    """Shows frames, 25 a second, until the expression holds on the page."""
    number = itertools.count()
    clock = WallClock()
    end_s = clock.now() + WAIT_S
    while not (found := tab.value(holds)) and clock.now() < end_s:
        player.show(gradient(n := next(number)), told(n))
        clock.sleep_until(clock.now() + 0.04)
    assert found, f"{holds} does not hold; the page says {tab.value('JSON.stringify(window.player)')}"


@pytest.fixture
def heard():
    return Queue()


@pytest.fixture
def player(heard):
    with Player("127.0.0.1", 0, heard.put) as served:
        yield served


@pytest.fixture
def page(player, tab):
    """The tab with the page open and ten frames drawn."""
    tab.command("Page.navigate", url=player.url)
    showing(player, tab, "(window.player?.drawn ?? 0) >= 10")
    return tab


def text(tab, selector):
    return tab.value(f"[...document.querySelectorAll({json.dumps(selector)})].map((node) => node.textContent)")


def test_the_page_draws_frames_and_tells_the_numbers(page, player):
    assert page.value("window.player.state") == "live"
    assert text(page, "#status") == ["live"] and text(page, "#plan") == ["fifo-12"]
    names, values = text(page, "#tiles dt"), text(page, "#tiles dd")
    shown = dict(zip(names, values, strict=True))
    assert shown["Frames a second"] == "24.6Hz" and shown["Frame p50"] == "38.2ms" and shown["p99"] == "41.9ms"
    assert shown["Reaction"] == "322ms" and shown["Repeats"] == "3" and shown["Effort"] == "12 levels, every block"
    assert int(shown["Frame"]) >= 9
    assert text(page, "#budget") == ["budget 25 Hz: met"]
    assert page.value("[canvas.width, canvas.height]") == [64, 64]
    heights = page.value("[...document.querySelectorAll('#bars i')].map((bar) => bar.style.transform)")
    assert [round(12 * float(height[7:-1])) for height in heights] == list(range(1, 13))
    assert text(page, "#actions span") == ["+0.40", "−0.80"]


def test_the_picture_on_the_canvas_is_the_frame(page, player):
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[:, 30:] = (250, 120, 10)
    player.show(frame, told(1))
    showing_frame = "canvas.width === 60 && [...canvas.getContext('2d').getImageData(45, 20, 1, 1).data.slice(0, 3)]"
    clock = WallClock()
    end_s = clock.now() + WAIT_S
    while not (seen := page.value(showing_frame)) and clock.now() < end_s:
        clock.sleep_until(clock.now() + 0.02)
    assert np.abs(np.array(seen) - (250, 120, 10)).max() < 12


def test_null_numbers_are_dashes_and_a_missed_budget_is_said(page, player):
    bare = {**told(0), "reaction_ms": None, "frame_ms": {}, "budget": {"name": "<b>", "met": False}, "levels": []}
    clock = WallClock()
    for _ in range(200):
        player.show(gradient(0), bare)
        if text(page, "#budget") == ["budget <b>: missed"]:
            break
        clock.sleep_until(clock.now() + 0.02)
    shown = dict(zip(text(page, "#tiles dt"), text(page, "#tiles dd"), strict=True))
    assert shown["Reaction"] == "–ms" and shown["p99"] == "–ms"
    assert text(page, "#budget") == ["budget <b>: missed"] and text(page, "#queue") == ["empty"]


@pytest.mark.parametrize(("code", "arrow"), [("ArrowRight", "ArrowRight"), ("KeyW", "ArrowUp")])
def test_keys_are_held_light_up_and_are_released(page, heard, code, arrow):
    page.key("keyDown", code)
    assert heard.get(timeout=WAIT_S) == {arrow}
    lit = "[...document.querySelectorAll('#pad .held')].map((button) => button.dataset.key)"
    assert page.value(lit) == [arrow]
    page.key("keyUp", code)
    assert heard.get(timeout=WAIT_S) == set()
    assert page.value(lit) == []


def test_the_arrows_of_the_page_work_with_the_mouse(page, heard):
    box = "JSON.stringify(document.querySelector('[data-key=ArrowLeft]').getBoundingClientRect())"
    place = json.loads(page.value(box))
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse("mousePressed", x, y)
    assert heard.get(timeout=WAIT_S) == {"ArrowLeft"}
    page.mouse("mouseReleased", x + 300, y)  # let go elsewhere
    assert heard.get(timeout=WAIT_S) == set()


def test_keys_are_released_when_the_page_loses_the_keyboard(page, heard):
    page.key("keyDown", "ArrowDown")
    assert heard.get(timeout=WAIT_S) == {"ArrowDown"}
    page.value("window.dispatchEvent(new Event('blur'))")
    assert heard.get(timeout=WAIT_S) == set()


def test_the_page_is_seen(page):
    seen = page.screenshot()
    where = json.loads(page.value("JSON.stringify(canvas.getBoundingClientRect())"))
    middle = seen[
        int(where["y"]) : int(where["y"] + where["height"]), int(where["x"]) : int(where["x"] + where["width"])
    ]
    assert middle.std() > 30 and len(np.unique(middle.reshape(-1, 3), axis=0)) > 500
    assert page.value("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [360, 700, 1000])
def test_the_page_fits_narrow_screens(page, width):
    page.command("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    assert page.value("document.documentElement.scrollWidth") <= width


def test_a_lost_connection_is_said_and_mended(page, player):
    port = int(player.url.rstrip("/").rsplit(":")[-1])
    player.stop()
    clock = WallClock()
    end_s = clock.now() + WAIT_S
    while page.value("window.player.state") != "lost" and clock.now() < end_s:
        clock.sleep_until(clock.now() + 0.05)
    assert text(page, "#said") == ["Connection lost, reconnecting"]
    assert page.value("getComputedStyle(notice).display") != "none"
    drawn = page.value("window.player.drawn")
    with Player("127.0.0.1", port) as again:
        showing(again, page, f"window.player.drawn > {drawn} && window.player.state === 'live'")
