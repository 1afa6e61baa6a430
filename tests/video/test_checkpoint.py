"""Checkpoints of video networks: what is saved is loaded, and what does not fit is refused in one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ontick.diffusion import Rows
from ontick.errors import InputError
from ontick.video import Values, VideoCheckpoint, load_video_checkpoint, save_video_checkpoint
from ontick.video.checkpoint import Beginnings


@pytest.fixture
def saved(tmp_path, video_network):
    checkpoint = VideoCheckpoint(video_network(), Values(), {"scene": "square", "fps": 10})
    save_video_checkpoint(tmp_path / "a", checkpoint)
    return tmp_path / "a", checkpoint


@pytest.mark.parametrize("half", [True, False])
def test_a_network_goes_to_disk_and_back(half, tmp_path, video_network):
    network = video_network(schedule="flow", prediction="velocity", clip=None)
    save_video_checkpoint(tmp_path / "a", VideoCheckpoint(network, Values("field", 2.5), {"fps": 7}), half)
    found = load_video_checkpoint(tmp_path / "a")
    assert found.network.config == network.config and found.values == Values("field", 2.5)
    assert found.about == {"fps": 7} and found.folder == tmp_path / "a"
    wanted = {k: v.half().float() if half else v for k, v in network.state_dict().items()}
    got = found.network.state_dict()
    assert got.keys() == wanted.keys() and all(torch.equal(got[k], v) for k, v in wanted.items())
    assert not found.network.training and not any(p.requires_grad for p in found.network.parameters())
    stored = load_file(tmp_path / "a" / "model.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16 if half else torch.float32}
    network.load_state_dict(wanted)
    asked = torch.randn(1, 3, 3, 16, 16), torch.full((1, 3), 0.5), (), Rows(torch.arange(3)[None])
    assert torch.equal(found.network.predict(*asked).x, network.predict(*asked).x)


def test_an_older_checkpoint_is_replaced_and_nothing_else(saved, tmp_path):
    folder, checkpoint = saved
    save_video_checkpoint(folder, checkpoint)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match="is not a checkpoint"):
        save_video_checkpoint(tmp_path / "mine", checkpoint)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other"}, "format is 'other'"),
        ({"family": "diffusion-policy"}, "draws no video"),
        ({"network": {"wide": 3}}, "unknown wide"),
        ({"network": {"size": 15}}, "do not divide"),
        ({"network": None}, "wanted a mapping"),
        ({"values": {"kind": "rgb", "gamma": 2}}, "unknown gamma"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(change, said, saved):
    path = saved[0] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    _refused(saved[0], said)


def test_a_folder_without_a_config_or_with_another_text_is_refused(saved, tmp_path):
    _refused(tmp_path / "nowhere", "has no config.json")
    (saved[0] / "config.json").write_text("{")
    _refused(saved[0], "is not JSON")
    (saved[0] / "config.json").write_text("[]")
    _refused(saved[0], "format is 'list'")


@pytest.mark.parametrize("how", ["cut", "gone", "less", "more", "shape"])
def test_weights_that_do_not_fit_are_refused_in_one_line(how, saved):
    path = saved[0] / "model.safetensors"
    weights = load_file(path)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif how == "gone":
        path.unlink()
    else:
        spoilt = {
            "less": {k: v for k, v in weights.items() if k != "places"},
            "more": weights | {"extra": torch.ones(1)},
            "shape": weights | {"places": torch.ones(3, 3)},
        }
        save_file(spoilt[how], path)
    _refused(saved[0], "do not fit config.json")


def _refused(folder, said):
    with pytest.raises(InputError, match=said) as caught:
        load_video_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_beginnings_travel_with_a_network_and_are_picked_by_seed(tmp_path, video_network):
    frames = torch.randint(0, 256, (3, 4, 16, 16, 3), dtype=torch.uint8)
    actions = torch.randn(3, 4, 2)
    checkpoint = VideoCheckpoint(video_network(), Values(), beginnings=Beginnings(frames, actions))
    save_video_checkpoint(tmp_path / "a", checkpoint)
    found = load_video_checkpoint(tmp_path / "a")
    for seed in (0, 2, 5):
        prompt = found.prompt(seed)
        assert (found.values.to_frames(prompt["prompt"])[0] == frames[seed % 3].numpy()).all()
        assert torch.equal(prompt["prompt_actions"][0], actions[seed % 3])
    assert VideoCheckpoint(video_network(), Values()).prompt(0) == {}
