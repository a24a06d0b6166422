"""A folder is there whole or not at all."""

import pytest

from ppd_agents import folders
from ppd_agents.folders import folder_in_one_rename, remove_folder


def write(path, text):
    with folder_in_one_rename(path) as aside:
        assert not path.exists() or not list(aside.iterdir())
        (aside / "text").write_text(text)


def test_a_folder_is_made_and_replaced_and_leaves_nothing_beside(tmp_path):
    for text in ("first", "second"):
        write(tmp_path / "made", text)
        assert (tmp_path / "made" / "text").read_text() == text
        assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_a_failure_leaves_what_was_there(tmp_path):
    write(tmp_path / "made", "first")
    with pytest.raises(TypeError), folder_in_one_rename(tmp_path / "made") as aside:
        (aside / "text").write_text(None)
    assert (tmp_path / "made" / "text").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    for left in (".made.tmp", ".made.old"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "rubbish").touch()
    write(tmp_path / "made", "whole")
    assert [p.name for p in tmp_path.rglob("*")] == ["made", "text"]


def test_a_folder_that_was_moved_aside_and_not_replaced_comes_back(tmp_path):
    write(tmp_path / "made", "first")
    (tmp_path / "made").rename(tmp_path / ".made.old")
    with pytest.raises(TypeError), folder_in_one_rename(tmp_path / "made") as aside:
        (aside / "text").write_text(None)
    assert (tmp_path / "made" / "text").read_text() == "first"


def test_contents_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        folders, "_sync", lambda path: synced.append((path.name, (tmp_path / "made").exists()))
    )
    write(tmp_path / "made", "whole")
    assert synced == [("text", False), (".made.tmp", False), (tmp_path.name, True)]


def test_half_a_removed_folder_is_never_found(tmp_path, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    write(tmp_path / "made", "whole")
    monkeypatch.setattr(folders.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(tmp_path / "made")
    assert not (tmp_path / "made").exists()
