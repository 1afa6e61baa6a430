"""Nonsense on the wire: fuzzed frames against a running policy server, while a good client is served beside them.

    python benchmarks/wire_fuzz.py --json benchmarks/results/wire-fuzz.json

The server runs in a process of its own, with a policy whose answer is known. Every fuzzed frame is sent over a socket,
most on a connection of their own, since the server closes what is nonsense; what is read correctly all the same is
answered. As many again go through the codec alone. Told: what became of each kind, connections that did not end,
replies of the good client that were wrong, and the memory of the server, of which the first tenth is warm-up.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ontick.files import check_place, write_whole
from ontick.runtime import WallClock, describe_machine, load_budget
from ontick.runtime.wire.batching import Batcher
from ontick.runtime.wire.client import PolicyClient
from ontick.runtime.wire.codec import LARGEST_MESSAGE, WireError, pack, package, unpack
from ontick.runtime.wire.server import PolicyServer

FRAMES, AT_ONCE, END_S, GOOD_PERIOD_S = 100_000, 16, 10.0, 0.005
SHORT_S, NO_FRAME = 0.5, "no frame"
BINARY, TEXT = 0x82, 0x81
LANES = 64


class Known:
    """Answers with the sum of the newest observation."""

    n_obs_steps, n_action_steps, observation_dim, action_dim, calls_per_chunk = 2, 4, 3, 2, 1

    def reset(self, lanes: Any, seeds: Any) -> None:
        pass

    def adopt(self, lanes: Any, last: Any, answers: Any) -> None:
        pass

    def predict_with_tail(self, obs: np.ndarray, lanes: Any) -> np.ndarray:
        return np.broadcast_to(obs[:, -1].sum(-1)[:, None, None], (len(lanes), 8, 2)).astype(np.float32)

    predict_action_chunk = predict_with_tail

    def select_action(self, obs: np.ndarray) -> np.ndarray:
        return self.predict_with_tail(obs[:, None], range(len(obs)))[:, 0]


def serve(pipe: Any) -> None:
    """In the server's process: serve until told to end."""
    batcher = Batcher(lambda width: [Known()], ["known"], load_budget("cpu-20hz"), LANES)
    with batcher, PolicyServer(batcher, {}) as server:
        batcher.wait()
        pipe.send((server.url, os.getpid()))
        pipe.recv()
        server.stop()
        pipe.send(server.served.to_dict())


# -- frames -----------------------------------------------------------------------------------------------------------

Frame = tuple[int, bytes]  # the first byte of its header, its content


def valid(rng: np.random.Generator) -> bytes:
    keys = {"request": int(rng.integers(1 << 40)), "seed": int(rng.integers(1 << 40)), "deadline_s": 0.5}
    message: dict[str, Any] = {"observation": rng.normal(size=(3,)).astype(np.float32)}
    if rng.random() < 0.5:
        message["ontick"] = keys
    return pack(message)


def random_bytes(rng: np.random.Generator) -> Frame:
    return BINARY, rng.bytes(int(rng.integers(0, 300)))


def mutated(rng: np.random.Generator) -> Frame:
    data = bytearray(valid(rng))
    for _ in range(int(rng.integers(1, 5))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    return BINARY, bytes(data)


def truncated(rng: np.random.Generator) -> Frame:
    data = valid(rng)
    return BINARY, data[: int(rng.integers(len(data)))]


def nested(rng: np.random.Generator) -> Frame:
    opening = (b"\x91", b"\x81\xa1x", b"\xdc\x0f\xff", b"\xdd\xff\xff\xff\xff")[int(rng.integers(4))]
    return BINARY, opening * int(rng.integers(1, 3000))


def crowded(rng: np.random.Generator) -> Frame:
    part = (b"\x80", b"\x90", b"\xa2xy", b"\xcb\0\0\0\0\0\0\0\0")[int(rng.integers(4))]
    return BINARY, (b"\xdc\x0f\xff" + part * 4095) * int(rng.integers(1, 12))


def huge(rng: np.random.Generator) -> Frame:
    shape = [int(2 ** rng.uniform(0, 63)) for _ in range(int(rng.integers(0, 6)))]
    return BINARY, _array(b"\0" * int(rng.integers(0, 64)), "<f4", shape)


def odd_dtype(rng: np.random.Generator) -> Frame:
    dtypes = (
        "|O",
        "<c8",
        "|V8",
        "<f3",
        "f4,f4",
        "<U0",
        "<U99999",
        "O8",
        "",
        "<M8[ns]",
        ">f2",
        "|b1",
        "<f16",
        "x" * 999,
    )
    return BINARY, _array(rng.bytes(12), dtypes[int(rng.integers(len(dtypes)))], [3])


def odd_numbers(rng: np.random.Generator) -> Frame:
    value = (np.nan, np.inf, -np.inf, 3e38, 1e300)[int(rng.integers(5))]
    obs = np.array([0, value, 0], (np.float32, np.float64)[int(rng.integers(2))]) if abs(value) < 1e39 else None
    return BINARY, pack({"observation": np.array([0, value, 0]) if obs is None else obs})


def odd_keys(rng: np.random.Generator) -> Frame:
    values = (-1, 2**63, 1.5, float("nan"), None, True, "x" * 50, b"x", [1], {"a": 1}, np.float32(1), np.zeros((2, 2)))
    names = ("request", "seed", "deadline_s", "behind", "kept", "fixed", "rung", "observed_s")
    keys = {str(rng.choice(names)): values[int(rng.integers(len(values)))] for _ in range(3)}
    return BINARY, pack({"observation": np.zeros(3, np.float32), "ontick": keys})


def text(rng: np.random.Generator) -> Frame:
    return TEXT, rng.bytes(40) if rng.random() < 0.5 else b"hello"


def oversized(rng: np.random.Generator) -> Frame:
    return BINARY, b"\0" * (LARGEST_MESSAGE + 1)


def no_frame(rng: np.random.Generator) -> Frame:
    """Opcodes and bits that nobody defined."""
    return int(rng.integers(256)), rng.bytes(int(rng.integers(0, 120)))


def _array(data: bytes, dtype: str, shape: list[int]) -> bytes:
    msgpack = package("msgpack")
    array = {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}
    return msgpack.packb({"observation": array})


# kind: (how it is made, its share)
KINDS: dict[str, tuple[Callable[[np.random.Generator], Frame], float]] = {
    "random": (random_bytes, 0.16),
    "mutated": (mutated, 0.3),
    "truncated": (truncated, 0.12),
    "nested": (nested, 0.06),
    "crowded": (crowded, 0.0195),
    "huge shape": (huge, 0.08),
    "dtype": (odd_dtype, 0.06),
    "numbers": (odd_numbers, 0.05),
    "keys": (odd_keys, 0.08),
    "text": (text, 0.03),
    "oversized": (oversized, 0.0005),
    NO_FRAME: (no_frame, 0.04),
}


# -- sending ----------------------------------------------------------------------------------------------------------


def masked(frame: Frame) -> bytes:
    """A client's frame. The mask is zero, which the protocol allows and costs nothing."""
    first, content = frame
    n = len(content)
    length = (
        bytes([0x80 | n]) if n < 126 else struct.pack(">BH", 0xFE, n) if n < 1 << 16 else struct.pack(">BQ", 0xFF, n)
    )
    return bytes([first]) + length + b"\0\0\0\0" + content


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    first, n = await reader.readexactly(2)
    if n == 126:
        (n,) = struct.unpack(">H", await reader.readexactly(2))
    elif n == 127:
        (n,) = struct.unpack(">Q", await reader.readexactly(8))
    return first, await reader.readexactly(n)


class Sender:
    """A connection that is opened again when the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.connections = 0

    async def send(self, frame: Frame) -> str:
        """What became of it: "answered", or the code with which the connection was closed."""
        if self._streams is None:
            await self._open()
        assert self._streams is not None
        reader, writer = self._streams
        try:
            writer.write(masked(frame))
            await writer.drain()
            while True:
                first, content = await read_frame(reader)
                if first == BINARY:
                    return "answered"
                if first == 0x88:
                    code = struct.unpack(">H", content[:2])[0] if len(content) >= 2 else 1005
                    self.leave()
                    return f"closed, {code}"
        except (asyncio.IncompleteReadError, ConnectionError):
            self.leave()
            return "closed"

    def leave(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _open(self) -> None:
        while True:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            key = base64.b64encode(os.urandom(16)).decode()
            lines = ("GET / HTTP/1.1", f"Host: {self._host}:{self._port}", "Upgrade: websocket", "Connection: Upgrade")
            lines += (f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", "")
            writer.write("\r\n".join(lines).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " in head.splitlines()[0]:
                break
            writer.transport.abort()  # all lanes are taken by connections that are just ending
            await asyncio.sleep(0.01)
        self.connections += 1
        await read_frame(reader)  # the metadata
        self._streams = reader, writer


async def attack(url: str, frames: int, seed: int, note: Callable[[int], None]) -> tuple[dict[str, Counter], int]:
    """Outcomes by kind, and how many connections that took."""
    host, port = url.removeprefix("ws://").split(":")
    outcomes: dict[str, Counter] = defaultdict(Counter)
    names, shares = list(KINDS), np.array([share for _, share in KINDS.values()])
    left = iter(range(frames))
    senders = [Sender(host, int(port)) for _ in range(AT_ONCE)]

    async def one(i: int) -> None:
        rng = np.random.default_rng((seed, i))
        for n in left:
            kind = str(rng.choice(names, p=shares / shares.sum()))
            try:
                outcome = await asyncio.wait_for(
                    senders[i].send(KINDS[kind][0](rng)), SHORT_S if kind == NO_FRAME else END_S
                )
            except TimeoutError:
                # A frame that is not its message's last, or a ping, is no question: nothing has to come of it.
                outcome = "waits for more" if kind == NO_FRAME else "no end"
                senders[i].leave()
            outcomes[kind][outcome] += 1
            note(n)

    await asyncio.gather(*(one(i) for i in range(AT_ONCE)))
    for sender in senders:
        sender.leave()
    return outcomes, sum(sender.connections for sender in senders)


def through_the_codec(frames: int, seed: int) -> dict[str, Counter]:
    outcomes: dict[str, Counter] = defaultdict(Counter)
    rng = np.random.default_rng(seed)
    small = [kind for kind in KINDS if kind not in ("oversized", "text", NO_FRAME)]
    for _ in range(frames):
        kind = small[int(rng.integers(len(small)))]
        try:
            unpack(KINDS[kind][0](rng)[1])
        except WireError:
            outcomes[kind]["refused"] += 1
        except Exception as error:  # any other is a finding, and is counted
            outcomes[kind][f"raised {type(error).__name__}"] += 1
        else:
            outcomes[kind]["read"] += 1
    return outcomes


class Good:
    """A client that minds its own business, and checks every reply."""

    def __init__(self, url: str) -> None:
        self.n = self.wrong = self.lost = 0
        self.seconds: list[float] = []
        self._url, self._ends = url, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        rng, clock = np.random.default_rng(0), WallClock()
        with PolicyClient(self._url, timeout_s=END_S) as client:
            client.connect()
            while not self._ends.is_set():
                start_s = clock.now()
                obs = rng.normal(size=3).astype(np.float32)
                try:
                    rows = client.ask(obs).rows
                except WireError:
                    self.lost += 1
                    client.connect()
                    continue
                self.n += 1
                self.wrong += not (rows.shape == (8, 2) and np.allclose(rows, obs.sum(), atol=1e-5))
                self.seconds.append(clock.now() - start_s)
                clock.sleep_until(start_s + GOOD_PERIOD_S)


def memory_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    check_place(options.json)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    url, pid = ours.recv()
    memory: list[float] = []
    every = max(1, options.frames // 100)

    def note(n: int) -> None:
        if n % every == 0:
            memory.append(memory_mb(pid))

    good, clock = Good(url), WallClock()
    start_s = clock.now()
    outcomes, connections = asyncio.run(attack(url, options.frames, options.seed, note))
    lasted_s = clock.now() - start_s
    good.stop()
    alive = process.is_alive()
    codec = through_the_codec(options.frames, options.seed)
    ours.send(None)
    served = ours.recv()
    process.join(END_S)
    tenth = len(memory) // 10
    document = {
        "format": "ontick-wire-fuzz-1",
        "machine": describe_machine(),
        "frames": options.frames,
        "connections": connections,
        "seconds": lasted_s,
        "outcomes": {kind: dict(counts) for kind, counts in outcomes.items()},
        "codec": {kind: dict(counts) for kind, counts in codec.items()},
        "no_end": sum(counts["no end"] for counts in outcomes.values()),
        "crashed": not alive or process.exitcode != 0,
        "good": {"n": good.n, "wrong": good.wrong, "lost": good.lost, "p99_ms": _p99_ms(good.seconds)},
        "memory_mb": {"after_a_tenth": memory[tenth], "end": memory[-1], "most": max(memory)},
        "served": served,
    }
    for kind, counts in document["outcomes"].items():
        print(f"{kind:10}  {sum(counts.values()):6}: {', '.join(f'{k} {v}' for k, v in sorted(counts.items()))}")
    raised = {k: n for counts in codec.values() for k, n in counts.items() if k.startswith("raised")}
    print(f"codec alone, {options.frames} frames: {raised or 'nothing but WireError'}")
    told = f"{options.frames} frames on {connections} connections in {lasted_s:.0f} s: no end {document['no_end']}, "
    print(told + f"crashed {document['crashed']}; good client {document['good']}; memory MB {document['memory_mb']}")
    write_whole(options.json, json.dumps(document, indent=1) + "\n")
    print(f"json: {options.json}")


def _p99_ms(seconds: list[float]) -> float:
    return float(np.percentile(seconds, 99) * 1e3) if seconds else float("nan")


if __name__ == "__main__":
    main()
