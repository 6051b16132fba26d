"""A cgroup's path to who runs there, as kubelets, runtimes, engines and systemd write it."""

from __future__ import annotations

import random
import string

import pytest

from sensor import containers
from sensor.containers import NOWHERE, Placement

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
UID = "a1b2c3d4-1111-2222-3333-444455556666"
SLICE = UID.replace("-", "_")
STATIC = UID.replace("-", "")


def pod(runtime: str = "", uid: str = UID, container: str = ID) -> Placement:
    return Placement(pod=uid, container=container, runtime=runtime)


ROWS = {
    "cgroupfs, burstable": (f"/kubepods/burstable/pod{UID}/{ID}", pod()),
    "cgroupfs, besteffort": (f"/kubepods/besteffort/pod{UID}/{ID}", pod()),
    "cgroupfs, guaranteed": (f"/kubepods/pod{UID}/{ID}", pod()),
    "systemd, containerd": (
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/cri-containerd-{ID}.scope",
        pod("containerd"),
    ),
    "systemd, guaranteed, crio": (f"/kubepods.slice/kubepods-pod{SLICE}.slice/crio-{ID}.scope", pod("cri-o")),
    "systemd, crio, a level below": (f"/kubepods.slice/kubepods-pod{SLICE}.slice/crio-{ID}.scope/container", pod("cri-o")),
    "systemd, docker": (f"/kubepods.slice/kubepods-pod{SLICE}.slice/docker-{ID}.scope", pod("docker")),
    "mixed": (f"/system.slice/containerd.service/kubepods-burstable-pod{SLICE}.slice:cri-containerd:{ID}", pod("containerd")),
    "static pod": (f"/kubepods/burstable/pod{STATIC}/{ID}", pod(uid=STATIC)),
    "kind": (
        f"/system.slice/docker-{OTHER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
        f"/kubelet-kubepods-besteffort-pod{SLICE}.slice/cri-containerd-{ID}.scope",
        pod("containerd"),
    ),
    "systemd inside the container": (
        f"/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{ID}.scope/init.scope",
        pod("containerd"),
    ),
    "a service inside the container": (
        f"/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{ID}.scope/system.slice/a.service",
        pod("containerd"),
    ),
    "docker, cgroupfs": (f"/docker/{ID}", Placement(container=ID, runtime="docker")),
    "docker, systemd": (f"/system.slice/docker-{ID}.scope", Placement(container=ID, runtime="docker")),
    "docker in docker": (f"/docker/{OTHER}/docker/{ID}", Placement(container=ID, runtime="docker")),
    "podman": (f"/machine.slice/libpod-{ID}.scope", Placement(container=ID, runtime="podman")),
    "podman, its payload": (f"/machine.slice/libpod-{ID}.scope/container", Placement(container=ID, runtime="podman")),
    "podman without root": (
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
        Placement(container=ID, runtime="podman"),
    ),
    "podman, cgroupfs": (f"/libpod_parent/libpod-{ID}", Placement(container=ID, runtime="podman")),
    "podman's monitor is outside": (
        f"/machine.slice/libpod-conmon-{ID}.scope",
        Placement(unit=f"libpod-conmon-{ID}.scope"),
    ),
    "containerd by itself": (f"/default/{ID}", Placement(container=ID, runtime="containerd")),
    "nerdctl": (f"/system.slice/nerdctl-{ID}.scope", Placement(container=ID, runtime="containerd")),
    "an engine nobody knows": (f"/cages/{ID}", Placement(container=ID)),
    "lxc": ("/lxc.payload.web/system.slice/a.service", Placement(container="web", runtime="lxc")),
    "lxc, old": ("/lxc/web", Placement(container="web", runtime="lxc")),
    "nspawn": ("/machine.slice/systemd-nspawn@web.service/payload", Placement(container="web", runtime="systemd-nspawn")),
    "machine": (r"/machine.slice/machine-web\x2d1.scope", Placement(container="web-1", runtime="machine")),
    "service": ("/system.slice/cron.service", Placement(unit="cron.service")),
    "service, escaped": (r"/system.slice/system-my\x2dagent.slice/my\x2dagent@1.service", Placement(unit="my-agent@1.service")),
    "service, delegated": ("/system.slice/a.service/init.scope", Placement(unit="a.service")),
    "systemd itself": ("/init.scope", Placement(unit="init.scope")),
    "login": ("/user.slice/user-1000.slice/session-3.scope", Placement(unit="session-3.scope", session=True)),
    "desktop program": (
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-terminal-4.scope",
        Placement(unit="app-gnome-terminal-4.scope", session=True),
    ),
    "root": ("/", NOWHERE),
    "empty": ("", NOWHERE),
    "a slice": ("/system.slice", NOWHERE),
    "no id: 63 digits": (f"/docker/{ID[:-1]}", NOWHERE),
    "no id: 65 digits": (f"/docker/{ID}0", NOWHERE),
    "no id: capitals": (f"/docker/{ID.upper()}", NOWHERE),
    "the pod's own level": (f"/kubepods/burstable/pod{UID}", NOWHERE),
}


@pytest.mark.parametrize(("path", "expected"), ROWS.values(), ids=ROWS.keys())
def test_a_path(path: str, expected: Placement) -> None:
    assert containers.place(path) == expected


def test_a_hybrid_node_names_the_container_in_the_old_controllers_only() -> None:
    text = f"9:name=systemd:/docker/{ID}\n4:memory:/docker/{ID}\n1:cpu:/docker/{ID}\n0::/\n"
    assert containers.of_process(text) == Placement(container=ID, runtime="docker")


def test_the_line_of_cgroup2_comes_first_where_both_name_a_unit() -> None:
    assert containers.of_process("1:name=systemd:/system.slice/old.service\n0::/system.slice/new.service\n") == Placement(
        unit="new.service"
    )


@pytest.mark.parametrize("text", ["", "0::/\n", "nonsense", "0:", "::\n"])
def test_lines_that_name_nothing(text: str) -> None:
    assert containers.of_process(text) == NOWHERE


def test_a_person_is_at_the_keyboard_of_a_session_only() -> None:
    assert not containers.place("/user.slice/user-1000.slice/session-3.scope").unattended
    assert containers.place("/system.slice/cron.service").unattended
    assert not NOWHERE.unattended
    assert containers.place(f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope").unattended


def test_any_path_has_an_answer() -> None:
    rng = random.Random(7)
    parts = ["/", "pod", UID, SLICE, ID, ".slice", ":", "-", ".scope", "docker", "libpod-conmon-", "\\x2d", "\\xff", *string.printable]
    for _ in range(20_000):
        text = "".join(rng.choices(parts, k=rng.randrange(12)))
        placement = containers.place(text)
        assert placement.is_known == bool(str(placement))
