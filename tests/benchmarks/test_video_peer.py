"""The script that times clips beside diffusers' pipeline: its rows, and that both denoise the same clip."""

import pytest
import torch

pytest.importorskip("diffusers", reason="the peer is diffusers")
pytest.importorskip("transformers", reason="the pipeline of diffusers imports it")

from ontick.benchmarks.video_peer import EVERY, STEPS, measured, picked
from ontick.errors import InputError

CPU = torch.device("cpu")


@torch.inference_mode()
def test_every_row_is_timed_and_the_clips_agree():
    case = measured("tiny", 8, 1, CPU)
    rows = {row["row"]: row for row in case["rows"]}
    assert list(rows) == ["a", "b", "c", "d", "e", *(f"f-{k}" for k in EVERY)]
    assert case["parameters"] < 30_000 and case["frames"] == 8
    for name in "bce":
        assert rows[name]["max_difference"] < 1e-4 and rows[name]["error"] is None
    for name in ("a", "d"):
        assert rows[name]["ratio"] == 1 and rows[name]["against"] == name
    assert rows["a"]["calls_per_frame"] == rows["b"]["calls_per_frame"] == (STEPS + 7) / 8
    assert rows["d"]["calls_per_frame"] == 2 * STEPS / 8 and rows["e"]["calls_per_frame"] == (2 * STEPS + 1) / 8
    errors = [rows[f"f-{k}"]["error"] for k in EVERY]
    assert all(0 < error["of_latents"] < 1 and 0 < error["of_change"] < 1 for error in errors)
    assert all(row["n"] == 1 and row["ms_per_frame"]["p50"] > 0 for row in rows.values())


def test_the_fastest_schedule_within_the_error_is_picked():
    def row(name, ratio, error):
        return {"row": name, "ratio": ratio, "error": error and {"of_change": error}}

    assert picked([row("e", 9, None), row("f-2", 3, 0.01), row("f-3", 4, 0.02), row("f-4", 5, 0.5)]) == "f-3"
    assert picked([row("e", 9, None), row("f-2", 3, 0.2)]) is None


def test_frames_that_are_no_blocks_are_refused():
    with pytest.raises(InputError, match="multiple of 4"):
        measured("tiny", 9, 1, CPU)
