"""The bench counts what it says, compares at common noise, and tells every row against the peer."""

import dataclasses
import mmap

import numpy as np
import pytest
import torch

from ontick.benchmarks import policy as suite
from ontick.benchmarks.contestants import Anchored, Diagonal, Draft, Ours, Peer, Warm, anchored_of, ours, streaming_of
from ontick.benchmarks.counting import PeakMemory, chunk_flops, product_rate, read_bandwidth, tick_flops, weight_bytes
from ontick.diffusion import GuessSpec, build, load_plan
from ontick.errors import InputError, RunFailed
from ontick.policy import TransformerConfig, TransformerForDiffusion
from ontick.runtime import load_budget

CPU = torch.device("cpu")
FIELDS = {"case", "plan", "backend", "precision", "ms", "ratio_to_peer", "action_error", "calls", "flops", "bytes_read"}
FIELDS |= {"peak_bytes", "bytes_floor_ms", "budget", "samples_ms", "refreshes", "action_rms", "gate"}
FIELDS |= {"executed", "per_action_ms", "per_action_ratio_to_peer"}


def network(**changes) -> TransformerForDiffusion:
    shape = {"action_dim": 2, "observation_dim": 3, "horizon": 8, "n_action_steps": 4, "width": 16, "layers": 2}
    torch.manual_seed(0)
    made = TransformerForDiffusion(TransformerConfig(**{**shape, "heads": 2, **changes})).eval().requires_grad_(False)
    for parameter in made.parameters():
        if parameter.dim() < 2:
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return made


def plain(made: TransformerForDiffusion, name: str):
    return build(made, load_plan(name), (made.config.action_dim,), made.config.horizon)


@pytest.fixture
def small(monkeypatch):
    """The suite on a small network, so that it takes seconds."""
    made = network()
    observations = list(torch.randn(4, 1, 2, 3, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(suite, "subject", lambda case, device: (made, observations))
    return made, observations


@torch.inference_mode()
def test_the_peers_operations_are_those_that_the_literature_counts():
    """15.755 GFLOP: E 256, 8 layers, 10 rows, 2 observations, 100 steps (7.877 GMAC, embedding and head included)."""
    made = network(horizon=10, n_action_steps=8, width=256, layers=8, heads=4, action_dim=7, observation_dim=23)
    peer = Peer("ddpm", 100, made, plain(made, "ddpm-100"))
    assert peer.work(torch.zeros(1, 2, 23))["flops"] == pytest.approx(15.755e9, rel=0.02)


@torch.inference_mode()
def test_prepare_is_counted_once_and_calls_as_often_as_they_are_made():
    made, obs = network(), torch.zeros(1, 2, 3)
    five, ten = (chunk_flops(plain(made, f"ddim-{k}"), obs) for k in (5, 10))
    once = 2 * five - ten
    assert 0 < once < five and (ten - five) % 5 == 0


def test_weights_are_counted_in_bytes():
    made = network()
    assert weight_bytes(made) == 4 * sum(parameter.numel() for parameter in made.parameters())


def test_memory_that_is_taken_is_seen():
    memory = PeakMemory(CPU)
    memory.start()
    with mmap.mmap(-1, 50_000_000) as fresh:  # from the system: an allocator may hand out what it has kept
        fresh.write(b"x" * len(fresh))
        peak = memory.stop()
    assert peak is None or peak > 30_000_000


def test_rates_are_positive_and_finite():
    assert 1e8 < read_bandwidth(1_000_000, CPU, 3) < 1e13
    assert 1e8 < product_rate(CPU, 2) < 1e15


def test_a_p99_is_a_measured_value_and_needs_50():
    few, many = suite.percentiles(np.arange(1, 11) / 1e3), suite.percentiles(np.arange(1, 101) / 1e3)
    assert few == {"p50": 5.5, "p99": None, "n": 10}
    assert many == {"p50": 50.5, "p99": 99.0, "n": 100}


@torch.inference_mode()
def test_a_case_has_a_row_for_each_plan_told_against_the_peer(small):
    rounds = []
    names = (*suite.PEERS, "ddpm-100", "exact-eager", "exact-ddim-10")
    result = suite.run_case("published", names, load_budget("cpu-20hz"), CPU, 3, lambda: rounds.append(1))
    rows = {row["plan"]: row for row in result["rows"]}
    assert set(rows) == set(names) and len(rounds) == 4
    assert all(set(row) == FIELDS for row in rows.values())
    assert rows["peer-ddpm-100"]["ratio_to_peer"] == 1.0
    peer_ms = rows["peer-ddpm-100"]["ms"]["p50"]
    for row in rows.values():
        assert row["ratio_to_peer"] == pytest.approx(row["ms"]["p50"] / peer_ms)
        assert row["action_error"] < 1e-4 and row["ms"]["n"] == len(row["samples_ms"]) == 3
        assert row["calls"] == (10 if "10" in row["plan"].split("-") else 100)
        assert row["flops"] > 0 and row["bytes_read"] > 0 and row["budget"]["name"] == "cpu-20hz"
        assert row["executed"] == 4 and row["per_action_ms"] == pytest.approx(row["ms"]["p50"] / 4)
        assert row["per_action_ratio_to_peer"] == pytest.approx(row["ratio_to_peer"])
    assert rows["exact-eager"]["flops"] < rows["ddpm-100"]["flops"] < rows["peer-ddpm-100"]["flops"]
    assert rows["exact-eager"]["bytes_read"] < rows["ddpm-100"]["bytes_read"]


@torch.inference_mode()
def test_what_differs_by_more_than_rounding_or_precision_is_not_timed(small, monkeypatch):
    made, observations = small
    wrong = Ours("wrong", load_plan("ddpm-100"), made, CPU)
    monkeypatch.setattr(wrong, "at_noise", lambda obs, birth: torch.full((1, 8, 2), 5.0))
    with pytest.raises(RunFailed, match=r"wrong is .* away from its plain sampler"):
        suite.action_errors([wrong], made, observations)


# -- plans that go on from what they have ----------------------------------------------------------------------------

STEADY = {
    "rti-2": (Warm, 1, 2),
    "draft-2": (Draft, 4, 2),
    "anchored-2": (Anchored, 4, 2),
    "diagonal-4": (Diagonal, 4, 1),
}


def steady(name: str) -> Ours:
    return ours(name, load_plan(name), network(horizon=16), CPU)


@pytest.mark.parametrize("name", STEADY)
@torch.inference_mode()
def test_an_answer_gives_the_actions_that_are_executed(name):
    kind, executed, calls = STEADY[name]
    made, obs = steady(name), torch.rand(3, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    assert isinstance(made, kind) and (made.executed, made.calls, made.refreshes) == (executed, calls, calls)
    answers = [made.answer(obs[i], i) for i in range(3)]
    assert all(len(answer) == 1 and answer.shape[1] >= made.first + executed for answer in answers)
    assert not torch.equal(answers[0], answers[1]) and torch.stack(answers).isfinite().all()


@pytest.mark.parametrize("name", STEADY)
@torch.inference_mode()
def test_at_noise_does_not_depend_on_the_answers_before(name):
    made, obs = steady(name), torch.rand(1, 2, 3, generator=torch.Generator().manual_seed(0))
    before = made.at_noise(obs, 3)
    made.answer(obs, 0)
    assert torch.equal(made.at_noise(obs, 3), before) and not torch.equal(made.at_noise(obs, 4), before)


@pytest.mark.parametrize("name", STEADY)
@torch.inference_mode()
def test_work_is_that_of_one_answer_in_steady_state(name):
    """An answer's calls, counted by what the network is asked between two answers."""
    made, obs, asked = steady(name), torch.zeros(1, 2, 3), []
    made.answer(obs, 0)
    predict = made.network.predict
    made.network.predict = lambda *given: (asked.append(1), predict(*given))[1]
    made.answer(obs, 1)
    assert len(asked) == made.calls
    work = made.work(obs)
    assert work["bytes_read"] == weight_bytes(made.network) * made.calls and work["flops"] > 0


@pytest.mark.parametrize("name", STEADY)
def test_the_twin_of_an_exact_one_is_the_same_plan_plain_on_the_same_network(name):
    pytest.importorskip("openvino")
    exact = steady(f"exact-{name}")
    twin = exact.twin(network(horizon=16), CPU)
    assert (exact.backend, twin.backend, type(twin)) == ("openvino", "eager", STEADY[name][0])
    assert twin.network is exact.network is twin.program.denoiser and not twin.plan.accelerators
    assert twin.twin(network(horizon=16), CPU) is None


@torch.inference_mode()
def test_a_tick_is_counted_once():
    made, obs = steady("diagonal-4"), torch.zeros(1, 2, 3)
    assert made.work(obs)["flops"] == tick_flops(made.program, obs)
    chunk = chunk_flops(plain(network(horizon=16), "ddim-1"), obs)  # one call of the same network
    assert chunk < made.work(obs)["flops"] < 1.5 * chunk  # the level of a row beside it


@torch.inference_mode()
def test_a_streaming_network_has_the_weights_and_an_anchored_one_the_shape():
    made = network(horizon=16)
    streaming, anchored = streaming_of(made), anchored_of(made)
    assert torch.equal(streaming.head.weight, made.head.weight) and not streaming.row_level.weight.any()
    assert (anchored.config.action_dim, anchored.config.observation_dim) == (2, 3) and anchored.anchors.any()
    assert torch.equal(anchored.anchors, anchored_of(made).anchors), "a twin has the same network"


@torch.inference_mode()
def test_plain_plans_of_this_kind_have_no_error_and_exact_ones_are_told_against_them(small, monkeypatch):
    pytest.importorskip("openvino")
    made = network(horizon=16)
    monkeypatch.setattr(suite, "subject", lambda case, device: (made, small[1]))
    names = [*suite.PEERS, *(prefix + name for name in STEADY for prefix in ("", "exact-"))]
    result = suite.run_case("published", names, load_budget("cpu-20hz"), CPU, 1, lambda: None, 1)
    rows = {row["plan"]: row for row in result["rows"]}
    assert not result["left_out"] and set(rows) == set(names)
    peer = rows[suite.PEER]["per_action_ms"]
    for name, (_, executed, _) in STEADY.items():
        plain_row, exact = rows[name], rows[f"exact-{name}"]
        assert plain_row["action_error"] is None and plain_row["action_rms"] is None
        assert 0 <= exact["action_error"] < 1e-4 and exact["backend"] == "openvino"  # 0: clipped in both
        for row in (plain_row, exact):
            assert set(row) == FIELDS and row["executed"] == executed
            assert row["per_action_ms"] == pytest.approx(row["ms"]["p50"] / executed)
            assert row["per_action_ratio_to_peer"] == pytest.approx(row["per_action_ms"] / peer)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("diagonal-4", {"stagger": 2}, "has stagger 2 and view all, wanted 1 and all"),
        ("diagonal-4", {"execute": 2}, "executes 2, its queue gives 4 at a time"),
        ("draft-2", {"guess": GuessSpec()}, "starts from a guess that is given; a bench has noise, previous answers"),
        ("ddim-10", {"execute": 16}, "executes 16 actions of 15 that are predicted"),
    ],
)
def test_what_no_answer_can_give_is_refused(name, changes, reason):
    with pytest.raises(InputError, match=reason):
        ours(name, dataclasses.replace(load_plan(name), **changes), network(horizon=16), CPU)


def test_a_queue_that_is_longer_than_the_network_is_refused():
    with pytest.raises(InputError, match="a queue of 16 rows, the network 8"):
        ours("diagonal-4", load_plan("diagonal-4"), network(), CPU)


# -- the suites ------------------------------------------------------------------------------------------------------


def test_every_row_of_every_suite_has_a_plan():
    for names in (*suite.ROWS.values(), suite.QUICK):
        for name in names:
            assert name in suite.PEERS or suite.plan_of(name).name == name


def test_the_observations_fit_the_shipped_network():
    made, observations = suite.subject("published", CPU)
    c = made.config
    assert (c.width, c.layers, c.horizon, c.n_obs_steps, c.n_action_steps) == (256, 8, 16, 2, 8)
    assert len(observations) == 64 and observations[0].shape == (1, 2, c.observation_dim)
    assert torch.stack(observations).abs().max() < 1.5
