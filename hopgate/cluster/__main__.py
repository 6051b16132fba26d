"""`python -m hopgate.cluster webhooks` and `controller`: where the API server is comes from a kubeconfig, or from the pod that this process
is in.

Each ends in an orderly way on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hopgate import listening
from hopgate.audit.errors import AuditError
from hopgate.cluster import controller, injection_options
from hopgate.cluster.controller import ControllerProcess
from hopgate.cluster.webhooks import Settings, WebhookProcess
from hopgate.kubernetes.api import ClientError
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.injection_settings import SettingsError


class Process(Protocol):
    """What is run."""

    def end(self) -> None:
        """Let `run` end in an orderly way."""

    async def run(self) -> None:
        """Work until `end`."""


def main(arguments: Sequence[str]) -> int:
    """Run until told to end. Exit code 0 after an orderly end, 1 when the process could not start."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format=f"hopgate {given.command}: %(levelname)s: %(message)s")
    try:
        client = Client.connect(given.kubeconfig)
        try:
            return asyncio.run(_serve(given, client))
        finally:
            client.close()
    except (ClientError, AuditError) as error:
        sys.stderr.write(f"hopgate {given.command}: {error} ({error.code})\n")
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"hopgate {given.command}: {error}\n")
    return 1


async def _serve(given: argparse.Namespace, client: Client) -> int:
    process: Process = given.make(given, client)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.end)
    await process.run()
    return 0


def _controller(given: argparse.Namespace, client: Client) -> Process:
    host, port = listening.place(given.health)
    settings = controller.Settings(namespace=given.namespace, pod=given.pod, name=given.name, host=host, port=port)
    return ControllerProcess(settings, client)


def _webhooks(given: argparse.Namespace, client: Client) -> Process:
    return WebhookProcess(_settings(given), client)


def _settings(given: argparse.Namespace) -> Settings:
    """Raises SettingsError."""
    host, port = listening.place(given.listen)
    return Settings(
        namespace=given.namespace,
        name=given.name,
        host=host,
        port=port,
        server_names=frozenset(given.server_name),
        certificates=given.certificates,
        spool=given.spool,
        injecting=injection_options.read(given),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hopgate.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="webhooks|controller")
    _add_webhooks(commands.add_parser("webhooks", help="serve both webhooks"))
    _add_controller(commands.add_parser("controller", help="write how things stand, and keep the authorities"))
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kubeconfig", type=Path, help="how to reach the API server (default: as the pod that this process is in)")
    parser.add_argument("--namespace", required=True, help="hopgate's own namespace")


def _add_controller(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(make=_controller)
    _add_common(parser)
    add = parser.add_argument
    add("--pod", required=True, help="the name of the pod that this process is in")
    add("--name", required=True, help="the installation's name, which the names of its Lease and its Secrets begin with")
    add("--health", default="[::]:8080", help="where probes are answered (default: %(default)s)")


def _add_webhooks(webhooks: argparse.ArgumentParser) -> None:
    webhooks.set_defaults(make=_webhooks)
    _add_common(webhooks)
    add = webhooks.add_argument
    add("--name", required=True, help="the name of the webhook configurations, and of the Secret that has the certificates")
    add("--listen", default="[::]:8443", help="where questions are answered (default: %(default)s)")
    add(
        "--server-name",
        action="append",
        required=True,
        help="what the API server calls this process, NAME.NAMESPACE.svc; can be given again",
    )
    add("--certificates", type=Path, required=True, help="a folder of this process's own, best in memory, for tls.crt and tls.key")
    add("--spool", type=Path, required=True, help="the folder that takes the records")
    injection_options.add(webhooks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
