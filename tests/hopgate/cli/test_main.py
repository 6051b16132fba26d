"""The command line as a whole: help with an example at every command, no slow imports, errors with their remedy."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import hopgate
from hopgate.cli import main
from hopgate.cli.main import commands
from hopgate.local.errors import LocalError, SandboxError


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command as the words that call it, groups too."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, (*path, name))


ALL = list(walk(commands))


def find(path: tuple[str, ...]) -> click.Command:
    """The command that these words call."""
    command: click.Command = commands
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


def test_the_commands_are_these() -> None:
    assert [" ".join(path) for path in ALL] == [
        "",
        "audit",
        "audit list",
        "audit show",
        "audit sql",
        "audit verify",
        "check",
        "check pod",
        "coverage",
        "discover",
        "envoy",
        "envoy config",
        "explain",
        "policy",
        "policy check",
        "quarantine",
        "release",
        "replay",
        "run",
        "status",
        "up",
    ]


@pytest.mark.parametrize("path", ALL, ids=[" ".join(("hopgate", *path)) for path in ALL])
def test_help_has_an_example(path: tuple[str, ...]) -> None:
    ran = CliRunner().invoke(commands, [*path, "--help"])
    assert ran.exit_code == 0
    assert f"Example: hopgate {' '.join(path)}".rstrip() in ran.stdout


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(("hopgate", *path)))
def test_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command = find(path)
    assert command.help
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


def test_a_command_that_is_none_ends_with_2() -> None:
    ran = CliRunner().invoke(commands, ["drop"])
    assert (ran.exit_code, "drop" in ran.stderr) == (2, True)


def test_tells_its_version() -> None:
    assert CliRunner().invoke(commands, ["--version"]).stdout == f"hopgate, version {hopgate.__version__}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(LocalError("it broke", remedy="mend it"), 1), (SandboxError("it broke", remedy="mend it"), 125)],
    ids=["an error", "a program that could not be started"],
)
def test_an_error_is_told_with_its_code_and_its_remedy(
    error: LocalError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(main, "commands", fails)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == f"hopgate: it broke ({error.code})\n  to mend it: mend it\n"


def test_help_imports_neither_chdb_nor_cedar() -> None:
    script = "import sys\nfrom hopgate.cli.main import commands\ncommands(['--version'], standalone_mode=False)\nprint(sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
    assert not {"chdb", "cedarpy", "grpc", "yaml"} & set(re.findall(r"'([^']+)'", ran.stdout))


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(("hopgate", *path)))
def test_the_reference_page_has_each_command_and_option(path: tuple[str, ...], repository: Path) -> None:
    page = (repository / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## `{' '.join(('hopgate', *path))}`\n")[2].partition("\n## ")[0]
    assert section, f"the page has no section of `{' '.join(path)}`"
    options = {name for option in find(path).params if isinstance(option, click.Option) for name in option.opts if name.startswith("--")}
    assert {name for name in options if f"`{name}" not in section} == set()
