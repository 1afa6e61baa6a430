import pytest

from ontick.files import whole, write_whole


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
