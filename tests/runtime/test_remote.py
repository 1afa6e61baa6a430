"""A policy server as a source, on loopback: ours and an unchanged one in openpi's manner, gone, hung, back, another."""

import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest

from ontick.errors import InputError, RunFailed
from ontick.runtime import WallClock, load_budget
from ontick.runtime.channel import FINE, FULL, LATE, LOST, REFUSED, Asked
from ontick.runtime.questions import Question

sync = pytest.importorskip("websockets.sync.server", reason="the wire needs the package websockets")
pytest.importorskip("msgpack", reason="the wire needs the package msgpack")

from ontick.runtime.remote import SILENT, RemoteSource  # noqa: E402
from ontick.runtime.wire.batching import Batcher  # noqa: E402
from ontick.runtime.wire.client import PolicyClient  # noqa: E402
from ontick.runtime.wire.codec import pack, unpack  # noqa: E402
from ontick.runtime.wire.server import PolicyServer  # noqa: E402

WAIT_S, SOON_S = 10.0, 0.15
CARD = {
    "n_obs_steps": 1,
    "n_action_steps": 2,
    "observation_dim": 3,
    "action_dim": 2,
    "rows": 4,
    "plans": ["dear", "cheap"],
    "costs_s": [0.02, 0.01],
    "can_inpaint": False,
    "continues": False,
}


class Seeded:
    """Answers [4, 2] with its lane's seed and how many answers it has given since."""

    n_obs_steps, n_action_steps, observation_dim, action_dim, calls_per_chunk = 1, 2, 3, 2, 1

    def __init__(self, gate):
        self.gate, self.seeds, self.answers = gate, {}, {}

    def reset(self, lanes, seeds):
        for lane, seed in zip(lanes, seeds, strict=True):
            self.seeds[lane], self.answers[lane] = seed, 0

    def predict_with_tail(self, obs, lanes):
        self.gate.wait(WAIT_S)
        if (obs == 666).any():
            raise MemoryError
        rows = [np.repeat(np.float32([[self.seeds[lane], self.answers[lane]]]), 4, 0) for lane in lanes]
        for lane in lanes:
            self.answers[lane] += 1
        return np.stack(rows)

    def predict_action_chunk(self, obs, lanes):
        return self.predict_with_tail(obs, lanes)[:, :2]

    def select_action(self, obs):
        raise NotImplementedError


@pytest.fixture
def gate():
    held = threading.Event()
    held.set()
    yield held
    held.set()


@pytest.fixture
def serve(gate):
    """serve(port, metadata) -> a server of ours."""
    with ExitStack() as stack:
        batcher = stack.enter_context(Batcher(lambda width: [Seeded(gate)], ["toy"], load_budget("cpu-20hz")))
        batcher.wait(WAIT_S)

        def begin(port=0, **metadata):
            server = PolicyServer(batcher, metadata, port=port).start()
            stack.callback(server.stop)
            return server

        yield begin


@pytest.fixture
def scripted():
    """scripted(handler, metadata) -> the URL of a server whose connections are handled so, after its metadata."""
    servers = []

    def begin(handler, metadata):
        def handle(connection):
            connection.send(pack(metadata))
            handler(connection)

        server = sync.serve(handle, "127.0.0.1", 0, compression=None)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"ws://127.0.0.1:{server.socket.getsockname()[1]}"

    yield begin
    for server in servers:
        server.shutdown()


@pytest.fixture
def source():
    """source(url, ...) -> a RemoteSource, closed after the test."""
    with ExitStack() as stack:

        def begin(url, *inputs, **options):
            made = RemoteSource(PolicyClient(url, **options.pop("client", {})), *inputs, **options)
            stack.callback(made.close)
            return made

        yield begin


def asked(n=1, value=0.0, begins=False, seed=9, deadline_s=WAIT_S, since_s=0.0, dim=3):
    question = Question((0,), np.full((1, 1, dim), value, np.float32), (0,))
    time_s = WallClock().now() - since_s
    return Asked(n, time_s, time_s, deadline_s, seed, begins, question)


def rest(seconds):
    clock = WallClock()
    clock.sleep_until(clock.now() + seconds)


def until_answered(source, **options):
    """Ask as a controller does, again and again; the first answer, and what became of the questions before it."""
    clock, states = WallClock(), []
    end_s = clock.now() + WAIT_S
    while clock.now() < end_s:
        told = source.answer(asked(**options))
        if told.state == FINE:
            return told, states
        states.append(told.state)
        rest(0.02)
    raise AssertionError(states)


# -- ours -------------------------------------------------------------------------------------------------------------


def test_a_server_of_ours_says_what_it_is_and_answers(serve, source):
    terms = {"name": "arm", "period_ms": 50.0}
    asks = source(serve(robot=terms).url)
    assert asks.card.rows == 4 and asks.card.plans == ("toy",) and asks.card.robot == terms
    told = asks.answer(asked(7, begins=True, seed=5))
    assert (told.id, told.state, told.rung, told.given.steps) == (7, FINE, 0, 2)
    assert told.given.rows.tolist() == [[5, 0]] * 4 and told.latency_s >= told.device_s > 0
    assert asks.answer(asked(8)).given.rows[0].tolist() == [5, 1]
    assert asks.answer(asked(9, begins=True, seed=6)).given.rows[0].tolist() == [6, 0]


def test_an_answer_that_does_not_come_in_time_is_given_up_and_never_taken_for_another(serve, source, gate):
    asks = source(serve().url)
    gate.clear()
    told = asks.answer(asked(1, begins=True, deadline_s=SOON_S))
    assert told.state == LATE and SOON_S <= told.latency_s < SOON_S + 0.5
    gate.set()
    told = asks.answer(asked(2, begins=True))
    assert told.state == FINE and told.discarded == 1


def test_a_question_without_time_left_is_not_asked_and_the_connection_stands(serve, source):
    server = serve()
    asks = source(server.url)
    told = asks.answer(asked(1, begins=True, since_s=1.0, deadline_s=0.5))
    assert told.state == LATE and "no time" in told.reason
    assert asks.answer(asked(2, begins=True)).state == FINE
    for _ in range(100):  # it is counted once it is sent
        if server.served.requests:
            break
        time.sleep(0.02)
    assert server.served.requests == 1 and server.served.clients == 1 and not server.served.refused


def test_a_server_that_goes_and_comes_back_is_asked_again_with_the_seed(serve, source):
    server = serve()
    asks, port = source(server.url), int(server.url.rsplit(":", 1)[1])
    asks.answer(asked(1, begins=True, seed=5))
    server.stop()
    for n in range(2, 12):
        told = asks.answer(asked(n))
        assert told.state == LOST and told.reason
    assert asks.answer(asked(12)).latency_s < 0.05  # it is not time to try again
    serve(port)
    told, states = until_answered(asks, seed=5)
    assert told.given.rows[0].tolist() == [5, 0] and set(states) <= {LOST}


def test_waits_between_tries_grow_and_an_answer_ends_them(serve, source, monkeypatch):
    server = serve()
    asks, port = source(server.url), int(server.url.rsplit(":", 1)[1])
    asks.answer(asked(1, begins=True))
    server.stop()
    tries, connect = [], asks.client.connect

    def counted(timeout_s):
        tries.append(WallClock().now())
        return connect(timeout_s)

    monkeypatch.setattr(asks.client, "connect", counted)
    clock = WallClock()
    end_s = clock.now() + 1.0
    while clock.now() < end_s:
        asks.answer(asked())
        rest(0.005)
    assert 3 <= len(tries) <= 6  # waits of 0.05 to 0.1 s, 0.1 to 0.2, 0.2 to 0.4, 0.4 to 0.8
    serve(port)
    until_answered(asks, begins=True)
    assert asks._again_s < clock.now() and next(asks._waits) <= 0.1


@pytest.mark.parametrize("metadata", [{"task": "another"}, {"robot": {"name": "another"}}, {"rows": 3}])
def test_a_server_that_comes_back_with_another_policy_is_not_asked(serve, source, metadata):
    server = serve()
    asks, port = source(server.url), int(server.url.rsplit(":", 1)[1])
    server.stop()
    another = serve(port, **metadata)
    asks.answer(asked(1, begins=True))
    rest(0.12)
    told = asks.answer(asked(2, begins=True))
    assert told.state == LOST and "another policy" in told.reason
    assert another.served.clients >= 1 and another.served.requests == 0
    another.stop()
    serve(port, costs_s=[0.5])  # the same, on a slower day
    until_answered(asks, begins=True)


def test_after_three_questions_without_a_word_the_connection_is_made_anew(scripted, source):
    """As where a network failed and nobody said so."""
    connections = []

    def handler(connection):
        connections.append(connection)
        for message in connection:
            if len(connections) > 1:
                number = unpack(message)["ontick"]["request"]
                connection.send(pack({"actions": np.zeros((4, 2), np.float32), "ontick": {"request": number}}))

    asks = source(scripted(handler, {"ontick": CARD}))
    for n in range(SILENT):
        assert len(connections) <= 1  # none yet where the server's thread has not begun
        assert asks.answer(asked(n, deadline_s=0.05)).state == LATE
    assert asks.answer(asked(9)).state == FINE and len(connections) == 2


def test_a_server_that_has_no_time_or_memory_says_so_and_its_connection_stands(scripted, source, serve):
    connections = []

    def handler(connection):
        connections.append(connection)
        for message in connection:
            connection.send(pack({"ontick": {"request": unpack(message)["ontick"]["request"], "late": "busy"}}))

    asks = source(scripted(handler, {"ontick": CARD}))
    assert [asks.answer(asked(n)).state for n in range(2 * SILENT)] == [LATE] * 2 * SILENT and len(connections) == 1
    asks = source(serve().url)
    told = asks.answer(asked(1, value=666.0, begins=True))
    assert told.state == FULL and "memory" in told.reason
    assert asks.answer(asked(2, begins=True)).state == FINE and asks.client.is_connected


@pytest.mark.parametrize(
    "keys",
    [
        {"steps": "x"},
        {"steps": 0},
        {"steps": 5},
        {"steps": 2.0},
        {"steps": True},
        {"rung": 2},
        {"rung": -1},
        {"calls": -1},
        {"calls": 10**6},
        {"share": 0.0},
        {"share": float("nan")},
        {"share": float("inf")},
        {"share": None},
        {"device_ms": float("nan")},
        {"device_ms": -1.0},
        {"device_ms": b"1"},
        {"rows": np.zeros((4, 2), np.int64)},
        {"rows": np.zeros((1, 2), np.float32)},
        {"rows": np.zeros((4, 3), np.float32)},
        {"rows": np.zeros(8, np.float32)},
    ],
    ids=range(20),
)
def test_a_reply_that_no_answer_can_be_is_refused_with_the_reason(scripted, source, keys):
    def handler(connection):
        for message in connection:
            number = unpack(message)["ontick"]["request"]
            bad = dict(keys) if number == 1 else {}
            rows = bad.pop("rows", np.zeros((6, 2)))
            connection.send(pack({"actions": rows, "ontick": {"request": number, **bad}}))

    asks = source(scripted(handler, {"ontick": CARD}))
    told = asks.answer(asked(1))
    assert told.state == REFUSED and told.reason.startswith("got ") and told.given is None
    told = asks.answer(asked(2))
    assert told.state == FINE and told.given.rows.shape == (4, 2) and told.given.rows.dtype == np.float32
    assert told.given[1:] == (2, 1, 1.0)


# -- openpi's ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def openpi(scripted):
    """openpi(key) -> the URL of a server that knows nothing of us, and what it heard."""

    def begin(*keys, rows=5):
        heard = []

        def handler(connection):
            for message in connection:
                observation = unpack(message)
                heard.append(observation)
                if set(observation) != set(keys):
                    connection.send(f"Traceback (most recent call last):\nKeyError: {keys[0]!r}\n")
                    connection.close(1011)
                    return
                state = np.asarray(observation[keys[0]], np.float64)
                actions = np.repeat(state[None, :2], rows, 0)
                connection.send(pack({"actions": actions, "server_timing": {"infer_ms": 3.5}}))

        return scripted(handler, {}), heard

    return begin


def test_an_unchanged_openpi_server_is_probed_and_asked(openpi, source):
    url, heard = openpi("observation/state")
    asks = source(url, 3, (4, 2), client={"observation_key": "observation/state"})
    card = asks.card
    assert (card.n_obs_steps, card.n_action_steps, card.rows, card.plans) == (1, 3, 5, ("server",))
    assert heard[0]["observation/state"].tolist() == [0, 0, 0, 0]
    told = asks.answer(asked(1, value=2.0, begins=True, dim=4))
    assert told.state == FINE and told.given.rows.tolist() == [[2, 2]] * 5 and told.given.steps == 3
    assert told.given.rows.dtype == np.float32 and heard[1].keys() == {"observation/state"}
    assert source(url, dims=(4, 2), client={"observation_key": "observation/state"}).card.n_action_steps == 5


def test_a_foreign_server_is_told_the_parts_that_it_wants(openpi, source):
    url, heard = openpi("observation/joint_position", "observation/gripper", "prompt")
    parts = {"observation/joint_position": [0, 3], "observation/gripper": [3, 4], "prompt": "pick up the cup"}
    asks = source(url, None, (4, 2), parts)
    question = Question((0,), np.float32([[[1, 2, 3, 4]]]), (0,))
    told = asks.answer(asked(1)._replace(question=question))
    assert told.given.rows[0].tolist() == [1, 2]
    said = heard[-1]
    assert said["observation/joint_position"].tolist() == [1, 2, 3] and said["observation/gripper"].tolist() == [4]
    assert said["observation/gripper"].dtype == np.float32 and said["prompt"] == "pick up the cup"


@pytest.mark.parametrize(
    "parts", [{}, {"a": [0, 5]}, {"a": [2, 2]}, {"a": [-1, 2]}, {"a": [0.0, 2]}, {"a": None}, {1: "x"}, ["a"]]
)
def test_parts_that_the_observation_does_not_have_are_refused(parts):
    with pytest.raises(InputError):
        RemoteSource(PolicyClient("ws://127.0.0.1:1"), None, (4, 2), parts)


def test_a_server_that_wants_another_key_or_robot_is_refused_in_one_line(openpi, source):
    url, _ = openpi("observation/state")
    with pytest.raises(RunFailed, match="KeyError"):
        source(url, dims=(4, 2))
    with pytest.raises(RunFailed, match="for this robot"):
        source(url, dims=(4, 3), client={"observation_key": "observation/state"})
    with pytest.raises(InputError, match="does not say"):
        source(url)


def test_after_a_late_reply_a_foreign_server_is_asked_on_a_new_connection(scripted, source):
    connections, gate = [], threading.Event()

    def handler(connection):
        connections.append(connection)
        for _ in connection:
            if len(connections) == 2:
                gate.wait(WAIT_S)
            connection.send(pack({"actions": np.full((2, 2), len(connections), np.float64)}))

    url = scripted(handler, {})
    asks = source(url, dims=(3, 2))
    asks.client.drop()
    asks._is_connected = False
    assert asks.answer(asked(1, deadline_s=SOON_S)).state == LATE
    told, _ = until_answered(asks)
    assert told.given.rows[0, 0] == len(connections) == 3
    gate.set()


def test_where_no_server_is_that_is_said():
    with pytest.raises(RunFailed, match="no policy server at"):
        RemoteSource(PolicyClient("ws://127.0.0.1:1"))
