"""From a cgroup's path to who runs there: a pod's container, an engine's container, a systemd unit. Pure.

Paths are searched, never matched whole: nodes that are containers themselves put prefixes before (`/kubelet.slice/…`), runtimes put
levels below the container (`…/init.scope`). Where a path names several containers, one inside the other, the innermost is meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_UID: Final = r"[0-9a-f]{8}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{12}"
_ID: Final = r"[0-9a-f]{64}"
# cgroupfs driver (`/podUID/ID`), systemd driver (`-podUID.slice/RUNTIME-ID.scope`), and the mix (`-podUID.slice:RUNTIME:ID`).
# Static pods have their UID without dashes; the systemd driver writes `_` for `-`.
_POD = re.compile(rf"pod({_UID})(?:\.slice)?[/:](?:([a-z-]+)[-:])?({_ID})(?![0-9a-f])")
# An engine's own: `/docker/ID`, `/libpod_parent/libpod-ID`, `docker-ID.scope`, `/default/ID` of containerd. `libpod-conmon-ID.scope`
# and `crio-conmon-ID.scope` are monitors outside the container, `libpod-payload-ID` is the inside.
_CONTAINER = re.compile(rf"/(?:([a-z][a-z0-9._-]*?)[-:])?({_ID})(?![0-9a-f])")
# lxc and systemd-nspawn name containers instead of numbering them.
_NAMED = re.compile(r"/(?:(lxc)(?:\.payload[./]|/)([^/]+)|machine-([^/]+)\.scope|(systemd-nspawn)@([^/]+)\.service)")
_UNIT = re.compile(r"/([^/]+\.(?:service|scope))(?=/|$)")
_RUNTIMES: Final = {
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "default": "containerd",
    "k8s.io": "containerd",
    "crio": "cri-o",
    "docker": "docker",
    "libpod": "podman",
    "libpod-payload": "podman",
    "libpod_parent": "podman",
    "ecs": "docker",
}
# The folder before a bare id names the engine; only these do.
_PARENTS = re.compile(rf"/(docker|libpod_parent|default|k8s\.io|ecs)/(?:[^/]+/)?{_ID}")
# What logind and the user's own manager make: a person's programs.
_SESSIONS = re.compile(r"session-[^/]+\.scope|user@\d+\.service|app-[^/]+\.scope|vte-spawn-[^/]+\.scope|user-[^/]+\.slice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a program runs; empty where nothing says so.

    `pod` is the pod's UID with dashes as the API server writes it (32 digits for a static pod), `container` an id of 64 hexadecimal
    digits or a name, `unit` a systemd unit. `session`: it belongs to a person who is logged in.
    """

    pod: str = ""
    container: str = ""
    runtime: str = ""
    unit: str = ""
    session: bool = False

    @property
    def is_known(self) -> bool:
        """Whether it names anything."""
        return bool(self.pod or self.container or self.unit)

    @property
    def unattended(self) -> bool:
        """Whether it is a container or a service, where nobody sits at a keyboard."""
        return bool(self.pod or self.container) or (bool(self.unit) and not self.session)

    def __str__(self) -> str:
        if self.pod:
            return f"container {self.container[:12]} of pod {self.pod}"
        if self.container:
            return f"{self.runtime or 'container'} {self.container[:12]}"
        return self.unit


NOWHERE: Final = Placement()


def place(path: str) -> Placement:
    """What the path of a cgroup says, from the mount's root on."""
    path = "/" + path.strip("/")
    pods = _POD.findall(path)
    if pods:
        uid, runtime, container = pods[-1]
        return Placement(pod=uid.replace("_", "-"), container=container, runtime=_RUNTIMES.get(runtime, runtime))
    containers = [found for found in _CONTAINER.findall(path) if not found[0].endswith("conmon")]
    if containers:
        prefix, container = containers[-1]
        parents = _PARENTS.findall(path)
        runtime = prefix or (parents[-1] if parents else "")
        return Placement(container=container, runtime=_RUNTIMES.get(runtime, runtime))
    named = _NAMED.findall(path)
    if named:
        lxc, lxc_name, machine, nspawn, nspawn_name = named[-1]
        return Placement(container=_unescaped(lxc_name or machine or nspawn_name), runtime=lxc or nspawn or "machine")
    units = _UNIT.findall(path)
    # `init.scope` is where systemd itself runs, and what it leaves inside a delegated unit.
    units = [unit for unit in units if unit != "init.scope"] or units
    if units:
        return Placement(unit=_unescaped(units[-1]), session=_SESSIONS.search(path) is not None)
    return NOWHERE


def of_process(text: str) -> Placement:
    """What /proc/PID/cgroup says: the line that tells most, the one of cgroup2 first.

    On a hybrid or v1 node the runtime places containers in the v1 controllers only, and the line of cgroup2 is `0::/`.
    """
    lines = sorted((line for line in text.splitlines() if line.count(":") >= 2), key=lambda line: not line.startswith("0::"))
    placements = [place(line.split(":", 2)[2]) for line in lines]
    return max(placements, key=lambda found: (bool(found.pod), bool(found.container), bool(found.unit)), default=NOWHERE)


def _unescaped(name: str) -> str:
    r"""`\x2d` as systemd writes a dash within a name."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), name)
