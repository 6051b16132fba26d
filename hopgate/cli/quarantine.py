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
from hopgate.local.control import AgentStatus
from hopgate.local.errors import LocalError
from sensor import cgroups, enforcement, programs
from sensor.clock import now_ns
from sensor.enforcement import PINS, PINS_VARIABLE, Enforcement
from sensor.kernel import KernelError
from sensor.quarantine import Destination, Origin, Quarantine, QuarantineError, Wanted
from sensor.resource_quarantines import cgroup_of
from sensor.shadow_folder import SUFFIX, ShadowFolder
from sensor.state import reachable

_AGENT: Final = re.compile(r"[a-z0-9.-]+/[a-z0-9.-]+")
_SHADOW: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_pins = click.option(
    "--pins",
    type=click.Path(path_type=Path),
    default=PINS,
    envvar=PINS_VARIABLE,
    show_default=True,
    show_envvar=True,
    help="Where quarantines are pinned: a bpffs.",
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
    allowed: frozenset[Destination] = frozenset()


@click.command("quarantine", epilog="Example: hopgate quarantine demo/planner    (as root)")
@click.argument("subject", metavar="AGENT|SHADOW|CGROUP|PID", required=False)
@click.option("--list", "listing", is_flag=True, help="Show who is cut off, since when, and what was refused.")
@click.option("--uninstall", is_flag=True, help="Release all, and take hopgate's quarantine programs out of the kernel.")
@_data
@_pins
@_json
def command(*, subject: str | None, listing: bool, uninstall: bool, data: Path, pins: Path, as_json: bool) -> None:
    """Cut a program off from the network, at once and until it is released, also when everything of hopgate is killed.

    It is named as an agent that runs here (NAMESPACE/NAME), as a shadow agent of `hopgate discover`, by a cgroup's path below the cgroup2
    mount (/system.slice/bot.service), or by the id of a process. Its whole cgroup is cut off: it can open no connection, and those that are
    open are ended. A governed agent still reaches its gate, and nothing else.

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
@click.argument("subject", metavar="AGENT|SHADOW|CGROUP|PID")
@_data
@_pins
@_json
def release(*, subject: str, data: Path, pins: Path, as_json: bool) -> None:
    """End a quarantine, at once. SUBJECT is as `hopgate quarantine --list` shows it, or the id of a cgroup or of a process.

    A shadow agent's file is set to `quarantine: false`. An agent whose own manifest says `quarantine: true` is cut off again by its gate.

    Exit code 0: done; 1: it was not cut off; 2: wrong usage.
    """
    rights.require_root("hopgate release")
    try:
        standing = [each for each in enforcement.read(pins) if subject in (each.subject, str(each.cgroup_id))]
        if not standing and (subject.isdigit() or subject.startswith("/")):
            # Of a long path the kernel keeps only the beginning.
            numbers = {each.cgroup_id for each in _find(subject, data)}
            standing = [each for each in enforcement.read(pins) if each.cgroup_id in numbers]
        if not standing:
            raise SubjectError(f"expected someone who is cut off, got `{subject}`", remedy="see `hopgate quarantine --list`")
        _decide_release(standing, data)
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
        if each.origin is Origin.RESOURCE and _AGENT.fullmatch(each.subject):
            click.echo("  its Agent asked for it: set `spec.quarantine` to false, or its gate cuts it off again", err=True)


def _decide_release(standing: Sequence[Quarantine], data: Path) -> None:
    """Have the files of shadow agents say what is done, so that no sensor undoes it. Raises SubjectError."""
    folder = ShadowFolder(data)
    for each in standing:
        if _SHADOW.fullmatch(each.subject) and (folder.path / f"{each.subject}{SUFFIX}").exists():
            try:
                folder.decide(each.subject, quarantine=False)
            except (OSError, ValueError) as error:
                raise SubjectError(f"the file of shadow agent `{each.subject}` can't be written: {error}", remedy="mend it") from error


def _begin(found: Sequence[_Found], data: Path, pins: Path, *, as_json: bool) -> None:
    gates = [number for status in statuses(data) for number in (status.pid, status.authz_pid, status.sensor.pid) if number]
    with Enforcement(pins, protected=gates) as kernel:
        for each in found:
            cut = kernel.begin(Wanted(cgroup_id=each.cgroup_id, subject=each.subject, allowed=each.allowed), Origin.COMMAND)
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
    if _SHADOW.fullmatch(subject):
        return [_of_shadow(subject, data)]
    if not _AGENT.fullmatch(subject):
        raise SubjectError(
            f"expected NAMESPACE/NAME, a shadow agent's name, a cgroup's path or a process's id, got `{subject}`",
            remedy="see `hopgate status` and `hopgate discover`",
        )
    found = {_of_agent(agent) for status in statuses(data) for agent in status.agents if agent.agent == subject}
    if not found:
        raise SubjectError(f"expected an agent that runs here, got `{subject}`", remedy="see `hopgate status`")
    return sorted(found, key=lambda each: each.cgroup_id)


def _of_agent(agent: AgentStatus) -> _Found:
    number = agent.cgroup_id or _of_process(str(agent.pid)).cgroup_id
    return _Found(subject=agent.agent, cgroup_id=number, allowed=reachable(agent.listeners))


def _of_shadow(name: str, data: Path) -> _Found:
    """By the file that the sensor wrote of it, or by the id that its name ends with."""
    contents = ShadowFolder(data).read()
    found = [each for each in contents.shadows.values() if each.name == name or each.name.rpartition("-")[2] == name]
    if len(found) != 1:
        wrong = contents.mistakes.get(name)
        raise SubjectError(
            f"expected one shadow agent of the name `{name}`, "
            + (f"got a file that can't be read: {wrong}" if wrong else f"got {len(found)}"),
            remedy="mend the file" if wrong else f"see `{ShadowFolder(data).path}` and `hopgate discover`; a process's id names it, too",
        )
    number = cgroup_of(found[0].cgroup)
    if not number:
        raise SubjectError(
            f"expected a shadow agent that runs, `{found[0].name}` was last seen in the cgroup `{found[0].cgroup}`, which is gone",
            remedy="set `spec.quarantine: true` in its file: it is cut off when it is seen again beside `hopgate up`",
        )
    return _Found(subject=found[0].name, cgroup_id=number)


def _of_process(number: str) -> _Found:
    root = programs.root()
    try:
        path = cgroups.of_process(number) or cgroups.ROOT
    except OSError as error:
        raise SubjectError(f"expected a process that runs, got `{number}`", remedy="see `hopgate discover`") from error
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
