"""The capture program in real network namespaces: what an app can send, what can come in, and what the program has left at its end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hopgate.kubernetes import private_authorities, sidecar
from hopgate.resources.private_authorities import PrivateAuthority
from tests.hopgate.proxy import pods
from tests.hopgate.proxy.pods import APP_UID, POD4, POD6, PROXY_UID, Pod
from tokenmint.authority import Authority

pytestmark = pytest.mark.root

ELSEWHERE = {socket.AF_INET: "203.0.113.9", socket.AF_INET6: "2001:db8:5::5"}
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
POD = {socket.AF_INET: POD4, socket.AF_INET6: POD6}
DEADLINE_SECONDS = 5.0

# As a user inside: one packet or connection; what came of it.
_SEND = """
import os, socket, sys
uid, family, kind, protocol, address, port = int(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5], int(sys.argv[6])
if protocol:
    made = socket.socket(family, kind, protocol)
    os.setuid(uid)
else:
    os.setuid(uid)
    made = socket.socket(family, kind)
made.settimeout(2)
try:
    made.connect((address, port))
    made.send(b"\\x80\\0\\0\\0\\0\\0\\0\\0" if protocol == 58 else b"\\x08\\0\\0\\0\\0\\0\\0\\0")
    print("sent")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def bare() -> Iterator[Pod]:
    with pods.made() as pod:
        yield pod


@pytest.fixture
def captured(bare: Pod, tmp_path: Path) -> Pod:
    bare.capture(pods.plan(), pods.files_below(tmp_path))
    return bare


def send(pod: Pod, uid: int, family: int, kind: int, address: str, port: int, protocol: int = 0) -> str:
    arguments = [str(int(number)) for number in (uid, family, kind, protocol)]
    return pod.inside.run(sys.executable, "-c", _SEND, *arguments, address, str(port)).strip()


def listening(
    pod: Pod, family: socket.AddressFamily, address: str, port: int, kind: int = socket.SOCK_STREAM, *, inside: bool
) -> socket.socket:
    made = (pod.inside if inside else pod.outside).socket(family, kind)
    made.settimeout(DEADLINE_SECONDS)
    if kind == socket.SOCK_STREAM:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


def arrives(listener: socket.socket) -> bool:
    """Whether something has come; whoever sends has ended by now."""
    listener.settimeout(0.05)
    try:
        if listener.type == socket.SOCK_STREAM:
            listener.accept()[0].close()
        else:
            listener.recvfrom(100)
    except TimeoutError:
        return False
    return True


@FAMILIES
@pytest.mark.parametrize("uid", [APP_UID, 0], ids=["a user", "root"])
def test_tcp_of_everybody_but_the_proxy_comes_to_the_proxy(captured: Pod, family: socket.AddressFamily, uid: int) -> None:
    with (
        listening(captured, family, LOOPBACK[family], 15001, inside=True) as gate,
        listening(captured, family, ELSEWHERE[family], 443, inside=False) as outside,
    ):
        send(captured, uid, family, socket.SOCK_STREAM, ELSEWHERE[family], 443)
        assert (arrives(gate), arrives(outside)) == (True, False)
        send(captured, PROXY_UID, family, socket.SOCK_STREAM, ELSEWHERE[family], 443)
        assert (arrives(gate), arrives(outside)) == (False, True)


@FAMILIES
def test_before_capture_all_of_it_gets_out(bare: Pod, family: socket.AddressFamily) -> None:
    """So what the other tests see is the rules' doing."""
    with (
        listening(bare, family, ELSEWHERE[family], 443, inside=False) as stream,
        listening(bare, family, ELSEWHERE[family], 443, socket.SOCK_DGRAM, inside=False) as datagram,
    ):
        send(bare, APP_UID, family, socket.SOCK_STREAM, ELSEWHERE[family], 443)
        assert send(bare, APP_UID, family, socket.SOCK_DGRAM, ELSEWHERE[family], 443) == "sent"
        assert (arrives(stream), arrives(datagram)) == (True, True)
        assert send(bare, 0, family, socket.SOCK_RAW, ELSEWHERE[family], 0, 58 if family == socket.AF_INET6 else 1) == "sent"


@FAMILIES
def test_udp_is_refused_at_once_but_the_proxys(captured: Pod, family: socket.AddressFamily) -> None:
    with listening(captured, family, ELSEWHERE[family], 443, socket.SOCK_DGRAM, inside=False) as outside:
        assert send(captured, APP_UID, family, socket.SOCK_DGRAM, ELSEWHERE[family], 443) == "PermissionError"
        assert send(captured, 0, family, socket.SOCK_DGRAM, ELSEWHERE[family], 443) == "PermissionError"
        assert not arrives(outside)
        assert send(captured, PROXY_UID, family, socket.SOCK_DGRAM, ELSEWHERE[family], 443) == "sent"
        assert arrives(outside)


@FAMILIES
@pytest.mark.parametrize("uid", [0, PROXY_UID], ids=["root", "the proxy's user"])
def test_a_raw_packet_is_refused(captured: Pod, family: socket.AddressFamily, uid: int) -> None:
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    assert send(captured, uid, family, socket.SOCK_RAW, ELSEWHERE[family], 0, protocol) == "PermissionError"


@FAMILIES
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["UDP", "TCP"])
@pytest.mark.parametrize("where", ["elsewhere", "loopback"])
def test_a_dns_question_to_anywhere_comes_to_the_sidecar(captured: Pod, family: socket.AddressFamily, kind: int, where: str) -> None:
    address = ELSEWHERE[family] if where == "elsewhere" else LOOPBACK[family]
    with listening(captured, family, LOOPBACK[family], 15053, kind, inside=True) as sidecar:
        send(captured, APP_UID, family, kind, address, 53)
        assert arrives(sidecar)


@FAMILIES
@pytest.mark.parametrize("port", [8080, 15001, 53, 22])
def test_tcp_from_outside_comes_to_the_inbound_gate_whatever_its_port(captured: Pod, family: socket.AddressFamily, port: int) -> None:
    with (
        listening(captured, family, POD[family], 15006, inside=True) as gate,
        listening(captured, family, POD[family], port, inside=True) as app,
    ):
        _call(captured, family, port)
        assert (arrives(gate), arrives(app)) == (True, False)


@FAMILIES
def test_the_kubelet_reaches_the_health_port_and_no_other(captured: Pod, family: socket.AddressFamily) -> None:
    with (
        listening(captured, family, POD[family], 15006, inside=True) as gate,
        listening(captured, family, POD[family], 15020, inside=True) as health,
    ):
        _call(captured, family, 15020)
        assert (arrives(gate), arrives(health)) == (False, True)


def _call(pod: Pod, family: socket.AddressFamily, port: int) -> None:
    with pod.outside.socket(family) as caller:
        caller.settimeout(DEADLINE_SECONDS)
        caller.connect((POD[family], port))


@FAMILIES
def test_datagrams_from_outside_come_to_nobody(captured: Pod, family: socket.AddressFamily) -> None:
    with (
        listening(captured, family, POD[family], 9999, socket.SOCK_DGRAM, inside=True) as app,
        captured.outside.socket(family, socket.SOCK_DGRAM) as out,
    ):
        out.sendto(b"in", (POD[family], 9999))
        assert not arrives(app)


@FAMILIES
def test_the_containers_of_a_pod_talk_to_each_other_as_before(captured: Pod, family: socket.AddressFamily) -> None:
    for address in (LOOPBACK[family], POD[family]):
        with listening(captured, family, address, 8080, inside=True) as app:
            send(captured, APP_UID, family, socket.SOCK_STREAM, address, 8080)
            assert arrives(app)


def test_it_ends_without_any_right_and_leaves_what_envoy_and_the_app_read(bare: Pod, tmp_path: Path) -> None:
    files = pods.files_below(tmp_path)
    assert set(bare.capture(pods.plan(), files).split()) == {"0000000000000000"}
    assert files.trust_bundle.read_bytes() == b"roots\n\ngate\n"
    assert json.loads(files.bootstrap.read_bytes())["node"]["id"] == "demo/planner"
    assert str(files.token) in files.token_secret.read_text()
    assert {path.stat().st_mode & 0o777 for path in files.configuration.iterdir()} == {0o644}
    assert "the-pods-token" not in "".join(path.read_text() for path in files.configuration.iterdir())


def test_private_authorities_vouch_for_their_addresses_and_one_that_cannot_be_read_for_nothing(bare: Pod, tmp_path: Path) -> None:
    files = pods.files_below(tmp_path)
    good = PrivateAuthority(addresses=("198.18.0.8",), pem=Authority.create(int(time.time())).certificate_pem.decode())
    broken = PrivateAuthority(addresses=("198.18.0.9",), pem="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    text, _ = private_authorities.encode((broken, good))
    (files.authorities / sidecar.PRIVATE_AUTHORITIES_KEY).write_text(text)
    bare.capture(pods.plan(), files)
    written = files.bootstrap.read_text()
    assert json.dumps(good.pem) in written
    assert ("198.18.0.8" in written, "198.18.0.9" in written) == (True, False)


def test_a_second_start_puts_the_same_rules_in_force(bare: Pod, tmp_path: Path) -> None:
    files = pods.files_below(tmp_path)
    bare.capture(pods.plan(), files)
    rules, written = _ruleset(bare), files.bootstrap.read_bytes()
    bare.capture(pods.plan(), files)
    assert (_ruleset(bare), files.bootstrap.read_bytes()) == (rules, written)


def _ruleset(pod: Pod) -> str:
    text = pod.inside.run("nft", "list", "ruleset")
    return "\n".join(line.partition("counter")[0] for line in text.splitlines())


def test_a_pod_without_ipv6_is_captured_too(tmp_path: Path) -> None:
    with pods.made(ipv6=False) as pod:
        pod.capture(pods.plan(), files := pods.files_below(tmp_path), addresses=POD4)
        listeners = json.loads(files.bootstrap.read_bytes())["static_resources"]["listeners"]
        assert {found["address"]["socket_address"]["address"] for found in listeners} == {"127.0.0.1", "0.0.0.0"}  # noqa: S104 - of the pod
        assert not any(found.get("additional_addresses") for found in listeners)
        assert send(pod, APP_UID, socket.AF_INET, socket.SOCK_DGRAM, ELSEWHERE[socket.AF_INET], 443) == "PermissionError"


@pytest.mark.parametrize(
    "undone",
    ["delete rule", "insert accept"],
)
def test_rules_that_are_not_in_force_are_found_out(captured: Pod, undone: str) -> None:
    """What proves them is what an app would do, so it sees what another program has changed."""
    prove = ("-c", "from hopgate.proxy import capture; capture.prove()")
    captured.inside.run(sys.executable, *prove)
    if undone == "delete rule":
        captured.inside.run("nft", "flush", "chain", "inet", "gate", "output")
    else:
        captured.inside.run("nft", "insert", "rule", "inet", "gate", "guard", "accept")
    entered = ("nsenter", f"--net=/proc/self/fd/{captured.inside.descriptor}", "--", sys.executable, *prove)
    done = subprocess.run(entered, capture_output=True, text=True, pass_fds=(captured.inside.descriptor,), check=False)
    assert done.returncode != 0
    assert "CaptureError" in done.stderr


@pytest.mark.parametrize(
    ("plan", "addresses", "said"),
    [
        ("{}", POD4, "expected a plan"),
        (None, "", "expected the pod's addresses"),
        (None, "fd00:1::1", "an address of authz of the pod's family"),
    ],
    ids=["no plan", "no addresses", "another family"],
)
def test_what_is_missing_is_said_and_nothing_starts(bare: Pod, tmp_path: Path, plan: str | None, addresses: str, said: str) -> None:
    files = pods.files_below(tmp_path)

    class Given:
        def to_json(self) -> str:
            return pods.plan().to_json() if plan is None else plan

    with pytest.raises(AssertionError, match=said):
        bare.capture(Given(), files, addresses=addresses)  # type: ignore[arg-type]  # a plan as somebody else might write one
    assert not files.bootstrap.exists()
