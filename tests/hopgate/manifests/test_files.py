"""Which files are manifests, in which order, and that nothing in a folder makes the reader wait, loop or read what it must not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hopgate.manifests import document, files
from hopgate.manifests.errors import FileError, FolderError


def _write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a: 1\n")


def _names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in files.find(folder)]


def test_yaml_and_json_files_of_all_folders_are_found_in_order(tmp_path: Path) -> None:
    _write(tmp_path, "b.yaml", "a.yml", "c/d.json", "c/a.yaml", "notes.txt", "yaml", "x.yaml.bak")

    assert _names(tmp_path) == ["a.yml", "b.yaml", "c/a.yaml", "c/d.json"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path, ".a.yaml", ".git/b.yaml", "..data/c.yaml", "..2026/d.yaml", "e.yaml")

    assert _names(tmp_path) == ["e.yaml"]


def test_a_mounted_config_map_reads_as_a_plain_folder(tmp_path: Path) -> None:
    _write(tmp_path, "..2026_01/a.yaml")
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")

    assert _names(tmp_path) == ["a.yaml"]
    assert files.read(tmp_path / "a.yaml") == b"a: 1\n"


def test_links_that_lead_round_in_circles_end(tmp_path: Path) -> None:
    _write(tmp_path, "a/b.yaml")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "again").symlink_to(tmp_path / "a")

    assert {path.resolve() for path in files.find(tmp_path)} == {(tmp_path / "a" / "b.yaml").resolve()}


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="create it, or name another with --resources"):
        files.find(tmp_path / "absent")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    _write(tmp_path, "a.yaml")

    with pytest.raises(FolderError, match="name the folder that it is in"):
        files.find(tmp_path / "a.yaml")


def test_a_folder_with_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 2)
    _write(tmp_path, "a.yaml", "b.yaml")
    assert len(files.find(tmp_path)) == 2
    _write(tmp_path, "c.yaml")

    with pytest.raises(FolderError, match="at most 2 manifests"):
        files.find(tmp_path)


def test_a_folder_with_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 2)
    _write(tmp_path, "a.txt", "b.txt")
    assert files.find(tmp_path) == ()
    _write(tmp_path, "c.txt")

    with pytest.raises(FolderError, match="at most 2 entries"):
        files.find(tmp_path)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    assert _names(tmp_path) == ["a.yaml"]

    with pytest.raises(FileError, match="expected a regular file"):
        files.read(tmp_path / "a.yaml")


def test_a_link_to_nothing_is_found_and_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("absent")
    assert _names(tmp_path) == ["a.yaml"]

    with pytest.raises(FileError, match="No such file"):
        files.read(tmp_path / "a.yaml")


def test_no_more_of_a_file_is_read_than_shows_that_it_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(document.MAX_BYTES * 100)

    assert len(files.read(tmp_path / "a.yaml")) == document.MAX_BYTES + 1


def test_a_name_is_shown_on_one_line(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(b"a\n\xff.yaml"))

    assert files.shown(odd) == "a\\n\\xff.yaml"


def test_an_unreadable_folder_has_no_signatures(tmp_path: Path) -> None:
    _write(tmp_path, "a.yaml")

    assert len(files.sign(tmp_path)) == 1
    assert files.sign(tmp_path / "absent") == ()
