"""Serving beside asking in place: latency added, and requests a second beside a server that answers one at a time.

    python benchmarks/serve.py --json benchmarks/results/serve-cpu.json

In one run, with one policy and one codec: answers in this process; `ontick serve`'s server; and a server in the manner
of openpi's, which computes on its event loop, one question at a time, of whoever's turn it is. Each is asked by 1, 4
and 16 clients, threads of one other process, which ask again as soon as they are answered. The two servers take turns,
round by round, so that whatever else the machine does falls on both. Replies are counted from the moment the clients
are all warm. Prints and writes p50 and p99 of a reply, requests a second, and how wide the batches were.
"""

import argparse
import asyncio
import json
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ontick.commands.families import ASSETS, candidate_of, policy_maker, with_schedule_of
from ontick.commands.serve import make_policies
from ontick.diffusion import load_plan
from ontick.files import check_place, write_whole
from ontick.runtime import Policy, WallClock, describe_machine, load_budget
from ontick.runtime.wire.batching import Batcher
from ontick.runtime.wire.client import PolicyClient
from ontick.runtime.wire.codec import pack, unpack
from ontick.runtime.wire.server import SWITCH_S, PolicyServer

CHECKPOINT, PLAN = ASSETS / "diffusion-transformer" / "ontick-Avoid-v0", "exact-ddim-10"
CLIENTS, ROUNDS, SECONDS, WARM_UP = (1, 4, 16), 3, 4.0, 5
WAIT_S = 60.0


def main() -> None:
    options = _options()
    check_place(options.json)
    import torch

    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH_S)  # as `ontick serve` does
    budget = load_budget(options.budget)
    candidate = with_schedule_of(candidate_of(load_plan(options.plan)), options.checkpoint)
    make = policy_maker(candidate, options.checkpoint, options.device, tail=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    load = context.Process(target=_load, args=(theirs,), daemon=True)
    load.start()
    theirs.close()
    document: dict[str, Any] = {
        "format": "ontick-serve-benchmark-1",
        "machine": describe_machine(),
        "device": options.device,
        "checkpoint": options.checkpoint.name,
        "plan": options.plan,
        "budget": budget.to_dict(),
        "rounds": options.rounds,
        "seconds_a_round": options.seconds,
    }
    with Batcher(lambda width: make_policies([make], width), [options.plan], budget, max(CLIENTS)) as batcher:
        batcher.wait()
        document["in_process_ms"] = _in_process(make(1), options.seconds)
        document["costs_ms"] = {str(width): s * 1e3 for (_, width), s in batcher.medians_s.items()}
        document["rows"] = _rows(batcher, make, ours, options)
    ours.send(None)
    load.join(WAIT_S)
    _judge(document, budget)
    _print(document)
    write_whole(options.json, json.dumps(document, indent=1) + "\n")
    print(f"json: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--plan", default=PLAN)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--budget", default="cpu-20hz")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a round")
    parser.add_argument("--json", required=True)
    return parser.parse_args()


def _rows(
    batcher: Batcher, make: Callable[[int], Policy], load: Any, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Every server with every number of clients, in turn."""
    rows = []
    for clients in CLIENTS:
        seconds: dict[str, list[float]] = {"ontick": [], "one at a time": []}
        rates: dict[str, list[float]] = {"ontick": [], "one at a time": []}
        device: dict[str, list[float]] = {"ontick": [], "one at a time": []}
        batches_before = dict(batcher.batches)
        for _ in range(options.rounds):
            for name, serving in (("ontick", _ours(batcher)), ("one at a time", _one_at_a_time(make))):
                with serving as url:
                    load.send((url, clients, options.seconds, batcher.facts["observation_dim"]))
                    if not load.poll(options.seconds + WAIT_S):
                        raise TimeoutError(f"no client of {name} came back")
                    latencies_s, device_ms, lasted_s = load.recv()
                seconds[name] += latencies_s
                device[name] += device_ms
                rates[name].append(len(latencies_s) / lasted_s)
        batches = {str(n): m - batches_before.get(n, 0) for n, m in sorted(batcher.batches.items())}
        for name in seconds:
            rows.append(
                {
                    "server": name,
                    "clients": clients,
                    "n": len(seconds[name]),
                    "reply_ms": _summary(np.array(seconds[name]) * 1e3),
                    "device_ms": _summary(np.array(device[name])),
                    "requests_per_s": float(np.median(rates[name])),
                    "requests_per_s_by_round": [round(rate, 2) for rate in rates[name]],
                    "batches": {n: m for n, m in batches.items() if m}
                    if name == "ontick"
                    else {"1": len(seconds[name])},
                }
            )
    return rows


def _in_process(policy: Policy, seconds: float) -> dict[str, float]:
    """What an answer takes without a wire, asked in a row."""
    clock, taken_s = WallClock(), []
    obs = np.zeros((1, policy.n_obs_steps, policy.observation_dim), np.float32)
    policy.reset([0], [0])
    for _ in range(WARM_UP):
        policy.predict_with_tail(obs, [0])
    end_s = clock.now() + seconds
    while (start_s := clock.now()) < end_s:
        policy.predict_with_tail(obs, [0])
        taken_s.append(clock.now() - start_s)
    return _summary(np.array(taken_s) * 1e3)


def _summary(ms: np.ndarray) -> dict[str, float]:
    p50, p99 = np.percentile(ms, (50, 99))
    return {"n": len(ms), "p50": float(p50), "p99": float(p99), "max": float(ms.max())}


# -- servers ----------------------------------------------------------------------------------------------------------


@contextmanager
def _ours(batcher: Batcher) -> Iterator[str]:
    with PolicyServer(batcher, {}) as server:
        yield server.url


@contextmanager
def _one_at_a_time(make: Callable[[int], Policy]) -> Iterator[str]:
    """Receive, compute, send, all in the event loop's thread, where the policy is made: it belongs to its thread."""
    from websockets.asyncio.server import serve

    lanes, started, told = iter(range(1 << 20)), threading.Event(), {}

    async def attend(connection: Any) -> None:
        lane, policy = next(lanes), told["policy"]
        policy.reset([lane], [lane])
        history: np.ndarray | None = None
        await connection.send(pack({}))
        async for message in connection:
            obs = unpack(message)["observation"]
            steps = policy.n_obs_steps
            history = np.repeat(obs[None], steps, 0) if history is None else np.concatenate([history[1:], obs[None]])
            clock = WallClock()
            start_s = clock.now()
            rows = policy.predict_with_tail(history[None], [lane])[0]
            timing = {"infer_ms": (clock.now() - start_s) * 1e3}
            await connection.send(pack({"actions": rows, "server_timing": timing}))

    async def run() -> None:
        told["policy"] = make(1)
        told["loop"], told["ended"] = asyncio.get_running_loop(), asyncio.Event()
        options: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None}
        async with serve(attend, "127.0.0.1", 0, **options) as server:
            told["url"] = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            started.set()
            await told["ended"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    started.wait(WAIT_S)
    try:
        yield told["url"]
    finally:
        told["loop"].call_soon_threadsafe(told["ended"].set)
        thread.join()


# -- clients, in a process of their own -------------------------------------------------------------------------------


def _load(pipe: Any) -> None:
    while (asked := pipe.recv()) is not None:
        pipe.send(_ask(*asked))


def _ask(url: str, clients: int, seconds: float, width: int) -> tuple[list[float], list[float], float]:
    """Latencies [s] and device times [ms] of all clients, and how long they asked [s]."""
    taken: list[list[float]] = [[] for _ in range(clients)]
    device: list[list[float]] = [[] for _ in range(clients)]
    warm = threading.Barrier(clients)
    clock = WallClock()

    def ask(i: int, note: Callable[[float, float], None]) -> None:
        observation = np.random.default_rng(i).uniform(-0.1, 0.1, width).astype(np.float32)
        with PolicyClient(url, timeout_s=WAIT_S) as client:
            client.connect()
            for _ in range(WARM_UP):
                client.ask(observation)
            warm.wait(WAIT_S)
            end_s = clock.now() + seconds
            while (start_s := clock.now()) < end_s:
                reply = client.ask(observation)
                note(clock.now() - start_s, reply.metadata["server_timing"]["infer_ms"])

    def noter(i: int) -> Callable[[float, float], None]:
        def note(latency_s: float, device_ms: float) -> None:
            taken[i].append(latency_s)
            device[i].append(device_ms)

        return note

    threads = [threading.Thread(target=ask, args=(i, noter(i))) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not all(taken):
        raise RuntimeError("a client was not answered")
    return [s for one in taken for s in one], [ms for one in device for ms in one], seconds


# -- what is told -----------------------------------------------------------------------------------------------------


def _judge(document: dict[str, Any], budget: Any) -> None:
    alone = document["in_process_ms"]
    for row in document["rows"]:
        if row["clients"] == 1:
            row["added_ms"] = {p: row["reply_ms"][p] - alone[p] for p in ("p50", "p99")}
        row["met"] = bool(row["reply_ms"]["p99"] <= budget.deadline_s * 1e3)


def _print(document: dict[str, Any]) -> None:
    alone, machine = document["in_process_ms"], document["machine"]
    print(f"\nin process: p50 {alone['p50']:.2f} ms, p99 {alone['p99']:.2f} ms, n {alone['n']}")
    for row in document["rows"]:
        ms, added = row["reply_ms"], row.get("added_ms")
        told = f"{row['server']:14} {row['clients']:3} clients: {row['requests_per_s']:7.1f} requests/s, "
        told += f"reply p50 {ms['p50']:7.2f} ms, p99 {ms['p99']:7.2f} ms, n {row['n']}, batches {row['batches']}"
        told += f", added p50 {added['p50']:.2f} ms, p99 {added['p99']:.2f} ms" if added else ""
        print(told + (", met" if row["met"] else ", missed"))
    print(f"{machine['cpu']}, {machine['cores']} cores, {document['device']}; plan {document['plan']}")


if __name__ == "__main__":
    main()
