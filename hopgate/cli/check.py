"""`hopgate check pod`: what the installed webhook would do with a pod."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from hopgate.cli import cluster, output
from hopgate.kubernetes import cluster_reader, pod_trial
from hopgate.kubernetes.api import ClientError, RefusedError
from hopgate.kubernetes.cluster_reader import ClusterReader
from hopgate.kubernetes.pod_trial import Trial, Verdict

_GOVERNED = {Verdict.INJECTED, Verdict.UNCHANGED}
_SAID = {
    Verdict.INJECTED: "would be injected",
    Verdict.UNCHANGED: "would not be changed",
    Verdict.REFUSED: "would be refused",
    Verdict.OPTED_OUT: "would start without the gate",
    Verdict.NOT_GOVERNED: "would start without the gate",
    Verdict.NO_ANSWER: "can't be told",
}


@click.group(epilog="Example: hopgate check pod planner-1 -n demo")
def group() -> None:
    """What hopgate would do in a cluster, without doing it."""


@group.command(epilog="Example: hopgate check pod -f deployment.yaml -n demo")
@click.argument("name", required=False)
@click.option(
    "--file", "-f", type=click.Path(path_type=Path), help="A manifest in place of a pod that exists: a Pod, or what makes pods; `-`: input."
)
@click.option("--namespace", "-n", help="The pod's namespace (default: the manifest's, else `default`).")
@cluster.options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the patch.")
def pod(name: str | None, file: Path | None, namespace: str | None, kubeconfig: Path | None, context: str | None, *, as_json: bool) -> None:
    """Would this pod be injected, what would change, what stands against it?

    The API server is asked to make a copy of the pod NAME, or the pod of a manifest, as a dry run: the installed webhook judges it, and
    nothing is made or recorded. Needs the right to create pods in the namespace, and to get the pod. Exit code 0: it would be governed;
    1: it would be refused or start without the gate; 2: wrong usage, or it can't be told.
    """
    if (name is None) == (file is None):
        raise click.UsageError("expected the NAME of a pod or --file, one of both")
    client = cluster.connect(kubeconfig, context)
    reader = ClusterReader(client)
    try:
        found = _load(file) if file is not None else reader.pod(namespace or "default", name or "")
        where = namespace or str((found.get("metadata") or {}).get("namespace") or "default")
        trial = _try(reader, found, where)
    except ClientError as error:
        raise cluster.failed(error) from error
    finally:
        client.close()
    if as_json:
        output.json_lines([msgspec.to_builtins(trial)])
    else:
        _show(f"{where}/{name or (found.get('metadata') or {}).get('name') or file}", trial)
    sys.exit(0 if trial.verdict in _GOVERNED else 2 if trial.verdict is Verdict.NO_ANSWER else 1)


def _try(reader: ClusterReader, found: Mapping[str, Any], namespace: str) -> Trial:
    """Raises ClientError where nobody judged."""
    sent = pod_trial.copy_of(found, namespace)
    try:
        answered = reader.try_pod(namespace, sent)
    except RefusedError as error:
        return pod_trial.refused(error.said)
    return pod_trial.accepted(sent, answered, cluster_reader.attempt(lambda: reader.namespace(namespace)).value)


def _load(file: Path) -> Mapping[str, Any]:
    """The pod of a manifest, YAML or JSON. Ends the command where there is none."""
    from hopgate.manifests import document  # noqa: PLC0415 - needed for a file alone

    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise click.UsageError(f"expected to read `{file}`: {error.strerror}") from error
    reading = document.read(data)
    if reading.mistakes:
        first = reading.mistakes[0]
        raise click.UsageError(f"{file}:{first.position.line}: {first.message} ({first.code})")
    described = [each.value for each in reading.documents if isinstance(each.value, dict)]
    pods = [template for each in described if (template := pod_trial.template_of(each)) is not None]
    if len(pods) != 1:
        raise click.UsageError(f"expected one Pod or one object with a pod's template in `{file}`, got {len(pods)}")
    return pods[0]


def _show(pod_name: str, trial: Trial) -> None:
    output.line(f"{pod_name} {_SAID[trial.verdict]}{f': {trial.message}' if trial.message else ''} ({trial.verdict.value})")
    for change in trial.changes:
        output.line(f"  {change}")
    for reason in trial.reasons:
        output.line(f"  {reason.field}: {reason.message} ({reason.code.value})")
        output.line(f"    to mend it: {reason.remedy}")
