"""`python -m hopgate.cluster webhooks`: where the API server is comes from a kubeconfig, or from the pod that this process is in.

It ends in an orderly way on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from hopgate.audit.errors import AuditError
from hopgate.cluster import injection_options
from hopgate.cluster.webhooks import Settings, WebhookProcess
from hopgate.kubernetes.api import ClientError
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.injection_settings import SettingsError


def main(arguments: Sequence[str]) -> int:
    """Run until told to end. Exit code 0 after an orderly end, 1 when the process could not start."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="hopgate webhooks: %(levelname)s: %(message)s")
    try:
        settings = _settings(given)
        client = Client.connect(given.kubeconfig)
        try:
            return asyncio.run(_serve(settings, client))
        finally:
            client.close()
    except (ClientError, AuditError) as error:
        sys.stderr.write(f"hopgate webhooks: {error} ({error.code})\n")
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"hopgate webhooks: {error}\n")
    return 1


async def _serve(settings: Settings, client: Client) -> int:
    process = WebhookProcess(settings, client)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.end)
    await process.run()
    return 0


def _settings(given: argparse.Namespace) -> Settings:
    """Raises SettingsError."""
    host, _, port = given.listen.rpartition(":")
    return Settings(
        namespace=given.namespace,
        name=given.name,
        host=host.strip("[]"),
        port=int(port),
        server_names=frozenset(given.server_name),
        certificates=given.certificates,
        spool=given.spool,
        injecting=injection_options.read(given),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hopgate.cluster", description=__doc__)
    webhooks = parser.add_subparsers(required=True, metavar="webhooks").add_parser("webhooks", help="serve both webhooks")
    add = webhooks.add_argument
    add("--kubeconfig", type=Path, help="how to reach the API server (default: as the pod that this process is in)")
    add("--namespace", required=True, help="hopgate's own namespace")
    add("--name", required=True, help="the name of the webhook configurations, and of the Secret that has the certificates")
    add("--listen", default="[::]:8443", help="where questions are answered (default: %(default)s)")
    add(
        "--server-name",
        action="append",
        required=True,
        help="what the API server calls this process, NAME.NAMESPACE.svc; can be given again",
    )
    add("--certificates", type=Path, required=True, help="the folder that the Secret's tls.crt and tls.key are mounted at")
    add("--spool", type=Path, required=True, help="the folder that takes the records")
    injection_options.add(webhooks)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
