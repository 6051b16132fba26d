"""Shadow agents as files: written by the sensor, decided by people."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sensor import shadow_agents, shadow_folder
from sensor.shadow_folder import ShadowFolder
from tests.sensor.test_shadow_agents import PROGRAM, SEEN

NAME = shadow_agents.name(PROGRAM)
MINUTE = 60 * 10**9


def file(folder: ShadowFolder) -> Path:
    return folder.path / f"{NAME}.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> ShadowFolder:
    made = ShadowFolder(tmp_path)
    assert made.read().shadows == {}
    assert made.tell(SEEN)
    return made


def test_a_sighting_becomes_a_file_that_nobody_else_may_read(folder: ShadowFolder) -> None:
    (found,) = folder.read().shadows.values()
    assert (found.name, found.quarantine, found.cgroup) == (NAME, False, "/bot.service")
    assert found.manifest == shadow_agents.new(SEEN, shadow_agents.where(PROGRAM))
    assert folder.path.stat().st_mode & 0o077 == 0
    assert file(folder).stat().st_mode & 0o077 == 0
    assert list(folder.path.iterdir()) == [file(folder)]


def test_what_a_person_decides_stays(folder: ShadowFolder) -> None:
    file(folder).write_text(file(folder).read_text().replace("quarantine: false", "quarantine: true"))
    assert folder.read().shadows[NAME].quarantine
    assert folder.tell(replace(SEEN, last_seen_ns=SEEN.last_seen_ns + 2 * MINUTE))
    found = folder.read().shadows[NAME]
    assert found.quarantine
    assert found.manifest["status"]["lastSeen"] == "2023-11-14T22:16:20Z"


def test_a_change_that_a_person_makes_meanwhile_is_not_written_over(folder: ShadowFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    written = folder._written
    people = [file(folder).read_text().replace("quarantine: false", "quarantine: true")]

    def slow(manifest):  # type: ignore[no-untyped-def]
        if people:
            file(folder).write_text(people.pop())
        return written(manifest)

    monkeypatch.setattr(folder, "_written", slow)
    assert folder.tell(replace(SEEN, last_seen_ns=SEEN.last_seen_ns + 2 * MINUTE))
    found = folder.read().shadows[NAME]
    assert (found.quarantine, found.manifest["status"]["lastSeen"]) == (True, "2023-11-14T22:16:20Z")


@pytest.mark.parametrize(("later", "written"), [(0, False), (MINUTE // 2, False), (MINUTE, True)])
def test_a_file_is_written_anew_only_when_there_is_something_to_say(folder: ShadowFolder, later: int, written: bool) -> None:
    before = file(folder).stat().st_ino, file(folder).stat().st_mtime_ns
    assert folder.tell(replace(SEEN, last_seen_ns=SEEN.last_seen_ns + later))
    assert ((file(folder).stat().st_ino, file(folder).stat().st_mtime_ns) != before) is written


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("{", "yaml:2: expected YAML"),
        ("", "expected one ShadowAgent"),
        ("apiVersion: hopgate.dev/v1alpha1\nkind: Agent\nmetadata: {name: a, namespace: b}\n", "expected a ShadowAgent, got Agent"),
        ("apiVersion: hopgate.dev/v1alpha1\nkind: ShadowAgent\nmetadata: {name: other}\n", "expected `metadata.name` to be the file's"),
        (f"apiVersion: hopgate.dev/v1alpha1\nkind: ShadowAgent\nmetadata: {{name: {NAME}}}\nspec: {{quarantine: 1}}\n", "spec.quarantine"),
        (f"apiVersion: hopgate.dev/v1alpha1\nkind: ShadowAgent\nmetadata: {{name: {NAME}}}\nspec: {{quarantin: true}}\n", "quarantin"),
    ],
)
def test_a_bad_file_is_told_and_left_alone(folder: ShadowFolder, text: str, mistake: str) -> None:
    file(folder).write_text(text)
    contents = folder.read()
    assert contents.shadows == {}
    assert mistake in contents.mistakes[NAME]
    assert not folder.tell(SEEN)
    assert file(folder).read_text() == text
    with pytest.raises(ValueError, match=NAME):
        folder.decide(NAME, quarantine=False)


def test_what_is_no_file_is_not_waited_for(folder: ShadowFolder) -> None:
    file(folder).unlink()
    os.mkfifo(file(folder))
    assert "regular file" in folder.read().mistakes[NAME]


def test_the_folder_does_not_grow_without_an_end(folder: ShadowFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_folder, "MOST_FILES", 2)
    told = [folder.tell(replace(SEEN, program=replace(PROGRAM, uid=number))) for number in (1, 2)]
    assert told == [True, False]
    assert len(folder.read().shadows) == 2
    assert folder.tell(replace(SEEN, last_seen_ns=SEEN.last_seen_ns + MINUTE))


def test_a_decision_is_written_and_the_rest_kept(folder: ShadowFolder) -> None:
    before = folder.read().shadows[NAME].manifest
    folder.decide(NAME, quarantine=True)
    after = folder.read().shadows[NAME].manifest
    assert after == {**before, "spec": {"quarantine": True}}
