"""The proxy spoils what it is told to, counts it, and passes the rest on."""

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import WallClock
from ontick.runtime.wire.client import PolicyClient, WireClosed, WireTimeout
from ontick.runtime.wire.proxy import FAULTS, FaultyProxy
from ontick.runtime.wire.server import PolicyServer

WAIT_S, SOON_S = 10, 0.1
OBS = np.float32([1, 2, 3])


@pytest.fixture
def server(batcher):
    with PolicyServer(batcher(), {}, token="secret") as served:
        yield served


@pytest.fixture
def proxied(server):
    """proxied(...) -> a proxy and a client that is connected through it."""
    opened = []

    def begin(**options):
        proxy = FaultyProxy(server.url, **options).start()
        client = PolicyClient(proxy.url, "secret", timeout_s=WAIT_S)
        opened.extend((client.close, proxy.stop))
        client.connect()
        return proxy, client

    yield begin
    for close in opened:
        close()


def test_without_a_fault_everything_passes(proxied):
    proxy, client = proxied()
    assert [client.ask(OBS).rows[0].tolist() for _ in range(2)] == [[6, 0, 0], [6, 0, 1]]
    assert proxy.counts == {"replies": 2}


def test_a_delay_is_added_to_every_reply(proxied):
    _, client = proxied(delay_s=0.05)
    clock = WallClock()
    start_s = clock.now()
    client.ask(OBS)
    assert clock.now() - start_s >= 0.05


def test_replies_are_lost_as_often_as_told_and_the_same_ones_for_a_seed(proxied):
    lost = []
    for _ in range(2):
        proxy, client = proxied(lose=0.4, seed=3)
        lost.append([is_lost(client) for _ in range(10)])
        assert proxy.counts["lost"] == sum(lost[-1]) > 0
    assert lost[0] == lost[1]


def is_lost(client):
    try:
        client.ask(OBS, timeout_s=SOON_S)
    except WireTimeout:
        return True
    return False


@pytest.mark.parametrize(
    "fault, holds",
    [
        ("nan-action", lambda rows: np.isnan(rows).any()),
        ("inf-action", lambda rows: np.isinf(rows).any()),
        ("wrong-shape", lambda rows: rows.shape == (4, 2)),
        ("beyond-limits", lambda rows: rows[0, 0] == 60),
    ],
)
def test_actions_are_spoiled_until_it_is_told_to_stop(proxied, fault, holds):
    proxy, client = proxied()
    proxy.set(fault)
    assert holds(client.ask(OBS).rows)
    proxy.set(None)
    assert client.ask(OBS).rows[0, 0] == 6
    assert proxy.counts[fault] == 1


@pytest.mark.parametrize("fault", ["late-reply", "reorder"])
def test_a_reply_that_comes_after_a_later_question_is_not_taken_for_its_answer(proxied, fault):
    proxy, client = proxied(late_s=2 * SOON_S)
    proxy.set(fault)
    assert is_lost(client)
    if fault == "late-reply":
        proxy.set(None)
        WallClock().sleep_until(WallClock().now() + 2 * SOON_S)
    assert client.ask(OBS).rows[0, 2] == 1
    assert client.ask(OBS, timeout_s=WAIT_S).rows[0, 2] == 2 if fault == "late-reply" else is_lost(client)
    assert client.late == 1 and proxy.counts[fault] >= 1


def test_a_duplicate_is_counted_and_not_taken_for_the_next_answer(proxied):
    proxy, client = proxied()
    proxy.set("duplicate")
    assert [client.ask(OBS).rows[0, 2] for _ in range(3)] == [0, 1, 2]
    assert client.late == 2


def test_while_it_hangs_nothing_passes_and_afterwards_everything(proxied):
    proxy, client = proxied()
    proxy.hang()
    assert is_lost(client)
    with PolicyClient(proxy.url, "secret", timeout_s=SOON_S) as other, pytest.raises(WireTimeout):
        other.connect()
    proxy.resume()
    assert client.ask(OBS).rows[0, 2] == 1


def test_a_servers_no_passes_and_a_lost_server_is_a_lost_connection(proxied, server):
    _, client = proxied()
    server.stop()
    with pytest.raises(WireClosed):
        client.ask(OBS)
    with pytest.raises(WireClosed):
        client.connect()


def test_a_fault_that_is_none_is_refused(server):
    with FaultyProxy(server.url) as proxy:
        with pytest.raises(InputError, match="late-reply"):
            proxy.set("earthquake")
        for fault in FAULTS:
            proxy.set(fault)
