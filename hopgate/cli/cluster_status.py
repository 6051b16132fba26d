"""`hopgate status` of a cluster: reads each part, and shows what was found and what could not be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import click
import msgspec

from hopgate.cli import output
from hopgate.kubernetes import cluster_reader, cluster_status, injection_found, pod_coverage
from hopgate.kubernetes.api import ClientError, Manifest, UnreachableError
from hopgate.kubernetes.cluster_reader import ClusterReader, Unread
from hopgate.kubernetes.cluster_status import AuthzRow, ControllerRow, ResourceRow, WebhookRow
from hopgate.kubernetes.injection_settings import ENABLED, INJECT_LABEL, Settings
from hopgate.kubernetes.pod_coverage import Coverage
from hopgate.kubernetes.watcher import KINDS
from tokenmint import authority

_T = TypeVar("_T")
# Where the chart is installed when nobody says otherwise.
INSTALLATION: Final = "hopgate"
_DAY: Final = 86_400
# What a normal reader may not read, and what stands for itself without it.
_MAY_LACK: Final = frozenset({"certificates", "settings"})
# A pod that every webhook and every level of pod security accepts, to see which gate a new one gets.
_PROBE: Final[Manifest] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "hopgate-status-"},
    "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app:1", "securityContext": {"runAsUser": 1000}}]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """Everything that was found. `unread` has the parts that could not be read, with the reason."""

    healthy: bool
    installation: str
    namespaces: tuple[str, ...]
    pods: Coverage | None
    authz: tuple[AuthzRow, ...]
    webhooks: tuple[WebhookRow, ...]
    controller: tuple[ControllerRow, ...]
    resources: tuple[ResourceRow, ...]
    findings: tuple[str, ...]
    unread: Mapping[str, Unread]


@dataclass(slots=True)
class _Reading:
    """Reads part after part, and keeps what could not be read."""

    reader: ClusterReader
    unread: dict[str, Unread] = field(default_factory=dict)

    def part(self, name: str, read: Callable[[], _T]) -> _T | None:
        found = cluster_reader.attempt(read)
        if found.unread is not None:
            self.unread[name] = found.unread
        return found.value

    def listed(self, name: str, read: Callable[[], list[Manifest]]) -> list[Manifest]:
        return self.part(name, read) or []


def read(reader: ClusterReader, installation: str | None, namespaces: Sequence[str], now: float) -> ClusterStatus:
    """The status of a cluster, or of what concerns some namespaces in it."""
    reading = _Reading(reader)
    configurations = reading.listed("webhooks", reader.webhook_configurations)
    system = installation or cluster_status.installation_of(configurations) or INSTALLATION
    governed = _governed(reading, namespaces)
    pods = _coverage(reading, governed)
    leases = reading.listed("leases", lambda: reader.leases(system))
    own_pods = reading.listed("installation", lambda: reader.pods(system))
    authz = cluster_status.authz_rows(leases, own_pods, now)
    controller = cluster_status.controller_rows(leases, now)
    webhooks = () if "webhooks" in reading.unread else _webhooks(reading, configurations, now)
    resources = _resources(reading, tuple(namespaces) or None)
    findings = _findings(reading, authz, controller)
    standing = (*(row.findings for row in authz), *(row.findings for row in webhooks), *(row.findings for row in controller))
    well = not findings and not resources and pods is not None and not pods.rows and not any(standing)
    return ClusterStatus(
        healthy=well and not reading.unread.keys() - _MAY_LACK,
        installation=system,
        namespaces=tuple(sorted(str(each["metadata"]["name"]) for each in governed or ())),
        pods=pods,
        authz=authz,
        webhooks=webhooks,
        controller=controller,
        resources=resources,
        findings=findings,
        unread=reading.unread,
    )


def _governed(reading: _Reading, namespaces: Sequence[str]) -> list[Manifest] | None:
    if namespaces:
        found = [reading.part(f"namespace {name}", partial(reading.reader.namespace, name)) for name in namespaces]
        return [each for each in found if each and pod_coverage.is_governed(each)]
    return reading.part("namespaces", lambda: reading.reader.governed_namespaces(f"{INJECT_LABEL}={ENABLED}"))


def _coverage(reading: _Reading, governed: list[Manifest] | None) -> Coverage | None:
    if governed is None:
        return None
    listed: list[tuple[Manifest, list[Manifest]]] = []
    for namespace in governed:
        name = str(namespace["metadata"]["name"])
        listed.append((namespace, reading.listed(f"pods of {name}", partial(reading.reader.pods, name))))
    installed = _installed(reading, [str(each["metadata"]["name"]) for each in governed])
    return pod_coverage.cover(listed, installed)


def _installed(reading: _Reading, governed: Sequence[str]) -> Settings | None:
    """The settings with which a new pod would be injected now, by a dry run in one governed namespace."""
    refused: ClientError | None = None
    for name in governed:
        try:
            return injection_found.find(reading.reader.try_pod(name, _PROBE)).settings
        except ClientError as error:
            refused = error
    if refused is not None:
        reading.unread["settings"] = Unread(code=refused.code, message=str(refused))
    return None


def _webhooks(reading: _Reading, configurations: list[Manifest], now: float) -> tuple[WebhookRow, ...]:
    def secret(namespace: str, name: str) -> Manifest | None:
        return reading.part("certificates", lambda: reading.reader.secret(namespace, name))

    return cluster_status.webhook_rows(configurations, secret, authority.ends_at, now)


def _resources(reading: _Reading, namespaces: tuple[str, ...] | None) -> tuple[ResourceRow, ...]:
    found: list[Manifest] = []
    for kind in KINDS:
        namespaced = kind.kind not in {"ClusterPolicy", "IdentityProvider", "ShadowAgent"}
        if kind.group and (namespaced or namespaces is None):
            found += reading.listed(kind.plural, partial(reading.reader.resources, kind.plural, namespaces))
    return cluster_status.resource_rows(found)


def _findings(reading: _Reading, authz: Sequence[AuthzRow], controller: Sequence[ControllerRow]) -> tuple[str, ...]:
    found = []
    if not authz and not reading.unread.keys() & {"leases", "installation"}:
        found.append("no process of authz runs: every hop is denied")
    if not controller and "leases" not in reading.unread:
        found.append("no controller was ever elected: statuses are not written")
    return tuple(found)


def run(reader: ClusterReader, installation: str | None, namespaces: Sequence[str], *, as_json: bool) -> int:
    """Read and show. Returns the exit code: 0 all well, 1 something needs a person, 2 the cluster does not answer."""
    status = read(reader, installation, namespaces, time.time())
    if any(each.code == UnreachableError.code for each in status.unread.values()):
        for name, why in status.unread.items():
            click.echo(f"hopgate: {name}: {why}", err=True)
        return 2
    if as_json:
        output.json_lines([msgspec.to_builtins(status)])
    else:
        show(status)
    return 0 if status.healthy else 1


def show(status: ClusterStatus) -> None:
    """The status for people: a table for each part, what stands against it below."""
    _show_pods(status)
    _section(
        "authz",
        ("POD", "READY", "VERSION", "SNAPSHOT", "OLDEST WATCH", "CERTIFICATE", "KEY", "FAILED OPEN"),
        [_authz_cells(row) for row in status.authz],
        [bool(row.findings) for row in status.authz],
    )
    _section(
        "webhooks",
        ("WEBHOOK", "CONFIGURATION", "CERTIFICATE"),
        [(row.name, row.configuration or "-", _ends(row.certificate_ends_in)) for row in status.webhooks],
        [bool(row.findings) for row in status.webhooks],
    )
    _section(
        "controller",
        ("LEASE", "LEADER", "RENEWED"),
        [(row.lease, row.holder or "-", _ago(row.age)) for row in status.controller],
        [bool(row.findings) for row in status.controller],
    )
    _section(
        "resources that are not well",
        ("KIND", "NAME", "REASON", "MESSAGE"),
        [(row.kind, row.name, row.reason, row.message) for row in status.resources],
        [True for _ in status.resources],
    )
    for text in _said(status):
        output.line(text)


def _show_pods(status: ClusterStatus) -> None:
    if status.pods is None:
        return
    named = ", ".join(status.namespaces) or "none"
    output.line(f"governed namespaces: {named}; pods governed: {status.pods.governed}, not governed: {len(status.pods.rows)}")
    _section(
        "pods that are not governed",
        ("POD", "WHY", "MESSAGE", "TO MEND IT"),
        [(f"{row.namespace}/{row.name}", row.why.value, row.message, row.remedy) for row in status.pods.rows],
        [True for _ in status.pods.rows],
    )


def _section(heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]], red: Sequence[bool]) -> None:
    if rows:
        click.echo(f"\n{heading}")
        output.table(columns, rows, red=red)


def _said(status: ClusterStatus) -> list[str]:
    """What a person should look at, line by line."""
    found = [
        *(f"authz {row.pod}: {finding}" for row in status.authz for finding in row.findings),
        *(f"webhook {row.name}: {finding}" for row in status.webhooks for finding in row.findings),
        *(f"controller {row.lease}: {finding}" for row in status.controller for finding in row.findings),
        *status.findings,
    ]
    unread = [f"not read: {name}: {why}" for name, why in status.unread.items()]
    return ["", *found, *unread] if found or unread else []


def _authz_cells(row: AuthzRow) -> tuple[str, ...]:
    watch = "-" if row.oldest_watch is None else f"{row.oldest_watch} {_ago(row.oldest_watch_age)}"
    failed = "-" if row.failed_open is None else str(row.failed_open)
    ready = "yes" if row.ready else "no"
    return (row.pod, ready, row.version or "-", _ago(row.snapshot_age), watch, _ends(row.certificate_ends_in), _ago(row.key_age), failed)


def _ago(seconds: int | None) -> str:
    return "-" if seconds is None else _span(seconds)


def _ends(seconds: int | None) -> str:
    return "-" if seconds is None else "ended" if seconds <= 0 else f"{_span(seconds)} left"


def _span(seconds: int) -> str:
    """The larger unit: `5 s`, `3 min`, `4 h`, `12 d`."""
    for size, unit in ((_DAY, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
