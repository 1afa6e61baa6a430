"""`ontick serve`: warm, told, stopped by a signal, and told again; bad usage is one line."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from ontick.commands import main
from ontick.commands.sources import source_of
from ontick.errors import InputError, RunFailed
from ontick.runtime.wire.client import PolicyClient, WireRefused

pytest.importorskip("websockets", reason="the wire needs the package websockets")
pytest.importorskip("msgpack", reason="the wire needs the package msgpack")

PLAN = "ddim-2"


@pytest.fixture
def served(tiny_checkpoint):
    """served("--option", ...) -> a running `ontick serve` and its URL."""
    running = []

    def begin(*options, **environment):
        command = [sys.executable, "-m", "ontick", "serve", tiny_checkpoint, "--plan", PLAN, "--port", "0", *options]
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        ready = process.stdout.readline()
        assert ready.startswith("ready at ws://127.0.0.1:"), ready or process.stderr.read()
        return process, ready.split()[2].rstrip(":")

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_it_serves_until_ctrl_c_and_tells_what_it_served(served, tmp_path):
    process, url = served("--json", str(tmp_path / "served.json"))
    with PolicyClient(url, timeout_s=10) as client:
        told = client.connect()["ontick"]
        named = (told["plan"], told["task"], told["family"])
        assert named == (PLAN, "metaworld/pick-place-v3", "diffusion-transformer")
        first, again = (client.ask(np.zeros(39, np.float32), request={"seed": 3}).rows for _ in range(2))
        assert first.shape == (told["rows"], 4)
        np.testing.assert_array_equal(first, again)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and not err
    assert "client 1 (127.0.0.1) has come" in out and "served 2 requests of 1 clients" in out
    document = json.loads((tmp_path / "served.json").read_text())
    assert document["requests"] == 2 and document["plans"] == [PLAN] and document["reply_ms"]["n"] == 2


def test_a_token_is_read_from_the_environment_and_a_services_stop_ends_it_too(served):
    process, url = served("--token-env", "ROBOT_TOKEN", ROBOT_TOKEN="secret")
    with PolicyClient(url, "secret", timeout_s=10) as client:
        assert "ontick" in client.connect()
    with PolicyClient(url, timeout_s=10) as client, pytest.raises(WireRefused, match="401"):
        client.connect()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and "1 refused" in out


def test_plans_joined_by_a_plus_are_rungs(tiny_checkpoint):
    source = source_of(str(tiny_checkpoint), "ddim-4+ddim-2")
    assert [candidate.name for candidate in source.candidates] == ["ddim-4", "ddim-2"]
    assert [candidate.name for candidate in source_of(str(tiny_checkpoint), None).candidates] == ["exact-ddim-10"]


@pytest.mark.parametrize(
    "options, told",
    [
        (["--plan", "nonsense"], "nonsense"),
        (["--plan", "exact-diagonal-1"], "diagonal"),
        (["--host", "0.0.0.0"], "token"),
        (["--token-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE"),
        (["--tls-cert", "cert.pem"], "--tls-key"),
        (["--clients", "0"], "--clients"),
        (["--budget", "tomorrow"], "tomorrow"),
        (["--port", "70000"], "port"),
    ],
)
def test_bad_usage_is_one_line(tiny_checkpoint, capsys, options, told):
    assert main(["serve", str(tiny_checkpoint), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and told in error


def test_a_folder_that_is_neither_bundle_nor_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a checkpoint"):
        source_of(str(tmp_path), None)


@pytest.mark.slow
def test_an_unchanged_openpi_client_completes_an_episode(tmp_path):
    from ontick.benchmarks.openpi_client import episodes

    try:
        told = episodes(tmp_path / "openpi-client", 1)
    except RunFailed as error:
        pytest.skip(str(error))
    assert told["episodes"][0]["answers"] > 1 and told["episodes"][0]["steps"] > 1
