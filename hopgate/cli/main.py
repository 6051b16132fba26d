"""The entry point. Each command's module is imported when it is called, since `hopgate run` has to be quick.

Exit codes, the same for every command: 0 done; 1 it found what it looks for (mistakes, faults) or failed; 2 wrong usage.
`hopgate run` ends as the program it runs did, and with 125 when it could not start it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

import hopgate
from hopgate.local.errors import LocalError
from hopgate.proxy.errors import ProxyError

_COMMANDS: Final = {
    "audit": ("hopgate.cli.audit", "group"),
    "check": ("hopgate.cli.check", "group"),
    "coverage": ("hopgate.cli.coverage", "command"),
    "discover": ("hopgate.cli.discover", "command"),
    "envoy": ("hopgate.cli.envoy", "group"),
    "explain": ("hopgate.cli.explain", "command"),
    "policy": ("hopgate.cli.policy", "group"),
    "quarantine": ("hopgate.cli.quarantine", "command"),
    "release": ("hopgate.cli.quarantine", "release"),
    "replay": ("hopgate.cli.replay", "command"),
    "run": ("hopgate.cli.run", "command"),
    "status": ("hopgate.cli.status", "command"),
    "up": ("hopgate.cli.up", "command"),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        found = _COMMANDS.get(cmd_name)
        if found is None:
            return None
        command = getattr(importlib.import_module(found[0]), found[1])
        if not isinstance(command, click.Command):
            raise TypeError(f"`{found[0]}.{found[1]}` is not a command")
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Example: hopgate run --agent demo/planner --resources ./resources -- python agent.py",
)
@click.version_option(hopgate.__version__, prog_name="hopgate")
def commands() -> None:
    """One control point for every interaction of an AI agent."""


def main() -> None:
    """Run the command line; an error for a person goes to standard error with its code and its remedy."""
    try:
        commands(prog_name="hopgate")
    except (LocalError, ProxyError) as error:
        click.echo(f"hopgate: {error} ({error.code})", err=True)
        if error.remedy:
            click.echo(f"  to mend it: {error.remedy}", err=True)
        sys.exit(getattr(error, "exit_code", 1))
