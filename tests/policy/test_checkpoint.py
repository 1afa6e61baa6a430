"""A checkpoint is a folder that is read back as it was written, or refused in one line."""

import ast
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ontick
from ontick.errors import InputError
from ontick.policy import checkpoint as module
from ontick.policy import load_checkpoint, read_config, save_checkpoint

FILES = ["config.json", "model.safetensors", "normaliser.safetensors"]


def weights(checkpoint):
    return checkpoint.network.state_dict() | checkpoint.normaliser.tensors()


def same(one, other):
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in ours.items())


def test_a_full_precision_checkpoint_comes_back_bit_for_bit(tmp_path, random_checkpoint, tiny_config):
    for layers, causal in ((0, True), (1, False)):
        config = tiny_config(n_cond_layers=layers, causal=causal)
        written = random_checkpoint(config, about={"task": "toy", "steps": 3})
        save_checkpoint(tmp_path / "policy", written, half=False)
        read = load_checkpoint(tmp_path / "policy")
        assert same(read, written) and read.about == written.about and read.network.config == config


@pytest.mark.parametrize("family", [module.NETWORKS[name][0] for name in module.NETWORKS])
def test_a_checkpoint_of_every_family_comes_back_as_that_family(
    family, tmp_path, random_checkpoint, tiny_config, tiny_anchored_config, tiny_unet_config
):
    config = {
        module.TransformerConfig: tiny_config,
        module.AnchoredConfig: tiny_anchored_config,
        module.UNetConfig: tiny_unet_config,
    }[module.NETWORKS[family.family][1]]()
    written = random_checkpoint(config, family=family)
    save_checkpoint(tmp_path / "policy", written, half=False)
    read = load_checkpoint(tmp_path / "policy")
    assert type(read.network) is family and read_config(tmp_path / "policy")["family"] == family.family
    assert same(read, written) and read.network.config == config


def test_discrete_dimensions_go_to_their_nearer_limits_and_the_others_stay(random_checkpoint):
    chunk = torch.tensor([[0.3, -0.02], [-0.7, 0.5], [0.1, -3.0]])
    wanted = torch.tensor([[0.3, -0.1], [-0.7, 0.1], [0.1, -0.1]])
    before = chunk.clone()
    assert torch.equal(random_checkpoint(about={"discrete_dims": [1]}).at_limits(chunk), wanted)
    assert torch.equal(random_checkpoint(about={"discrete_dims": []}).at_limits(chunk), chunk)
    assert torch.equal(chunk, before), "what was given is as it was"
    with pytest.raises(InputError, match="does not say which actions are discrete"):
        random_checkpoint().at_limits(chunk)


def test_a_half_precision_checkpoint_is_half_as_large_and_runs_in_full(tmp_path, random_checkpoint):
    written = random_checkpoint()
    save_checkpoint(tmp_path / "half", written)
    save_checkpoint(tmp_path / "full", written, half=False)
    size = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")}
    assert size["half"] < 0.7 * size["full"]
    read = load_checkpoint(tmp_path / "half")
    assert all(v.dtype == torch.float32 for v in weights(read).values())
    for key, value in written.network.state_dict().items():
        torch.testing.assert_close(read.network.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    for key, value in written.normaliser.tensors().items():  # never halved: it is small and exact
        assert torch.equal(read.normaliser.tensors()[key], value)


def test_a_loaded_network_is_for_inference(tmp_path, random_checkpoint, tiny_config):
    save_checkpoint(tmp_path / "policy", random_checkpoint(tiny_config(p_drop_attn=0.5)))
    network = load_checkpoint(tmp_path / "policy").network
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_a_folder_holds_these_three_files_and_nothing_lies_beside_it(tmp_path, random_checkpoint):
    for _ in range(2):
        save_checkpoint(tmp_path / "policies" / "one", random_checkpoint())
    assert sorted(p.name for p in (tmp_path / "policies" / "one").iterdir()) == FILES
    assert [p.name for p in (tmp_path / "policies").iterdir()] == ["one"]


# -- whole or not at all ----------------------------------------------------------------------------------------------


def test_a_save_that_dies_at_any_file_leaves_the_old_checkpoint(tmp_path, random_checkpoint, monkeypatch):
    old = random_checkpoint(seed=1)
    save_checkpoint(tmp_path / "policy", old, half=False)
    for dies_at in (1, 2):
        written = []

        def dying(tensors, path, dies_at=dies_at, written=written):
            written.append(path)
            save_file(tensors, path)
            if len(written) == dies_at:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, "save_file", dying)
            save_checkpoint(tmp_path / "policy", random_checkpoint(seed=2))
        assert same(load_checkpoint(tmp_path / "policy"), old)
        assert [p.name for p in tmp_path.iterdir()] == ["policy"]


def test_a_save_that_cannot_move_its_folder_puts_the_old_one_back(tmp_path, random_checkpoint, monkeypatch):
    old, moves = random_checkpoint(seed=1), []
    save_checkpoint(tmp_path / "policy", old, half=False)
    move = os.replace

    def failing(source, target):
        moves.append(target)
        if len(moves) == 2:  # the old one is aside, the new one is not yet there
            raise OSError("no space left on device")
        move(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(os, "replace", failing)
        save_checkpoint(tmp_path / "policy", random_checkpoint(seed=2))
    assert same(load_checkpoint(tmp_path / "policy"), old)
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]


def test_settings_that_are_not_json_leave_nothing_behind(tmp_path, random_checkpoint):
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "policy", random_checkpoint(about={"when": object()}))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_checkpoint_is_never_replaced(tmp_path, random_checkpoint):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not a checkpoint"):
        save_checkpoint(tmp_path / "home", random_checkpoint())
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    save_checkpoint(tmp_path / "empty", random_checkpoint())
    load_checkpoint(tmp_path / "empty")


# -- bad input --------------------------------------------------------------------------------------------------------


def edit(change):
    def apply(folder: Path):
        data = json.loads((folder / "config.json").read_text())
        change(data)
        (folder / "config.json").write_text(json.dumps(data))

    return apply


def replace(name, change):
    def apply(folder: Path):
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return apply


def truncate(name):
    def apply(folder: Path):
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return apply


BAD = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "not JSON": (lambda f: (f / "config.json").write_text("{format"), "is not JSON"),
    "not text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "is not JSON"),
    "not a mapping": (lambda f: (f / "config.json").write_text("[1]"), "format is 'list'"),
    "another format": (edit(lambda c: c.update(format="ontick-checkpoint-9")), "format is 'ontick-checkpoint-9'"),
    "another family": (edit(lambda c: c.update(family="unet")), "family 'unet'"),
    "no network": (edit(lambda c: c.pop("network")), "config.json, network: wanted a mapping"),
    "unknown setting": (edit(lambda c: c["network"].update(depth=3)), "unknown depth"),
    "missing setting": (edit(lambda c: c["network"].pop("action_dim")), "no action_dim"),
    "setting of another type": (edit(lambda c: c["network"].update(width="16")), "width is '16'"),
    "impossible setting": (edit(lambda c: c["network"].update(heads=0)), "heads is 0"),
    "unknown schedule": (edit(lambda c: c["network"].update(schedule="cosy")), "unknown noise schedule 'cosy'"),
    "another width": (edit(lambda c: c["network"].update(width=32)), "does not fit config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    "truncated weights": (truncate("model.safetensors"), "cannot be read as safetensors"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot be read as safetensors"),
    "a weight missing": (replace("model.safetensors", lambda t: t.pop("head.bias")), "head.bias"),
    "a weight too many": (replace("model.safetensors", lambda t: t.update(x=torch.ones(1))), "does not fit"),
    "a weight of another shape": (replace("model.safetensors", lambda t: t.update(pos_emb=torch.ones(2))), "pos_emb"),
    "no normaliser": (lambda f: (f / "normaliser.safetensors").unlink(), "has no normaliser.safetensors"),
    "truncated normaliser": (truncate("normaliser.safetensors"), "cannot be read as safetensors"),
    "half a normaliser": (replace("normaliser.safetensors", lambda t: t.pop("obs.scale")), "wanted scale and offset"),
    "a normaliser for others": (
        replace("normaliser.safetensors", lambda t: t.update({k: torch.ones(9) for k in t})),
        r"of \(9, 9\), the network \(3, 2\)",
    ),
}


@pytest.mark.parametrize(("spoil", "complaint"), BAD.values(), ids=BAD)
def test_a_bad_checkpoint_is_refused_in_one_line(spoil, complaint, tmp_path, random_checkpoint):
    save_checkpoint(tmp_path / "policy", random_checkpoint())
    spoil(tmp_path / "policy")
    with pytest.raises(InputError, match=complaint) as caught:
        load_checkpoint(tmp_path / "policy")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    for read in (load_checkpoint, read_config):
        with pytest.raises(InputError, match="is not a checkpoint"):
            read(tmp_path / "nowhere")


# -- no pickle --------------------------------------------------------------------------------------------------------

PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSHIPPED = {"tests", "benchmarks", "docs", "build", "runs"}


def pickling(source: str) -> list[str]:
    """What in a module reads or writes pickles: imports of picklers, torch.load and torch.save, allow_pickle."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            names = [] if isinstance(node.value, ast.Constant) and node.value.value is False else ["allow_pickle"]
        bad = {"torch.load", "torch.save", "allow_pickle"}
        found += [name for name in names if name in bad or name.split(".")[0] in PICKLERS]
    return found


def test_the_search_for_pickles_finds_them():
    for line in (
        "import pickle",
        "import dill as d",
        "from torch import load",
        "torch.load(f)",
        "x.y(allow_pickle=True)",
    ):
        assert pickling(line)
    assert not pickling("np.load(f, allow_pickle=False)\nimport json")


def test_no_shipped_module_pickles():
    root = Path(ontick.__file__).parent
    shipped = [*root.glob("*.py"), *(p for d in root.iterdir() if _ships(d) for p in d.rglob("*.py"))]
    assert len(shipped) > 30
    # `convert` alone may read foreign pickles, through a restricted unpickler.
    guilty = {str(p.relative_to(root)): pickling(p.read_text()) for p in shipped if p.stem != "convert"}
    assert not {path: found for path, found in guilty.items() if found}


def _ships(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".") and folder.name not in UNSHIPPED
