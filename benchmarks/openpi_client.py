"""An unchanged openpi client plays an episode against `ontick serve`.

    python benchmarks/openpi_client.py --json benchmarks/results/openpi-client.json

The client is the package `openpi-client` as it is published, from a folder or wheel (--package), or installed with pip
into runs/openpi-client, without its requirements, which are here in newer versions. It connects, asks with the last
observations of ontick/Avoid-v0, and plays the rows that the server's metadata says are to be executed.
"""

import argparse
import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ontick.commands.families import ASSETS
from ontick.envs import evaluation_seeds, find_task
from ontick.errors import RunFailed
from ontick.files import check_place, write_whole
from ontick.runtime import WallClock, describe_machine

TASK, CHECKPOINT = "ontick/Avoid-v0", ASSETS / "diffusion-transformer" / "ontick-Avoid-v0"
PACKAGE, PLACE = "openpi-client", Path("runs") / "openpi-client"


def openpi_client(place: Path) -> Any:
    """The module with openpi's client, of a folder or wheel, which is installed where it is not there. Raises RunFailed
    where it cannot be had."""
    if not place.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RunFailed(f"{PACKAGE} cannot be had: {done.stderr.strip().splitlines()[-1:]}")
    sys.path.insert(0, str(place))
    try:
        return importlib.import_module("openpi_client.websocket_client_policy")
    finally:
        sys.path.remove(str(place))


@contextmanager
def server(*options: str) -> Iterator[str]:
    """The URL of an `ontick serve` of the shipped policy."""
    command = [sys.executable, "-m", "ontick", "serve", str(CHECKPOINT), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        if not ready.startswith("ready at "):
            raise RunFailed(f"the server did not start: {ready or process.wait()}")
        yield ready.split()[2].rstrip(":")
    finally:
        process.terminate()
        process.communicate()


def play(client: Any, seed: int) -> dict[str, Any]:
    """An episode with openpi's client: what became of it, and how long each answer took."""
    told = client.get_server_metadata()["ontick"]
    env, clock = find_task(TASK).make(), WallClock()
    observation, _ = env.reset(seed=seed)
    history = [np.asarray(observation, np.float32)] * told["n_obs_steps"]
    taken_s, steps, success, over = [], 0, False, False
    while not over:
        start_s = clock.now()
        reply = client.infer({"observation": np.stack(history)})
        taken_s.append(clock.now() - start_s)
        for action in reply["actions"][: told["n_action_steps"]]:
            observation, _, terminated, truncated, info = env.step(np.clip(action, -1, 1))
            history = [*history[1:], np.asarray(observation, np.float32)]
            steps, success = steps + 1, success or bool(info["success"])
            over = terminated or truncated or success
            if over:
                break
    env.close()
    p50, p99 = np.percentile(taken_s, (50, 99)) * 1e3
    return {
        "seed": int(seed),
        "success": success,
        "steps": steps,
        "answers": len(taken_s),
        "answer_ms": {"p50": p50, "p99": p99},
        "server_timing": reply["server_timing"],
    }


def episodes(place: Path, n: int, *options: str) -> dict[str, Any]:
    """Episodes of one connection; and which client that was."""
    module = openpi_client(place)
    with server(*options) as url:
        host, port = url.removeprefix("ws://").split(":")
        client = module.WebsocketClientPolicy(host, int(port))
        played = [play(client, seed) for seed in evaluation_seeds(0, n)]
    source = module.__loader__.get_source(module.__name__).encode()
    return {
        "package": PACKAGE,
        "client_sha256": hashlib.sha256(source).hexdigest(),
        "task": TASK,
        "episodes": played,
        "successes": sum(episode["success"] for episode in played),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=PLACE, help="folder or wheel of openpi-client")
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--json", required=True)
    options = parser.parse_args()
    check_place(options.json)
    document = {"format": "ontick-openpi-client-1", "machine": describe_machine()}
    document |= episodes(options.package, options.episodes)
    for episode in document["episodes"]:
        ms = episode["answer_ms"]
        told = (
            f"seed {episode['seed']}: {'solved' if episode['success'] else 'not solved'} in {episode['steps']} steps, "
        )
        print(told + f"{episode['answers']} answers, p50 {ms['p50']:.2f} ms, p99 {ms['p99']:.2f} ms")
    print(f"{document['successes']} of {len(document['episodes'])} solved")
    write_whole(options.json, json.dumps(document, indent=1) + "\n")
    print(f"json: {options.json}")


if __name__ == "__main__":
    main()
