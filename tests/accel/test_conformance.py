"""The laws of accelerators, kept by ours and by one that another distribution brings."""

import dataclasses
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ontick import accel
from ontick.accel.conformance import (
    LAWS,
    Case,
    exact_means_exact,
    nothing_leaks_across_lanes,
    threads_agree_or_are_refused,
)
from ontick.diffusion import GridSpec, GuessSpec, Plan, run_chunk, save_plan
from ontick.errors import InputError

DISTRIBUTION = Path(__file__).parent / "reuse_distribution"
PLAN = Plan(name="law", grid=GridSpec(steps=6), solver="ddpm")
EVERY_SWITCH_OFF = dict.fromkeys(("memory", "time_table", "fold", "rows", "weights", "noise", "solver"), False)


def with_exact(**changes) -> Plan:
    return dataclasses.replace(PLAN, **{"accelerators": {"exact": {}}, **changes})


def one_off(switch: str) -> Plan:
    """Folding needs both tables, so it goes with either."""
    return with_exact(accelerators={"exact": {switch: False, "fold": switch not in ("memory", "time_table", "fold")}})


def with_reuse(**changes) -> Plan:
    return dataclasses.replace(PLAN, **{"accelerators": {"reuse": {"every": 2}}, **changes})


OURS = {
    "exact": with_exact(),
    "exact on unipc": with_exact(solver="unipc"),
    **{f"exact without {switch}": one_off(switch) for switch in EVERY_SWITCH_OFF},
    "bf16": with_exact(precision="bf16"),
    "int8": with_exact(precision="int8"),
}
ON_OPENVINO = {
    "exact on openvino": with_exact(backend="openvino"),
    "bf16 on openvino": with_exact(precision="bf16", backend="openvino"),
    "int8 on openvino": with_exact(precision="int8", backend="openvino"),
}
THEIRS = {
    "reuse": with_reuse(),
    "reuse of every fourth": with_reuse(accelerators={"reuse": {"every": 4}}, solver="dpmpp"),
    "reuse on exact": with_reuse(accelerators={"reuse": {"every": 3}, "exact": {}}),
    "reuse on bf16": with_reuse(accelerators={"reuse": {"every": 3}, "exact": {}}, precision="bf16"),
}
each_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)


@pytest.fixture
def case(randomised_network, observation):
    """case(plan, accelerator, **what the case adds) -> Case; the transformer's executed rows are 1 to 4."""

    def make(plan: Plan, accelerator: str | None, **more) -> Case:
        common = {"make_denoiser": randomised_network, "make_obs": observation, "shape": (2,), "positions": 8}
        return Case(**{**common, **more}, plan=plan, accelerator=accelerator, rows=slice(1, 5))

    return make


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The folder that `reuse` is installed in, by pip, as a user would; on the path from now on."""
    source = shutil.copytree(DISTRIBUTION, tmp_path_factory.mktemp("source") / "reuse")
    target = tmp_path_factory.mktemp("installed")
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *flags, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sys.path.append(str(target))
    importlib.invalidate_caches()
    yield target
    sys.path.remove(str(target))
    importlib.invalidate_caches()


# -- ours --------------------------------------------------------------------------------------------------------------


@each_law
@pytest.mark.parametrize("name", OURS)
def test_exact_and_its_precisions_conform(law, name, case, randomised_network, gaussian):
    law(case(OURS[name], "exact", idle=(EVERY_SWITCH_OFF,), impossible=not_for_exact(randomised_network, gaussian)))


def not_for_exact(network, gaussian):
    """No weights to see; memory tokens, or rows, that see each other; rows that a guess begins from."""
    insists = {"exact": {"rows": True}}
    return (
        (gaussian, with_exact()),
        (lambda: network(n_cond_layers=1), with_exact()),
        (lambda: network(causal=False), with_exact(accelerators=insists)),
        (network, with_exact(accelerators=insists, birth="guess", guess=GuessSpec(source="previous"))),
        (network, with_exact(accelerators={"exact": {"memory": False}})),
        (network, with_exact(accelerators={"exact": {"noise": False}}, backend="compile")),
    )


@each_law
@pytest.mark.parametrize("name", ON_OPENVINO)
def test_exact_and_its_precisions_conform_on_openvino(law, name, case, one_layer, openvino_for):
    openvino_for(ON_OPENVINO[name].precision)
    impossible = (
        (one_layer, dataclasses.replace(PLAN, precision="int8", backend="openvino")),
        (one_layer, with_exact(accelerators={"exact": {"noise": False}}, backend="openvino")),
    )
    law(case(ON_OPENVINO[name], "exact", make_denoiser=one_layer, impossible=impossible))


@pytest.mark.parametrize("law", [exact_means_exact, nothing_leaks_across_lanes, threads_agree_or_are_refused])
def test_the_openvino_backend_conforms_by_itself(law, case, one_layer):
    pytest.importorskip("openvino")
    law(case(dataclasses.replace(PLAN, backend="openvino"), None, make_denoiser=one_layer))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each_law
@pytest.mark.parametrize("backend", ["cudagraph", "compile"])
def test_exact_conforms_on_cuda(law, backend, case, one_layer, observation):
    on_cuda = {"make_denoiser": lambda: one_layer().to("cuda"), "make_obs": lambda n: observation(n).to("cuda")}
    law(case(with_exact(backend=backend), "exact", **on_cuda, device="cuda"))


@pytest.fixture
def one_layer(randomised_network):
    """Each law converts a model or two, which takes longer than all else here."""
    return lambda: randomised_network(layers=1)


# -- somebody else's ---------------------------------------------------------------------------------------------------


@each_law
@pytest.mark.parametrize("name", THEIRS)
def test_an_accelerator_of_another_distribution_conforms(law, name, case, installed, randomised_network):
    one_graph = with_reuse(backend="compile")
    too_short = with_reuse(grid=GridSpec(steps=2))
    impossible = ((randomised_network, one_graph), (randomised_network, too_short))
    law(case(THEIRS[name], "reuse", idle=({"every": 1}, {"every": 6, "else": 1}, {}), impossible=impossible))


def test_reuse_asks_at_the_first_step_every_nth_and_the_last(installed, randomised_network, observation, keys):
    asked = []

    class Watched(type(randomised_network())):
        def predict(self, x, label, context, rows=None):
            asked.append(rows.step)
            return super().predict(x, label, context, rows)

    network = randomised_network()
    network.__class__ = Watched
    program = accel.build(network, with_reuse(accelerators={"reuse": {"every": 3}}), (2,), 8)
    with torch.inference_mode():
        run_chunk(program, program.prepare(observation(2)), *keys(2))
    assert asked == [6, 3, 1]
    assert program.calls == 3


PROGRAM_OF_A_USER = """
import sys, torch
from ontick import accel
from ontick.diffusion import load_plan, run_chunk
from ontick.policy import TransformerConfig, TransformerForDiffusion

config = TransformerConfig(action_dim=2, observation_dim=3, horizon=8, n_action_steps=4, width=16, layers=2, heads=2)
program = accel.build(TransformerForDiffusion(config).eval(), load_plan(sys.argv[1]), (2,), 8)
with torch.inference_mode():
    chunk = run_chunk(program, program.prepare(torch.zeros(1, 2, 3)), torch.tensor([1]), torch.tensor([0]))
print(tuple(chunk.shape), program.calls)
"""


def test_a_plan_file_that_names_it_works_wherever_it_is_installed(installed, tmp_path):
    file = tmp_path / "plan.yaml"
    save_plan(with_reuse(), file)

    def run(path: str):
        env = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(
            [sys.executable, "-c", PROGRAM_OF_A_USER, str(file)], env=env, capture_output=True, text=True
        )

    there, missing = run(str(installed)), run("")
    assert there.stdout.strip() == "(1, 8, 2) 4", there.stderr
    assert missing.returncode != 0
    assert (
        "unknown accelerator 'reuse'; known: cache, exact, gated-taylor, picard, third-order-skip (" in missing.stderr
    )


# -- the suite itself --------------------------------------------------------------------------------------------------


@each_law
@pytest.mark.parametrize("solver", ["ddpm", "unipc"])
def test_the_plain_engine_conforms_staggered_too(law, solver, case, mixer):
    """A network with a level a position is not refused a stagger, so its lanes are reset in flight."""
    assert accel.build(mixer(), dataclasses.replace(PLAN, stagger=1), (2,), 8).staircase.lag == 1
    law(case(dataclasses.replace(PLAN, solver=solver), None, make_denoiser=mixer))


def test_the_suite_notices_what_is_broken(case, installed, monkeypatch):
    """Accelerators that break a law are caught by that law, so that passing the suite says something."""
    import ontick_reuse

    def outlives(program, settings, use):
        last, look = [], program.look

        def kept(x, step, context, index, carry):
            last.append(look(x, step, context, index, carry)[0])
            return last[max(len(last) - 3, 0)], carry

        return dataclasses.replace(program, rewritten=kept)

    def miscounts(program, settings, use):
        return dataclasses.replace(program, rewritten=program.look, skipped=2)

    def mixes(program, settings, use):
        look = program.look
        return dataclasses.replace(program, rewritten=lambda x, *more: (look(x, *more)[0] + x.mean(0), more[-1]))

    def spoils(program, settings, use):
        program.denoiser.head.bias.add_(1)
        return program

    broken = {
        "nothing_leaks_across_chunks": outlives,
        "counts_its_calls": miscounts,
        "nothing_leaks_across_lanes": mixes,
        "inert_when_off": spoils,
        "refuses_the_impossible": miscounts,
        "exact_means_exact": mixes,
    }
    laws = {law.__name__: law for law in LAWS}
    monkeypatch.setattr(ontick_reuse.Reuse, "exact", True)
    for name, rewrite in broken.items():
        monkeypatch.setattr(ontick_reuse.Reuse, "rewrite", lambda self, *args, rewrite=rewrite: rewrite(*args))
        with pytest.raises(AssertionError):
            laws[name](case(with_reuse(), "reuse"))


def test_a_law_says_which_setting_was_not_refused(case):
    laws = {law.__name__: law for law in LAWS}
    with pytest.raises(AssertionError, match=r"idle settings .*'fold': False.* was not refused"):
        laws["refuses_when_idle"](case(with_exact(), "exact", idle=({"fold": False},)))


def test_int8_and_bf16_are_not_called_exact_but_stay_near(case, randomised_network, observation, keys):
    results = {}
    for precision in ("fp32", "bf16", "int8"):
        program = accel.build(randomised_network(), with_exact(precision=precision), (2,), 8)
        with torch.inference_mode():
            results[precision] = run_chunk(program, program.prepare(observation(4)), *keys(4))
    for precision in ("bf16", "int8"):
        error = (results[precision] - results["fp32"]).abs().mean()
        assert 1e-5 < error < 0.1, precision


def test_a_precision_without_the_accelerator_it_needs_is_refused(randomised_network):
    with pytest.raises(InputError, match="needs the accelerator exact"):
        accel.build(randomised_network(), dataclasses.replace(PLAN, precision="int8"), (2,), 8)
