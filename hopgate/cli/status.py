"""`hopgate status`: how the gates of a data folder are, or how hopgate stands in a cluster."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import click
import msgspec

from hopgate.cli.data import default_data_folder
from hopgate.local import control, folders, rights
from hopgate.local.control import Client, ControlError, Status, StatusRequest

ANSWER_SECONDS = 5.0


@click.command("status", epilog="Example: hopgate status --context my-cluster")
@click.option("--data", type=click.Path(path_type=Path), default=default_data_folder, show_default=True, help="The data folder.")
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path), help="Of a cluster: its kubeconfig (default: $KUBECONFIG, else ~/.kube/config)."
)
@click.option("--context", help="Of a cluster: which context of the kubeconfig (default: its current one).")
@click.option("--namespace", "-n", "namespaces", multiple=True, help="Of a cluster: only what concerns this namespace; can be given again.")
@click.option("--installation", help="Of a cluster: the namespace that hopgate runs in (default: as its webhooks say, else `hopgate`).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each gate, or one for the cluster.")
def command(
    data: Path, kubeconfig: Path | None, context: str | None, namespaces: tuple[str, ...], installation: str | None, *, as_json: bool
) -> None:
    """Show how the gates are: of this machine, or with --kubeconfig or --context of a cluster.

    Of this machine: each running gate with its agents, the age of its snapshot, what stands against the folder, its counters.
    Exit code 0: at least one gate runs and its folder is well; 1: none runs, or a folder has mistakes.

    Of a cluster: pods of governed namespaces that are not governed and why, each authz process, the webhooks, the controller, and resources
    with mistakes. Exit code 0: all is governed and well; 1: something needs a person, or may not be read; 2: the cluster does not answer.
    """
    if kubeconfig is not None or context is not None:
        from hopgate.cli import cluster, cluster_status  # noqa: PLC0415 - one machine needs no Kubernetes client
        from hopgate.kubernetes.cluster_reader import ClusterReader  # noqa: PLC0415

        with contextlib.closing(cluster.connect(kubeconfig, context)) as client:
            sys.exit(cluster_status.run(ClusterReader(client), installation, namespaces, as_json=as_json))
    if namespaces or installation is not None:
        raise click.UsageError("--namespace and --installation are of a cluster: name it with --kubeconfig or --context")
    rights.require_root("hopgate status")
    found = [status for path in folders.live(data) if (status := _ask(path)) is not None]
    for status in found:
        click.echo(msgspec.json.encode(status).decode() if as_json else _describe(status))
    if not found:
        click.echo(f"no gate runs for `{data}`: start one with `hopgate up` or `hopgate run`", err=True)
    sys.exit(0 if found and not any(status.mistakes for status in found) else 1)


def _ask(path: Path) -> Status | None:
    try:
        client = Client(path, ANSWER_SECONDS)
    except ControlError:
        return None
    try:
        answer = client.ask(StatusRequest())
    finally:
        client.close()
    return answer if isinstance(answer, control.Status) else None


def _describe(status: Status) -> str:
    age = int(time.time()) - status.snapshot_loaded_at
    lines = [
        f"gate {status.pid}",
        f"  resources  {status.resources}",
        f"  data       {status.data}",
        f"  snapshot   {status.snapshot_digest[:12]}, in force for {age} s",
        f"  authz      {f'process {status.authz_pid}' if status.authz_pid else 'not running'}, restarted {status.authz_restarts} times",
    ]
    lines += [f"  mistake    {mistake}" for mistake in status.mistakes]
    lines += [
        f"  agent      {agent.agent}, process {agent.pid}, for {int(time.time()) - agent.since} s"
        + (f", reachable at its gate {agent.inbound}" if agent.inbound else "")
        + f", {agent.refused_packets} packets refused"
        for agent in status.agents
    ]
    sensor = status.sensor
    if sensor.pid is not None:
        lines.append(
            f"  sensor     process {sensor.pid}, restarted {sensor.restarts} times, programs loaded by {sensor.loader}: {sensor.why}"
        )
    lines += [f"  not seen   {what}" for what in sensor.unseen]
    lines += [f"  not cut    {what}" for what in sensor.unenforced]
    lines += [f"  count      sensor.{name} {value}" for name, value in sorted(sensor.counters.items())]
    lines += [f"  count      {name} {value}" for name, value in sorted(status.counters.items())]
    return "\n".join(lines)
