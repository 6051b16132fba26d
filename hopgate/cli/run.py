"""`hopgate run`: a program as a governed agent."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from hopgate.cli.data import default_data_folder
from hopgate.identity import names
from hopgate.identity.errors import IdentityError
from hopgate.identity.names import ObjectName
from hopgate.local import run
from hopgate.local.run import RunSpec


class _AgentName(click.ParamType[ObjectName]):
    name = "namespace/name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ObjectName:
        try:
            return names.parse(str(value))
        except IdentityError as error:
            self.fail(f"{error}", param, ctx)


@click.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: hopgate run --agent demo/planner --resources ./resources -- python agent.py",
)
@click.option("--agent", type=_AgentName(), required=True, help="Which registered Agent the program is.")
@click.option("--resources", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True, help="The folder of manifests.")
@click.option("--data", type=click.Path(path_type=Path), default=default_data_folder, show_default=True, help="The data folder: records.")
@click.option("--listen", type=click.IntRange(1, 65535), help="Let other agents reach the program's PORT, through its inbound gate only.")
@click.option("--uid", type=click.IntRange(0), help="Run the program as this user. Default: who called sudo, else the caller.")
@click.option("--keep-env", multiple=True, metavar="NAME", help="Pass this variable as it is, although it holds a provider's key.")
@click.option("--allow-socket", multiple=True, type=click.Path(path_type=Path), help="Let the program see this Unix socket. Recorded.")
@click.option("--bind", multiple=True, type=click.Path(path_type=Path, exists=True), help="Let the program see this path. Recorded.")
@click.option("--sensor/--no-sensor", default=True, show_default=True, help="Of a gate of its own: watch the program's connections.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    agent: ObjectName,
    resources: Path,
    data: Path,
    listen: int | None,
    uid: int | None,
    keep_env: tuple[str, ...],
    allow_socket: tuple[Path, ...],
    bind: tuple[Path, ...],
    command: tuple[str, ...],
    *,
    sensor: bool,
) -> None:
    """Start COMMAND as a governed agent: every hop it makes goes through a gate, and there is no other way out. Needs root.

    Its terminal, signals and exit code are its own. Uses the gate that `hopgate up` runs for the same data folder, or
    brings its own for as long as the program lives.

    Exit code: the program's; 125 when it could not be started as a governed agent.
    """
    code = run.run(
        RunSpec(
            agent=agent,
            resources=resources.resolve(),
            data=data,
            command=command,
            listen=listen,
            uid=uid,
            keep_environment=frozenset(keep_env),
            allow_sockets=tuple(path.absolute() for path in allow_socket),
            binds=tuple(path.absolute() for path in bind),
            sensor=sensor,
        )
    )
    if code < 0:
        _end_by(signal.Signals(-code))
    sys.exit(code)


def _end_by(signum: signal.Signals) -> None:
    """End as the program ended, so that a shell sees the signal."""
    signal.signal(signum, signal.SIG_DFL) if signum not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), signum)
