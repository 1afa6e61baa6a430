"""`ontick stream`: every plan draws into a file and tells what was measured; bad usage is one line."""

import json
import threading

import av
import numpy as np
import pytest

from ontick.commands import main
from ontick.video import FrameTransformer, Values, VideoCheckpoint, VideoConfig, save_video_checkpoint

PLANS = ("full", "fifo", "rolling", "ar", "causal")
KEYS = {"first_frame_ms", "fps", "repeats", "calls_per_frame", "reaction_ms", "peak_bytes_start", "peak_bytes_end"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory, random_network):
    """saved(name, **changes) -> the folder of a tiny checkpoint."""

    def make(name, kind="rgb", **changes):
        shape = {"size": 16, "patch": 8, "frames": 6, "width": 16, "layers": 1, "heads": 2, "action_dim": 2}
        network = random_network(VideoConfig(**{**shape, **changes}), family=FrameTransformer)
        folder = tmp_path_factory.mktemp("checkpoints") / name
        save_video_checkpoint(folder, VideoCheckpoint(network, Values(kind), {"fps": 12}))
        return folder

    return make


@pytest.fixture(scope="module")
def model(saved):
    return saved("tiny")


@pytest.fixture
def go(model, tmp_path, capsys):
    """go("--option", ...) -> exit code, standard output, standard error, the JSON document or None."""

    def run(*options):
        document = tmp_path / "told.json"
        document.unlink(missing_ok=True)
        given = ["--model", str(model)] if "--model" not in options else []
        code = main(["stream", *given, "--backend", "eager", "--json", str(document), *map(str, options)])
        said = capsys.readouterr()
        return code, said.out, said.err, json.loads(document.read_text()) if document.exists() else None

    return run


def decoded(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_draws_a_file_and_tells_what_was_measured(plan, go, tmp_path):
    code, said, _, told = go("--plan", plan, "--frames", 3, "--out", tmp_path / "a.mp4")
    assert code == 0 and len(decoded(tmp_path / "a.mp4")) == 3 and str(tmp_path / "a.mp4") in said and plan in said
    assert told.keys() >= KEYS | {"frame_ms", "budget", "machine"}
    assert told["frames"] == 3 and told["plan"] == plan and told["repeats"] == 0 and told["fps_wanted"] == 12
    assert told["frame_ms"].keys() == {"p50", "p99", "max"} and told["calls_per_frame"] > 0
    assert told["budget"].keys() == {"name", "met"} and told["budget"]["name"] == "video-10fps-cpu"
    assert told["first_frame_ms"] > 0 and told["reaction_ms"] > 0 and told["peak_bytes_end"] > 0
    assert told["backend"] == "eager"


def test_the_same_seed_draws_the_same_frames_and_another_does_not(go, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert go("--plan", "causal", "--frames", 4, "--seed", seed, "--out", tmp_path / f"{name}.mp4")[0] == 0
    one, again, other = (np.stack(decoded(tmp_path / f"{name}.mp4")) for name in "abc")
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_steps_and_stagger_are_the_samplers(go, tmp_path):
    options = ("--plan", "rolling", "--steps", 8, "--stagger", 4, "--frames", 5, "--out", tmp_path / "a.mp4")
    told = go(*options)[3]
    assert told["calls_per_frame"] == (8 + 4 * 4) / 5 and (told["steps"], told["stagger"]) == (8, 4)


def test_one_frame_is_a_file_too(go, tmp_path):
    code, _, _, told = go("--plan", "causal", "--frames", 1, "--out", tmp_path / "a.mp4")
    assert code == 0 and told["frames"] == 1 and len(decoded(tmp_path / "a.mp4")) == 1


def test_a_network_without_actions_is_drawn_and_has_no_reaction(go, saved, tmp_path):
    folder = saved("still", action_dim=0)
    code, _, _, told = go("--model", folder, "--plan", "causal", "--frames", 2, "--out", tmp_path / "a.mp4")
    assert code == 0 and told["reaction_ms"] is None


def test_a_served_run_with_a_number_of_frames_ends_by_itself(go):
    options = ("--plan", "causal", "--steps", 1, "--frames", 5, "--fps", 50, "--serve", "127.0.0.1:0")
    code, said, _, told = go(*options)
    assert code == 0 and "http://127.0.0.1:" in said and "arrow keys" in said
    assert told["frames"] + told["repeats"] == 5 and told["fps_wanted"] == 50
    assert not [thread for thread in threading.enumerate() if thread.name == "ontick-draw"]


def test_an_interrupted_run_says_what_is_saved(go, tmp_path, monkeypatch):
    from ontick.video.recording import Recording

    write = Recording.write

    def interrupted(self, picture):
        write(self, picture)
        if self.frames == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Recording, "write", interrupted)
    code, _, error, told = go("--plan", "causal", "--frames", 9, "--out", tmp_path / "a.mp4")
    assert code == 1 and "interrupted" in error and error.count("ontick:") == 1
    assert len(decoded(tmp_path / "a.mp4")) == 2 and told["frames"] <= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "nowhere"], "is not a checkpoint"),
        (["--plan", "sideways"], "invalid choice"),
        (["--frames", "0"], "--frames is 0"),
        (["--threads", "0"], "--threads is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--fps", "0"], "--fps is 0"),
        (["--fps", "nan"], "--fps is nan"),
        (["--steps", "0"], "at least 1"),
        (["--stagger", "0"], "wanted 1 or more"),
        (["--plan", "full", "--stagger", "2"], "takes no stagger"),
        (["--plan", "fifo", "--steps", "7"], "whole windows"),
        (["--budget", "soon"], "budget 'soon'"),
        (["--device", "cuda"], "GPU"),
        (["--out", "a.avi"], ".mp4"),
        (["--out", "a.mp4", "--serve", "127.0.0.1:0"], "--out and --serve"),
        (["--serve", "8000"], "HOST:PORT"),
        (["--serve", "127.0.0.1:99999"], "99999"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(options, said, go, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error, told = go(*options)
    assert code == 2 and said in error and error.count("\n") == 1 and told is None
    assert not list(tmp_path.glob("*.mp4"))


def test_a_network_of_fields_cannot_be_shown(go, saved):
    code, _, error, _ = go("--model", saved("field", "field", channels=1), "--frames", 2)
    assert code == 2 and "no pictures" in error and error.count("\n") == 1
