"""What the commands about a cluster share: which cluster is meant, and its errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from hopgate.kubernetes.api import ClientError

if TYPE_CHECKING:
    from hopgate.kubernetes.client import Client

_Command = TypeVar("_Command", bound=Callable[..., Any])
# As kubectl has it.
_VARIABLE: Final = "KUBECONFIG"
UNREADABLE: Final = 2


def options(command: _Command) -> _Command:
    """The options that say which cluster."""
    kubeconfig = click.option(
        "--kubeconfig", type=click.Path(path_type=Path), help="The kubeconfig of the cluster (default: $KUBECONFIG, else ~/.kube/config)."
    )
    context = click.option("--context", help="Which context of the kubeconfig (default: its current one).")
    return kubeconfig(context(command))


def connect(kubeconfig: Path | None, context: str | None) -> Client:
    """The cluster that is meant. Ends the command where there is no such kubeconfig."""
    from hopgate.kubernetes.client import Client  # noqa: PLC0415 - half a second, which --help need not take

    given = kubeconfig or Path(os.environ.get(_VARIABLE, "").partition(os.pathsep)[0] or Path.home() / ".kube" / "config")
    try:
        return Client.connect(given, context)
    except ClientError as error:
        raise failed(error) from error


def failed(error: ClientError) -> click.exceptions.Exit:
    """The end of a command that could not ask: says why."""
    click.echo(f"hopgate: {error} ({error.code})", err=True)
    return click.exceptions.Exit(UNREADABLE)
