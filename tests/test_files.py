import os

import pytest

from ontick.errors import InputError
from ontick.files import check_place, whole, write_whole


def test_a_file_or_folder_takes_its_name_only_when_it_is_whole(tmp_path):
    with whole(tmp_path / "deep" / "file.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "deep" / "file.txt").exists()
    assert (tmp_path / "deep" / "file.txt").read_text() == "new"
    with whole(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "part").write_text("1")
    assert (tmp_path / "folder" / "part").read_text() == "1"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_breaks_on_the_way_leaves_the_old_one_and_nothing_else(tmp_path, error):
    write_whole(tmp_path / "file.txt", "old")
    with pytest.raises(error), whole(tmp_path / "file.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "file.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("a", "b"):
        with whole(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_files_get_the_usual_rights_whatever_wrote_them(tmp_path):
    with whole(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "secret").touch(mode=0o600)
    assert (tmp_path / "folder" / "secret").stat().st_mode & 0o044 == 0o044


def test_an_interrupt_between_the_two_moves_puts_the_old_folder_back(tmp_path, monkeypatch):
    with whole(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "old").touch()
    move = os.replace

    def interrupted(source, target):
        move(source, target)
        if str(target).endswith(".old"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "folder") as temporary:
        temporary.mkdir()
    assert (tmp_path / "folder" / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["", "..", "x" * 250, "file/below", "pipe"])
def test_a_place_that_cannot_or_must_not_be_written_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError):
        check_place(tmp_path / name if name else "")
