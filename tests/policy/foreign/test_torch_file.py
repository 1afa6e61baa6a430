"""Files of torch.save without torch's loader: the same tensors, and no tensor that is not in the file."""

import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch

from ontick.errors import InputError
from ontick.policy.foreign import open_torch_file, tensors
from ontick.policy.foreign.torch_file import DTYPES, Stored


def read(found):
    """The same tree with every tensor read."""
    if isinstance(found, Stored):
        return found.read()
    if isinstance(found, dict):
        return {key: read(value) for key, value in found.items()}
    return [read(value) for value in found] if isinstance(found, list) else found


def loaded(path):
    with open_torch_file(path) as contents:
        return read(contents)


def same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape
        assert torch.equal(ours[name], value.detach()), name


def test_tensors_are_those_of_torchs_loader(tmp_path):
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    kept = {
        "whole": base,
        "turned": base.T,
        "part": base[1:3, ::2],
        "number": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "also the whole": base,
    }
    kept |= {str(dtype): torch.tensor([0, 1, 1, 0]).to(dtype) for dtype in DTYPES.values()}
    torch.save(kept, tmp_path / "it.pt")
    ours = loaded(tmp_path / "it.pt")
    same(ours, torch.load(tmp_path / "it.pt", weights_only=True))
    ours["whole"][0] = 7
    assert ours["also the whole"][0, 0] != 7, "each has memory of its own"


def test_a_network_comes_back_with_its_optimiser(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GroupNorm(2, 4))
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 3)).sum().backward()
    optimiser.step()
    torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict()}, tmp_path / "it.pt")
    with open_torch_file(tmp_path / "it.pt") as contents:
        assert isinstance(contents["network"], OrderedDict)
        same(tensors(contents["network"], "network"), network.state_dict())
        moments = contents["optimiser"]["state"][0]
        assert torch.equal(moments["exp_avg"].read(), optimiser.state_dict()["state"][0]["exp_avg"])
        with pytest.raises(InputError, match="optimiser"):
            tensors(contents["optimiser"], "optimiser")


class Lie(pickle.Pickler):
    """Writes a storage of any length in the place of a `Storage`."""

    def persistent_id(self, obj):
        return ("storage", obj.kind, obj.key, "cpu", obj.numbers) if isinstance(obj, Storage) else None


class Storage:
    def __init__(self, numbers=6, key="0", kind=torch.FloatStorage):
        self.numbers, self.key, self.kind = numbers, key, kind


def lie(call, *arguments, function=torch._utils._rebuild_tensor_v2) -> bytes:
    import io

    stream = io.BytesIO()
    Lie(stream, 2).dump(call(function, *arguments))
    return stream.getvalue()


REST = (False, OrderedDict())
SIX = {"data/0": bytes(24)}  # six float32


def test_what_the_lies_are_about_is_read_when_it_is_true(tmp_path, torch_zip, call):
    path = torch_zip(tmp_path / "it.pt", lie(call, Storage(), 0, (2, 3), (3, 1), *REST), SIX)
    assert torch.equal(loaded(path), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((Storage(), 0, (7,), (1,), *REST), "reaches out"),
        ((Storage(), 1, (6,), (1,), *REST), "reaches out"),
        ((Storage(), 0, (2, 3), (4, 1), *REST), "reaches out"),
        ((Storage(), 0, (10**9,), (0,), *REST), "reaches out"),
        ((Storage(), 2**62, (2**62, 4), (2**62, 1), *REST), "reaches out"),
        ((Storage(), -1, (2,), (1,), *REST), "from 0"),
        ((Storage(), 0, (-2, -3), (3, 1), *REST), "from 0"),
        ((Storage(), 3, (4,), (-1,), *REST), "from 0"),
        ((Storage(), 0, (2, 3), (3,), *REST), "length"),
        ((Storage(), 0, (2.0, 3), (3, 1), *REST), "from 0"),
        ((Storage(), 0, "23", (3, 1), *REST), "from 0"),
        ((Storage(600), 0, (600,), (1,), *REST), "24 bytes"),
        ((Storage(2), 0, (2,), (1,), *REST), "24 bytes"),
        ((Storage(6, kind=torch.DoubleStorage), 0, (6,), (1,), *REST), "24 bytes"),
        ((Storage(key="1"), 0, (6,), (1,), *REST), "None bytes"),
        ((Storage(key="../../etc/passwd"), 0, (6,), (1,), *REST), "None bytes"),
        ((Storage(), 0, (1,) * 20, (1,) * 20, *REST), "20 dimensions"),
        ((Storage(), 0, (0, 2**62, 4), (1, 1, 1), *REST), "no tensor has the shape"),
        (("no storage", 0, (6,), (1,), *REST), "without a storage"),
        ((Storage(),), "missing"),
    ],
)
def test_a_tensor_that_lies_about_its_storage_is_refused(tmp_path, torch_zip, call, arguments, complaint):
    path = torch_zip(tmp_path / "it.pt", lie(call, *arguments), SIX)
    with pytest.raises(InputError, match=complaint):
        loaded(path)


def test_other_ways_of_torch_to_make_a_tensor_are_refused_by_name(tmp_path, torch_zip, call):
    for name in ("_rebuild_sparse_tensor", "_rebuild_qtensor", "_rebuild_wrapper_subclass", "_rebuild_from_type_v2"):
        function = getattr(torch._utils, name, None) or getattr(torch._tensor, name)
        path = torch_zip(tmp_path / "it.pt", lie(call, function=function))
        with pytest.raises(InputError, match=name):
            loaded(path)


@pytest.mark.parametrize("why", ["compressed", "twice", "no pickle", "two pickles", "big-endian"])
def test_another_zip_is_refused(tmp_path, torch_zip, why):
    path, none = tmp_path / "it.pt", pickle.dumps(None, 2)
    if why == "compressed":
        torch_zip(path, none, SIX, compression=zipfile.ZIP_DEFLATED)
    elif why == "big-endian":
        torch_zip(path, none, {"byteorder": b"big"})
    else:
        names = {"twice": ["a/data.pkl"] * 2, "no pickle": ["a/b"], "two pickles": ["a/data.pkl", "b/data.pkl"]}[why]
        with zipfile.ZipFile(path, "w") as file, pytest.warns() if why == "twice" else memoryview(b""):
            for name in names:
                file.writestr(name, none)
    with pytest.raises(InputError, match=r"record|data\.pkl|big-endian"):
        loaded(path)


def test_a_file_that_is_cut_off_or_changed_is_refused(tmp_path):
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="no zip"):
        loaded(tmp_path / "cut.pt")
    place = whole.index(torch.arange(1000.0).numpy().tobytes())
    (tmp_path / "changed.pt").write_bytes(whole[:place] + b"\x01" + whole[place + 1 :])
    with pytest.raises(InputError, match="cannot be read"):
        loaded(tmp_path / "changed.pt")


def test_torchs_format_of_before_1_6_is_refused_with_a_way_out(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"before 1\.6"):
        loaded(tmp_path / "old.pt")
    with pytest.raises(InputError, match="no file"):
        loaded(tmp_path / "nowhere.pt")


def test_a_whole_network_saved_with_its_code_is_refused_by_name(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear"):
        loaded(tmp_path / "module.pt")


def test_views_of_one_buffer_are_read_and_it_is_read_once(tmp_path, monkeypatch):
    """As weights of a recurrent network are that cuDNN has laid side by side."""
    buffer = torch.arange(400.0)
    views = {str(i): buffer[50 * i : 50 * i + 50].view(5, 10) for i in range(8)}
    torch.save(views, tmp_path / "it.pt")
    with open_torch_file(tmp_path / "it.pt") as contents:
        archive, read = contents["0"].archive, []
        monkeypatch.setattr(archive, "record", lambda name, record=archive.record: read.append(name) or record(name))
        found = tensors(contents, "it")
    same(found, views)
    assert len(read) == 1
    found["0"][:] = -1
    assert torch.equal(found["1"], views["1"]), "each has memory of its own"


def test_many_names_of_the_same_numbers_are_refused_before_they_are_read(tmp_path, monkeypatch):
    base = torch.arange(10_000.0)
    torch.save({"twice": base, "again": base}, tmp_path / "twice.pt")
    torch.save({str(i): base for i in range(150)}, tmp_path / "it.pt")
    with open_torch_file(tmp_path / "twice.pt") as contents:
        assert torch.equal(tensors(contents, "it")["again"], base)
    monkeypatch.setattr(Stored, "of", None)
    with open_torch_file(tmp_path / "it.pt") as contents, pytest.raises(InputError, match="6000000 bytes"):
        tensors(contents, "it")


def test_records_that_lie_over_each_other_are_refused(tmp_path):
    import copy

    with zipfile.ZipFile(tmp_path / "it.pt", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(None, 2))
        file.writestr("archive/data/0", bytes(10_000))
        again = copy.copy(file.infolist()[-1])
        again.filename = "archive/data/1"
        file.filelist.append(again)
    with pytest.raises(InputError, match="over each other"):
        loaded(tmp_path / "it.pt")


def test_a_name_of_any_length_is_told_in_a_short_line(tmp_path, torch_zip):
    for pickled in (b"cos\n" + b"x" * 500_000 + b"\n.", b"comegaconf\n" + b"x" * 500_000 + b"\n(tRb."):
        path = torch_zip(tmp_path / "it.pt", pickled)
        with pytest.raises(InputError) as caught:
            loaded(path)
        assert len(str(caught.value)) < 1000
