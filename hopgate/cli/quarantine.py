"""`hopgate quarantine` and `hopgate release`: cut an agent off, and let it go again."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from hopgate.cli import output
from hopgate.cli.data import default_data_folder
from hopgate.cli.discover_gates import statuses
from hopgate.local import rights
from hopgate.local.errors import LocalError
from sensor import cgroups, enforcement, programs
from sensor.clock import now_ns
from sensor.enforcement import PINS, Enforcement
from sensor.kernel import KernelError
from sensor.quarantine import Origin, Quarantine, QuarantineError, Wanted

_AGENT: Final = re.compile(r"[a-z0-9.-]+/[a-z0-9.-]+")
_pins = click.option(
    "--pins", type=click.Path(path_type=Path), default=PINS, show_default=True, help="Where quarantines are pinned: a bpffs."
)
_data = click.option(
    "--data", type=click.Path(path_type=Path), default=default_data_folder, show_default=True, help="The gate's data folder."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


class SubjectError(LocalError):
    """There is nobody of that name, or it has no cgroup of its own."""

    code = "SubjectUnknown"


class UnenforceableError(LocalError):
    """The kernel can't do it here, or it was refused."""

    def __init__(self, error: KernelError | QuarantineError) -> None:
        super().__init__(str(error), remedy=error.remedy)
        self.code = error.code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    subject: str
    cgroup_id: int


@click.command("quarantine", epilog="Example: hopgate quarantine demo/planner    (as root)")
@click.argument("subject", metavar="AGENT|CGROUP|PID", required=False)
@click.option("--list", "listing", is_flag=True, help="Show who is cut off, since when, and what was refused.")
@click.option("--uninstall", is_flag=True, help="Release all, and take hopgate's quarantine programs out of the kernel.")
@_data
@_pins
@_json
def command(*, subject: str | None, listing: bool, uninstall: bool, data: Path, pins: Path, as_json: bool) -> None:
    """Cut a program off from the network, at once and until it is released, also when everything of hopgate is killed.

    It is named as an agent that runs here (NAMESPACE/NAME), by a cgroup's path below the cgroup2 mount (/system.slice/bot.service), or by
    the id of a process, whose whole cgroup is then cut off. It can open no connection, and those that are open are ended.

    Exit code 0: done; 1: it can't be done, and why; 2: wrong usage.
    """
    if [subject is not None, listing, uninstall].count(True) != 1:
        raise click.UsageError("name an agent, a cgroup or a process, or give --list or --uninstall")
    rights.require_root("hopgate quarantine")
    try:
        if listing:
            _show(enforcement.read(pins), as_json=as_json)
        elif uninstall:
            click.echo(f"released {enforcement.uninstall(pins)}; nothing of the quarantine is left in the kernel", err=True)
        elif subject is not None:
            _begin(_find(subject, data), data, pins, as_json=as_json)
    except (KernelError, QuarantineError) as error:
        raise UnenforceableError(error) from error


@click.command("release", epilog="Example: hopgate release demo/planner    (as root)")
@click.argument("subject", metavar="AGENT|CGROUP|PID")
@_pins
@_json
def release(*, subject: str, pins: Path, as_json: bool) -> None:
    """End a quarantine, at once. SUBJECT is as `hopgate quarantine --list` shows it, or the id of a cgroup or of a process.

    Exit code 0: done; 1: it was not cut off; 2: wrong usage.
    """
    rights.require_root("hopgate release")
    try:
        standing = [each for each in enforcement.read(pins) if subject in (each.subject, str(each.cgroup_id))]
        if not standing and subject.isdigit():
            number = _of_process(subject).cgroup_id
            standing = [each for each in enforcement.read(pins) if each.cgroup_id == number]
        if not standing:
            raise SubjectError(f"expected someone who is cut off, got `{subject}`", remedy="see `hopgate quarantine --list`")
        with Enforcement(pins) as kernel:
            for each in standing:
                kernel.end(each.cgroup_id)
    except (KernelError, QuarantineError) as error:
        raise UnenforceableError(error) from error
    for each in standing:
        if as_json:
            output.json_lines([{"released": each.subject, "cgroupId": each.cgroup_id}])
        else:
            output.line(f"{each.subject} is released")


def _begin(found: Sequence[_Found], data: Path, pins: Path, *, as_json: bool) -> None:
    gates = [number for status in statuses(data) for number in (status.pid, status.authz_pid, status.sensor.pid) if number]
    with Enforcement(pins, protected=gates) as kernel:
        for each in found:
            cut = kernel.begin(Wanted(cgroup_id=each.cgroup_id, subject=each.subject), Origin.COMMAND)
            if as_json:
                told = {"quarantined": each.subject, "cgroupId": each.cgroup_id, "connectionsEnded": cut.ended, "gaps": list(kernel.gaps)}
                output.json_lines([told])
            else:
                output.line(f"{each.subject} is cut off; {cut.ended} open connections ended")
            if cut.failed:
                output.line(f"  in {cut.failed} network namespaces open connections are silent, not ended: {cut.reason}")
        for gap in kernel.gaps:
            click.echo(f"  not stopped: {gap}", err=True)


def _find(subject: str, data: Path) -> list[_Found]:
    """The cgroups that a name stands for. Raises SubjectError."""
    if subject.isdigit():
        return [_of_process(subject)]
    if subject.startswith("/"):
        root = programs.root()
        folder = Path(subject) if Path(subject).is_relative_to(root) else root / subject.lstrip("/")
        if not (folder / "cgroup.procs").exists():
            raise SubjectError(f"expected the path of a cgroup below `{root}`, got `{subject}`", remedy="see /proc/PID/cgroup")
        return [_Found(subject=f"/{folder.relative_to(root)}", cgroup_id=folder.stat().st_ino)]
    if not _AGENT.fullmatch(subject):
        raise SubjectError(f"expected NAMESPACE/NAME, a cgroup's path or a process's id, got `{subject}`", remedy="see `hopgate status`")
    found = {_of_process(str(agent.pid)).cgroup_id for status in statuses(data) for agent in status.agents if agent.agent == subject}
    if not found:
        raise SubjectError(f"expected an agent that runs here, got `{subject}`", remedy="see `hopgate status`")
    return [_Found(subject=subject, cgroup_id=number) for number in sorted(found)]


def _of_process(number: str) -> _Found:
    root = programs.root()
    try:
        lines = Path(f"/proc/{number}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SubjectError(f"expected a process that runs, got `{number}`", remedy="see `hopgate discover`") from error
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), cgroups.ROOT)
    return _Found(subject=path, cgroup_id=(root / path.lstrip("/")).stat().st_ino)


def _show(standing: Sequence[Quarantine], *, as_json: bool) -> None:
    at = now_ns()
    if as_json:
        output.json_lines([_as_json(each, at) for each in standing])
    elif not standing:
        sys.stderr.write("nobody is cut off\n")
    else:
        rows = [
            [
                each.subject,
                str(each.cgroup_id),
                f"{(at - each.since_ns) // 1_000_000_000} s",
                each.origin.name.lower(),
                str(each.refused_connections),
                str(each.refused_sockets),
                str(each.dropped_packets),
            ]
            for each in standing
        ]
        output.table(["subject", "cgroup", "for", "by", "connections refused", "sockets refused", "packets dropped"], rows)


def _as_json(each: Quarantine, at: int) -> dict[str, Any]:
    return {
        "subject": each.subject,
        "cgroupId": each.cgroup_id,
        "seconds": (at - each.since_ns) // 1_000_000_000,
        "by": each.origin.name.lower(),
        "allowed": [str(one.endpoint) for one in sorted(each.allowed, key=str)],
        "refusedConnections": each.refused_connections,
        "refusedSockets": each.refused_sockets,
        "droppedPackets": each.dropped_packets,
    }
