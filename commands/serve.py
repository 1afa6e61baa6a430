"""Serve a policy on the network: to `ontick drive --policy ws://HOST:PORT`, and to unchanged openpi clients.

SRC is a bundle, or a checkpoint folder. It listens on this machine alone unless told otherwise; beyond it, it wants a
token. Ctrl-C ends it, and it tells what was served.
"""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..files import check_place, write_whole
from ..runtime import LatencyBudget, Policy, budget_names, describe_machine, load_budget
from ..runtime.wire.batching import Batcher
from ..runtime.wire.server import SWITCH_S, PolicyServer
from .families import check_device
from .sources import source_of, token_of

HOST, PORT = "127.0.0.1", 8000
USUAL_CLIENTS, MOST_CLIENTS = 16, 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ontick serve`."""
    parser.add_argument("source", metavar="SRC", help="a bundle, or a checkpoint folder")
    parser.add_argument(
        "--plan", metavar="P", help="a plan's name or YAML, or several joined by +, dearest first (default: SRC's)"
    )
    parser.add_argument("--host", default=HOST, metavar="H", help="address to listen at; 0.0.0.0 is every one")
    parser.add_argument("--port", type=int, default=PORT, metavar="P", help="port to listen at; 0 is any free one")
    parser.add_argument("--token-env", metavar="VAR", help="variable that holds the token which clients must show")
    parser.add_argument("--insecure", action="store_true", help="listen beyond this machine without a token")
    parser.add_argument("--tls-cert", type=Path, metavar="F", help="certificate, PEM: serve wss:// in place of ws://")
    parser.add_argument("--tls-key", type=Path, metavar="F", help="its key, PEM")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the policy runs")
    parser.add_argument(
        "--budget", metavar="NAME", help=f"{', '.join(budget_names())} (default: cpu-20hz, gpu-50hz on a GPU)"
    )
    parser.add_argument("--clients", type=int, default=USUAL_CLIENTS, metavar="N", help="most clients at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was served")


def run(options: argparse.Namespace) -> int:
    """Check, listen, warm up, serve until told to end."""
    if not 1 <= options.clients <= MOST_CLIENTS:
        raise InputError(f"--clients is {options.clients}, wanted 1 to {MOST_CLIENTS}")
    check_device(options.device)
    if options.json:
        check_place(options.json)
    budget = load_budget(options.budget or ("gpu-50hz" if options.device == "cuda" else "cpu-20hz"))
    token, tls, source = token_of(options.token_env), _tls(options), source_of(options.source, options.plan)
    metadata = {"version": __version__, "budget": budget.to_dict(), **source.told}
    makers = source.makers(options.device)
    batcher = Batcher(partial(make_policies, makers), source.names, budget, options.clients)
    say = partial(print, flush=True)
    server = PolicyServer(batcher, metadata, options.host, options.port, token, tls, options.insecure, told=say)
    ended = threading.Event()
    sys.setswitchinterval(SWITCH_S)
    with _signals(ended), server, batcher:
        if _warm(batcher, ended):
            say(_ready(server, batcher, budget))
            while not ended.wait(1.0):
                pass
            server.stop()  # clients are told before their questions are dropped
    _tell(options, server, batcher, budget)
    return 0


def make_policies(makers: Sequence[Callable[[int], Policy]], width: int) -> list[Policy]:
    """The policies of all plans at a width; called in the thread that asks them."""
    import torch

    torch.set_num_threads(1)  # timed and served as `evaluate` does
    return [make(width) for make in makers]


def _tls(options: argparse.Namespace) -> tuple[Path, Path] | None:
    if (options.tls_cert is None) != (options.tls_key is None):
        raise InputError("got one of --tls-cert and --tls-key, wanted both or neither")
    return None if options.tls_cert is None else (options.tls_cert, options.tls_key)


class _signals:
    """Ctrl-C and a service's stop end the serving, and nothing else."""

    def __init__(self, ended: threading.Event) -> None:
        self._ended, self._before = ended, {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, lambda *_: self._ended.set())

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _warm(batcher: Batcher, ended: threading.Event) -> bool:
    """Wait for the policies; False where it is to end before. Raises what making them raised."""
    while not ended.is_set():
        try:
            batcher.wait(0.1)
            return True
        except TimeoutError:
            continue
    return False


def _ready(server: PolicyServer, batcher: Batcher, budget: LatencyBudget) -> str:
    costs = ", ".join(
        f"{name} {cost_s * 1e3:.1f} ms" for name, cost_s in zip(batcher.names, batcher.facts["costs_s"], strict=True)
    )
    widest = max((width for width in batcher.widths if batcher.fits(0, width)), default=1)
    at = f"p{budget.percentile:g}, deadline {budget.deadline_s * 1e3:g} ms"
    return f"ready at {server.url}: {costs} ({at}), up to {widest} together; Ctrl-C ends"


def _tell(options: argparse.Namespace, server: PolicyServer, batcher: Batcher, budget: LatencyBudget) -> None:
    served = server.served
    told = {
        **served.to_dict(),
        "batches": {str(n): times for n, times in sorted(batcher.batches.items())},
        "plans": list(batcher.names),
        "budget": budget.to_dict(),
        "met": budget.met(served.seconds),
        "device": options.device,
        "machine": describe_machine(),
    }
    ms, refused = told["reply_ms"], sum(served.refused.values())
    verdict = "" if not served.requests else f", budget {budget.name} {'met' if told['met'] else 'missed'}"
    times = f"reply p50 {ms['p50']:.2f} ms, p99 {ms['p99']:.2f} ms{verdict}" if served.requests else "no reply timed"
    print(f"served {served.requests} requests of {served.clients} clients; {times}; {refused} refused", flush=True)
    if options.json:
        write_whole(options.json, json.dumps(told, indent=1) + "\n")
        print(f"json: {options.json}")
