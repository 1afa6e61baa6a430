"""The script that times parallel in time: what it compares, counts and draws, on a small network."""

import torch

from ontick.benchmarks.picard import WIDTHS, draw, measured, parallel, rivals_of
from ontick.policy import TransformerConfig, TransformerForDiffusion

CPU = torch.device("cpu")


def small() -> TransformerForDiffusion:
    torch.manual_seed(0)
    shape = TransformerConfig(action_dim=2, observation_dim=3, width=16, layers=1, heads=2, clip=1.0)
    return TransformerForDiffusion(shape).eval().requires_grad_(False)


def test_windows_are_cut_to_the_steps_of_a_sampler_and_named_once():
    names = [rival.name for rival in rivals_of("ddim-15", [8, 32, 100], small(), CPU)]
    assert names[:2] == ["ddim-15", "exact-ddim-15"]
    assert names[2:] == [f"exact-picard-{p}-ddim-15{warm}" for p in (8, 15) for warm in ("", "-warm")]


def test_settings_go_into_the_plan_beside_the_exact_stack():
    plan = parallel("ddpm-100", 8, "best", tolerance=0.5)
    assert plan.accelerators == {"exact": {}, "picard": {"window": 8, "tolerance": 0.5}}


@torch.inference_mode()
def test_every_row_is_counted_timed_and_drawn(tmp_path):
    observations = list(torch.randn(2, 1, 2, 3, generator=torch.Generator().manual_seed(0)))
    document = measured(small(), observations, CPU, [8], 1, "eager")
    assert list(document["iteration_ms"]) == [str(width) for width in WIDTHS]
    for row in document["rows"]:
        steps = 100 if row["sampler"] == "ddpm-100" else 15
        if "picard" not in row["plan"]:
            assert row["iterations"] == row["evaluations"] == steps and row["action_rms"] < 1e-5
        else:
            assert row["iterations"] < steps and row["iterations"] <= row["evaluations"] <= 8 * row["iterations"]
            assert row["action_rms"] < 0.1
        assert row["ms"]["n"] == 1
    draw({**document, "device": "here", "machine": {"threads": 1}}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
