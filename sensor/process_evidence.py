"""What a process says by what it is: its program, its files, its keys' names, where it runs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sensor.evidence import Evidence, EvidenceKind
from sensor.processes import Process
from sensor.providers import PackageKind

# By the name of the program's file: a name can be anybody's choice, so both only ever weigh, never decide.
BROWSERS: Final = frozenset(
    {
        "brave",
        "brave-browser",
        "chrome",
        "chromium",
        "chromium-browser",
        "epiphany",
        "firefox",
        "firefox-bin",
        "firefox-esr",
        "konqueror",
        "librewolf",
        "msedge",
        "opera",
        "qtwebengineprocess",
        "vivaldi-bin",
        "webkitnetworkprocess",
    }
)
COMMAND_LINE_CLIENTS: Final = frozenset(
    {
        "aria2c",
        "curl",
        "gnutls-cli",
        "grpcurl",
        "http",
        "https",
        "httpie",
        "links",
        "lynx",
        "nc",
        "ncat",
        "openssl",
        "socat",
        "w3m",
        "websocat",
        "wget",
        "wget2",
        "xh",
    }
)


def of_process(process: Process) -> Iterator[Evidence]:
    """All that speaks for or against, by what /proc says of it."""
    for package in process.packages:
        kind = EvidenceKind.AGENT_PROGRAM if package.kind is PackageKind.AGENT else EvidenceKind.SDK_IN_USE
        yield Evidence(kind=kind, subject=package.name)
    for variable in process.variables:
        yield Evidence(kind=EvidenceKind.PROVIDER_KEY, subject=variable)
    if process.placement.unattended:
        yield Evidence(kind=EvidenceKind.UNATTENDED, subject=str(process.placement))
    yield from of_program(process.command.script or process.executable or process.name)


def of_program(path: str) -> Iterator[Evidence]:
    """What the name of a program's file says."""
    name = path.rpartition("/")[2]
    if is_browser(path):
        yield Evidence(kind=EvidenceKind.BROWSER, subject=name)
    if name.lower() in COMMAND_LINE_CLIENTS:
        yield Evidence(kind=EvidenceKind.COMMAND_LINE_CLIENT, subject=name)


def is_browser(path: str) -> bool:
    """Whether the name of a program's file is a browser's."""
    return path.rpartition("/")[2].lower() in BROWSERS
