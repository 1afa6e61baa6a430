"""The client never waits for longer than it was told to, and never takes a late reply for another's."""

import itertools
import socket
import threading

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import WallClock
from ontick.runtime.wire.client import (
    PolicyClient,
    WireClosed,
    WireFull,
    WireLate,
    WireRefused,
    WireTimeout,
    backoff,
)
from ontick.runtime.wire.codec import pack, unpack
from ontick.runtime.wire.server import PolicyServer

sync = pytest.importorskip("websockets.sync.server", reason="the wire needs the package websockets")

WAIT_S = 10
SOON_S = 0.1


@pytest.fixture
def foreign():
    """foreign(handler) -> the URL of a server whose connections are handled so, after its metadata."""
    servers = []

    def begin(handler, metadata=None):
        def handle(connection):
            connection.send(pack(metadata or {}))
            handler(connection)

        server = sync.serve(handle, "127.0.0.1", 0, compression=None)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"ws://127.0.0.1:{server.socket.getsockname()[1]}"

    yield begin
    for server in servers:
        server.shutdown()


@pytest.fixture
def server(batcher):
    with PolicyServer(batcher(), {"version": "0"}) as served:
        yield served


def took_s(work):
    clock = WallClock()
    start_s = clock.now()
    work()
    return clock.now() - start_s


def test_it_asks_a_server_of_ours_with_keys_of_ours(server):
    with PolicyClient(server.url) as client:
        assert client.connect()["ontick"]["plan"] == "toy" and client.is_ours
        reply = client.ask(np.full(3, 2.0, np.float32), request={"seed": 4})
        assert reply.rows[0].tolist() == [6, 4, 0]
        assert reply.ontick["steps"] == 2 and "infer_ms" in reply.metadata["server_timing"]
        assert client.ask(np.zeros((2, 3), np.float32)).rows[0].tolist() == [0, 4, 1]
    assert not client.is_connected


def test_a_foreign_server_is_told_nothing_but_the_observation(foreign):
    heard = []

    def handler(connection):
        for message in connection:
            heard.append(unpack(message))
            connection.send(pack({"actions": np.ones((2, 2)), "server_timing": {"infer_ms": 1.0}}))

    with PolicyClient(foreign(handler), observation_key="observation/state", timeout_s=WAIT_S) as client:
        assert client.connect() == {} and not client.is_ours
        reply = client.ask(np.zeros(3, np.float32), request={"seed": 1})
        assert reply.rows.shape == (2, 2) and reply.ontick == {}
        client.ask({"observation/state": np.zeros(3), "prompt": "pick"})
    assert [set(message) for message in heard] == [{"observation/state"}, {"observation/state", "prompt"}]


def test_a_late_reply_of_ours_is_thrown_away_and_counted(foreign):
    def handler(connection):
        late = unpack(connection.recv())["ontick"]["request"]
        now = unpack(connection.recv())["ontick"]["request"]
        for number in (late, late, now):
            connection.send(pack({"actions": np.full((1, 1), number), "ontick": {"request": number}}))
        connection.recv()

    with PolicyClient(foreign(handler, {"ontick": {}})) as client:
        client.connect(WAIT_S)
        with pytest.raises(WireTimeout):
            client.ask(np.zeros(1), timeout_s=SOON_S)
        assert client.is_connected
        assert client.ask(np.zeros(1), timeout_s=WAIT_S).rows.tolist() == [[2]]
        assert client.late == 2


@pytest.mark.parametrize("key, error", [("late", WireLate), ("full", WireFull)])
def test_what_a_server_of_ours_has_no_time_or_memory_for_leaves_the_connection(foreign, key, error):
    def handler(connection):
        number = unpack(connection.recv())["ontick"]["request"]
        connection.send(pack({"ontick": {"request": number, key: "two\nlines"}}))
        connection.recv()

    with PolicyClient(foreign(handler, {"ontick": {}}), timeout_s=WAIT_S) as client:
        client.connect()
        with pytest.raises(error, match="two lines"):
            client.ask(np.zeros(1))
        assert client.is_connected


def test_after_a_timeout_a_foreign_server_is_left(foreign):
    with PolicyClient(foreign(lambda connection: [connection.recv() for _ in range(2)])) as client:
        client.connect(WAIT_S)
        assert took_s(lambda: refused(client, WireTimeout)) < SOON_S + 0.5
        assert not client.is_connected
        with pytest.raises(WireClosed, match="connect"):
            client.ask(np.zeros(1))


def refused(client, error):
    with pytest.raises(error):
        client.ask(np.zeros(1), timeout_s=SOON_S)


def test_an_error_of_the_server_is_told_in_its_last_line(foreign):
    def handler(connection):
        connection.recv()
        connection.send("Traceback (most recent call last):\n  File x\nValueError: no such key\n")
        connection.close(1011)

    with PolicyClient(foreign(handler)) as client:
        client.connect(WAIT_S)
        with pytest.raises(WireRefused, match=r"ValueError: no such key$"):
            client.ask(np.zeros(1), timeout_s=WAIT_S)
        assert not client.is_connected


@pytest.mark.parametrize(
    "reply", [b"\xc1", pack([1]), pack({}), pack({"actions": [1.0]}), pack({"actions": None})], ids=range(5)
)
def test_a_reply_without_an_array_of_actions_is_refused(foreign, reply):
    with PolicyClient(foreign(lambda connection: [connection.recv(), connection.send(reply), connection.recv()])) as c:
        c.connect(WAIT_S)
        with pytest.raises(WireRefused):
            c.ask(np.zeros(1), timeout_s=WAIT_S)


def test_a_server_that_goes_is_told_and_can_come_again(batcher):
    made = batcher()
    first = PolicyServer(made, {}).start()
    with PolicyClient(first.url, timeout_s=WAIT_S) as client:
        client.connect()
        first.stop()
        with pytest.raises(WireClosed):
            client.ask(np.zeros(3, np.float32))
        with pytest.raises(WireClosed):
            client.connect()
        with PolicyServer(made, {}, port=int(first.url.rsplit(":", 1)[1])):
            client.connect()
            assert client.ask(np.zeros(3, np.float32)).rows.shape == (4, 3)


def test_a_host_that_accepts_and_says_nothing_is_given_up_in_time():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = PolicyClient(f"ws://127.0.0.1:{silent.getsockname()[1]}")

        def tries():
            with pytest.raises((WireTimeout, WireClosed)):
                client.connect(SOON_S)

        assert took_s(tries) < SOON_S + 1.0


def test_a_server_that_reads_nothing_does_not_hold_up_the_sender(foreign):
    ends = threading.Event()
    try:
        with PolicyClient(foreign(lambda connection: ends.wait(WAIT_S)), timeout_s=0.3) as client:
            client.connect()
            large = np.zeros(4_000_000, np.uint8)

            def asks():
                with pytest.raises((WireTimeout, WireClosed)):
                    for _ in range(20):
                        client.ask(large)

            assert took_s(asks) < 5.0
    finally:
        ends.set()


@pytest.mark.parametrize("url", ["localhost:8000", "http://localhost", "ws//x", ""])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(InputError, match="ws://"):
        PolicyClient(url)


def test_waits_double_up_to_five_seconds_and_differ_between_robots():
    waits = [list(itertools.islice(backoff(seed), 12)) for seed in (0, 0, 1)]
    assert waits[0] == waits[1] != waits[2]
    for n, wait_s in enumerate(waits[0]):
        most_s = min(0.1 * 2**n, 5.0)
        assert most_s / 2 <= wait_s <= most_s
