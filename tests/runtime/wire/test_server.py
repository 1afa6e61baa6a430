"""A real server on a free port: openpi's protocol, strangers kept out, nonsense refused, others served on."""

import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from ontick.errors import InputError
from ontick.runtime import load_budget
from ontick.runtime.wire.batching import Batcher
from ontick.runtime.wire.client import PolicyClient, WireClosed
from ontick.runtime.wire.codec import pack, unpack
from ontick.runtime.wire.server import PolicyServer

sync = pytest.importorskip("websockets.sync.client", reason="the wire needs the package websockets")
exceptions = pytest.importorskip("websockets.exceptions")
msgpack = pytest.importorskip("msgpack")

WAIT_S = 10


@pytest.fixture
def serve(batcher):
    """serve(...) -> a server of a toy, ended after the test."""
    servers = []

    def begin(made=None, **options):
        servers.append(PolicyServer(made or batcher(), {"version": "0"}, **options).start())
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "ontick-server"]


def connect(server, **headers):
    return sync.connect(server.url, compression=None, max_size=None, proxy=None, additional_headers=headers)


def observation(total=0.0):
    return {"observation": np.full(3, total / 3, np.float32)}


def health(server):
    url = server.url.replace("ws", "http", 1) + "/healthz"
    try:
        with urllib.request.urlopen(url, timeout=WAIT_S) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def exchange(client, message):
    client.send(pack(message))
    return unpack(client.recv(WAIT_S))


def test_the_server_speaks_first_and_then_answers_in_turn(serve):
    with connect(serve()) as client:
        told = unpack(client.recv(WAIT_S))["ontick"]
        assert told["observation_dim"] == 3 and told["rows"] == 4 and told["version"] == "0"
        for answers in range(3):
            reply = exchange(client, observation(6.0))
            assert reply["actions"].shape == (4, 3) and reply["actions"].dtype == np.float32
            assert reply["actions"][0].tolist() == [6, 0, answers]
            assert reply["server_timing"].keys() == {"infer_ms"} | ({"prev_total_ms"} if answers else set())
            assert "ontick" not in reply


def test_frames_are_openpis_bytes(serve):
    """Written by hand from the protocol's description, and read by plain msgpack: arrays are maps of bytes keys."""
    state = b"\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x0c" + np.float32([1, 2, 3]).tobytes()
    state += b"\xc4\x05dtype\xa3<f4\xc4\x05shape\x91\x03"
    with connect(serve()) as client:
        assert isinstance(msgpack.unpackb(client.recv(WAIT_S)), dict)
        client.send(b"\x81\xabobservation" + state)
        actions = msgpack.unpackb(client.recv(WAIT_S))["actions"]
    assert list(actions) == [b"__ndarray__", b"data", b"dtype", b"shape"]
    assert actions[b"__ndarray__"] is True and actions[b"dtype"] == "<f4" and actions[b"shape"] == [4, 3]
    assert np.frombuffer(actions[b"data"], "<f4")[0] == 6.0


def test_keys_of_ours_are_answered_with_ours(serve):
    with connect(serve()) as client:
        client.recv(WAIT_S)
        told = exchange(client, {**observation(), "ontick": {"request": 17, "seed": 5, "deadline_s": 3.0}})
        assert told["actions"][0].tolist() == [0, 5, 0]
        keys = told["ontick"]
        assert [keys[name] for name in ("request", "rung", "steps", "calls", "batch")] == [17, 0, 2, 5, 1]
        assert keys["device_ms"] >= 0 and keys["queued_ms"] >= 0
        again = exchange(client, {**observation(), "ontick": {"request": 18, "seed": 5}})
        assert again["actions"][0].tolist() == [0, 5, 0]


def test_a_newest_observation_follows_the_history_that_the_server_keeps(serve, batcher, toys):
    class Both(toys):
        def _row(self, seen, lane):
            return np.repeat(np.float32([[seen[0, 0], seen[1, 0], 0]]), 4, 0)

    server = serve(batcher(lambda width: [Both(width)]))
    with connect(server) as client:
        client.recv(WAIT_S)

        def seen(obs, **keys):
            message = {"observation": np.asarray(obs, np.float32), "ontick": keys}
            return exchange(client, message)["actions"][0, :2].tolist()

        assert seen([1, 1, 1]) == [1, 1]
        assert seen([2, 2, 2]) == [1, 2]
        assert seen([[5, 5, 5], [6, 6, 6]]) == [5, 6]
        assert seen([7, 7, 7]) == [6, 7]
        assert seen([8, 8, 8], seed=0) == [8, 8]


def test_every_client_is_a_lane_with_a_seed_of_its_own(serve):
    server = serve()
    with connect(server) as one, connect(server) as other:
        seeds = []
        for client in (one, other):
            client.recv(WAIT_S)
            seeds.append(exchange(client, observation())["actions"][0, 1])
    assert seeds[0] != seeds[1]


def test_a_lane_that_is_taken_over_begins_anew(serve, batcher, eventually):
    server = serve(batcher(lanes=1))
    for seed in range(2):
        with connect(server) as client:
            client.recv(WAIT_S)
            assert exchange(client, observation())["actions"][0].tolist() == [0, seed, 0]
        eventually(lambda: server.clients == 0)


BAD = {
    "text": "hello",
    "noise": b"\xc1\xff\x00",
    "no observation": pack({"x": 1}),
    "a list": pack([1, 2]),
    "a wrong shape": pack({"observation": np.zeros(4, np.float32)}),
    "a wrong dtype": pack({"observation": np.array(["a", "b", "c"])}),
    "NaN": pack({"observation": np.array([0, np.nan, 0])}),
    "too large for float32": pack({"observation": np.array([1e300, 0, 0])}),
    "a seed below 0": pack({**observation(), "ontick": {"seed": -1}}),
    "a rung that is not there": pack({**observation(), "ontick": {"rung": 1}}),
    "rows that it cannot be told of": pack({**observation(), "ontick": {"kept": np.zeros((1, 3))}}),
    "a deadline that is no number": pack({**observation(), "ontick": {"deadline_s": float("nan")}}),
    "keys that are no dictionary": pack({**observation(), "ontick": 1}),
}


@pytest.mark.parametrize("frame", BAD.values(), ids=BAD.keys())
def test_a_bad_frame_closes_its_connection_with_a_reason_and_no_other(serve, frame):
    server = serve()
    with connect(server) as bad, connect(server) as good:
        bad.recv(WAIT_S), good.recv(WAIT_S)
        bad.send(frame)
        reason = bad.recv(WAIT_S)
        assert isinstance(reason, str) and reason and "\n" not in reason
        with pytest.raises(exceptions.ConnectionClosed) as closed:
            bad.recv(WAIT_S)
        assert closed.value.rcvd.code == 1008
        assert exchange(good, observation(3.0))["actions"][0, 0] == 3
    assert server.served.refused["bad frame"] == 1


def test_a_policy_that_fails_is_told_to_its_client_alone(serve, toys):
    server = serve()
    with connect(server) as bad, connect(server) as good:
        bad.recv(WAIT_S), good.recv(WAIT_S)
        bad.send(pack({"observation": np.full(3, toys.BROKEN, np.float32)}))
        assert bad.recv(WAIT_S) == "RuntimeError: the device has burnt out"
        with pytest.raises(exceptions.ConnectionClosed) as closed:
            bad.recv(WAIT_S)
        assert closed.value.rcvd.code == 1011
        assert exchange(good, observation(3.0))["actions"][0, 0] == 3


def test_an_oversized_message_is_refused(serve):
    server = serve(largest_message=1000)
    with connect(server) as client, connect(server) as good:
        client.recv(WAIT_S), good.recv(WAIT_S)
        client.send(b"\0" * 2000)
        with pytest.raises(exceptions.ConnectionClosed) as closed:
            client.recv(WAIT_S)
        assert closed.value.rcvd.code == 1009
        assert exchange(good, observation(3.0))["actions"][0, 0] == 3


@pytest.mark.parametrize("header", ["Bearer secret", "Api-Key secret", "bearer secret"])
def test_who_shows_the_token_comes_in(serve, header):
    with connect(serve(token="secret"), Authorization=header) as client:
        assert "ontick" in unpack(client.recv(WAIT_S))


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer Secret", "Basic secret", "secret", "Bearer secret2", "é"])
def test_who_does_not_stays_out_before_the_upgrade(serve, header):
    server = serve(token="secret")
    with pytest.raises(exceptions.InvalidStatus) as refused:
        connect(server, **({"Authorization": header} if header else {}))
    assert refused.value.response.status_code == 401
    assert server.served.refused["token"] == 1 and server.served.clients == 0


def test_a_page_in_a_browser_stays_out(serve):
    with pytest.raises(exceptions.InvalidStatus) as refused:
        connect(serve(), Origin="http://example.com")
    assert refused.value.response.status_code == 403


def test_the_server_is_healthy_once_the_policy_is_warm(serve, toys):
    gate = threading.Event()
    with Batcher(lambda width: [toys(width, gate)], ["toy"], load_budget("cpu-20hz")) as cold:
        server = serve(cold)
        assert health(server)[0] == 503
        with pytest.raises(exceptions.InvalidStatus) as refused:
            connect(server)
        assert refused.value.response.status_code == 503
        gate.set()
        cold.wait(WAIT_S)
        assert health(server) == (200, b"OK\n")
        server.stop()


def test_the_loop_is_free_while_an_answer_is_computed(serve, batcher, toys):
    gate = threading.Event()
    gate.set()
    server = serve(batcher(lambda width: [toys(width, gate)]))
    with connect(server) as client:
        client.recv(WAIT_S)
        gate.clear()
        client.send(pack(observation()))
        assert client.ping().wait(WAIT_S)
        assert health(server)[0] == 200
        gate.set()
        assert unpack(client.recv(WAIT_S))["actions"].shape == (4, 3)


def test_a_client_that_leaves_before_its_answer_frees_its_place(serve, batcher, toys, eventually):
    gate = threading.Event()
    gate.set()
    server = serve(batcher(lambda width: [toys(width, gate)], lanes=1))
    with connect(server) as client:
        client.recv(WAIT_S)
        gate.clear()
        client.send(pack(observation()))
    eventually(lambda: server.clients == 0)
    gate.set()
    with connect(server) as after:
        after.recv(WAIT_S)
        assert exchange(after, observation(3.0))["actions"][0, 0] == 3


def test_no_more_clients_come_in_than_there_are_lanes(serve, batcher):
    server = serve(batcher(lanes=2))
    with connect(server), connect(server):
        with pytest.raises(exceptions.InvalidStatus) as refused:
            connect(server)
        assert refused.value.response.status_code == 503


def test_a_question_past_its_deadline_is_answered_with_that_and_the_connection_stands(serve):
    with connect(serve()) as client:
        client.recv(WAIT_S)
        told = exchange(client, {**observation(), "ontick": {"request": 1, "deadline_s": 0.0, "seed": 9}})
        assert "actions" not in told and told["ontick"]["request"] == 1 and "waited" in told["ontick"]["late"]
        assert exchange(client, observation())["actions"][0].tolist() == [0, 9, 0]  # its episode begins all the same


def test_without_memory_our_clients_are_told_so_and_stay_and_others_are_refused(serve, batcher, toys):
    class Hungry(toys):
        def predict_with_tail(self, obs, lanes):
            if (obs == self.BROKEN).any():
                raise MemoryError
            return super().predict_with_tail(obs, lanes)

    server = serve(batcher(lambda width: [Hungry(width)]))
    hungry = {"observation": np.full(3, toys.BROKEN, np.float32)}
    with connect(server) as ours, connect(server) as foreign:
        ours.recv(WAIT_S), foreign.recv(WAIT_S)
        told = exchange(ours, {**hungry, "ontick": {"request": 3}})
        assert "actions" not in told and told["ontick"] == {"request": 3, "full": "no plan fits into memory"}
        assert exchange(ours, {**observation(3.0), "ontick": {"seed": 0}})["actions"][0, 0] == 3
        foreign.send(pack(hungry))
        assert foreign.recv(WAIT_S) == "no plan fits into memory"
    assert server.served.to_dict()["full"] == 2


def test_the_rung_that_answered_is_told(serve, batcher, toys):
    class Hungry(toys):
        def predict_with_tail(self, obs, lanes):
            if obs[0, -1, 0] == 1:
                raise MemoryError
            return super().predict_with_tail(obs, lanes)

    server = serve(batcher(lambda width: [Hungry(width), toys(width)], ("dear", "cheap"), widths=(1,)))
    with connect(server) as client:
        client.recv(WAIT_S)
        assert exchange(client, {**observation(3.0), "ontick": {"rung": 0}})["ontick"]["rung"] == 1


def test_a_token_that_goes_over_a_network_unencrypted_is_warned_of(serve):
    for options in ({"host": "0.0.0.0", "token": "secret"}, {"token": "secret"}, {"host": "0.0.0.0", "insecure": True}):
        lines = []
        serve(told=lines.append, **options)
        assert [line.startswith("warning: ws://") for line in lines] == [True] * (
            len(options) == 2 and "token" in options
        )


def test_who_serves_is_told_of_clients_and_counts(serve, eventually):
    lines = []
    server = serve(told=lines.append)
    with connect(server) as client:
        client.recv(WAIT_S)
        exchange(client, observation())
    eventually(lambda: len(lines) == 2)
    assert "has come" in lines[0] and "has gone" in lines[1]
    told = server.served.to_dict()
    assert (told["requests"], told["clients"], told["refused"]) == (1, 1, {})
    assert told["reply_ms"]["p50"] >= told["device_ms"]["p50"] >= 0


def test_beyond_this_machine_a_token_is_wanted(batcher):
    made = batcher()
    for options in ({}, {"token": " "}):
        with pytest.raises(InputError, match="token"):
            PolicyServer(made, {}, host="0.0.0.0", **options)
    PolicyServer(made, {}, host="0.0.0.0", token="secret")
    PolicyServer(made, {}, host="0.0.0.0", insecure=True)


@pytest.mark.parametrize("port", [-1, 65536, "80", True])
def test_a_port_that_is_none_is_refused(batcher, port):
    with pytest.raises(InputError, match="port"):
        PolicyServer(batcher(), {}, port=port)


def test_a_port_that_is_taken_is_refused(serve, batcher):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot be served"):
            PolicyServer(batcher(), {}, port=taken.getsockname()[1]).start()


def test_stopping_is_quick_with_clients_and_strangers_connected(serve):
    server = serve()
    host, port = server.url.removeprefix("ws://").split(":")
    with socket.create_connection((host, int(port))), connect(server) as client:
        client.recv(WAIT_S)
        server.stop()
        server.stop()
        with pytest.raises(exceptions.ConnectionClosed):
            client.recv(WAIT_S)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_with_a_certificate_it_speaks_tls_and_nothing_else(serve, tmp_path):
    files = certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = serve(tls=files)
    with PolicyClient(server.url, ca=certificate, timeout_s=WAIT_S) as client:
        assert client.connect()["ontick"]["plan"] == "toy"
        assert client.ask(np.zeros(3, np.float32)).rows.shape == (4, 3)
    for url, ca in ((server.url.replace("wss", "ws"), None), (server.url, None)):
        with PolicyClient(url, ca=ca, timeout_s=WAIT_S) as client, pytest.raises(WireClosed):
            client.connect()


def test_files_that_are_no_certificate_are_refused(batcher, tmp_path):
    with pytest.raises(InputError, match="certificate"):
        PolicyServer(batcher(), {}, tls=(tmp_path / "none.pem", tmp_path / "none.key"))
