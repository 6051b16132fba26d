"""The capture program: a pod's first init container. `python -m hopgate.proxy.capture`.

It puts the rules into the pod's network namespace, gives up every right, proves with real connections that the rules are in force, and
writes what Envoy and the app find later: Envoy's configuration and the app's trust bundle. When any of it fails it ends with an error,
and the pod does not start: the kubelet tries again.

It runs as root with NET_ADMIN alone, since Kubernetes gives no capability to another user. What it takes in is the injector's plan and
the pod's addresses, both from its environment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hopgate import kernel
from hopgate.kubernetes import private_authorities, sidecar
from hopgate.kubernetes.private_authorities import PrivateAuthoritiesError
from hopgate.kubernetes.sidecar import Plan, PlanError
from hopgate.proxy import netlink, pod_bootstrap, rules
from hopgate.proxy.errors import ProxyError
from hopgate.proxy.pod_bootstrap import PodFiles, PodNetwork
from hopgate.proxy.rules import PodPorts
from hopgate.resources.private_authorities import PrivateAuthority

# A connection over loopback takes microseconds; a machine under load may need longer.
_PROOF_SECONDS: Final = 5.0
# RFC 5737 and RFC 3849: addresses for documentation. Nothing is ever sent to them while the rules are in force.
_ELSEWHERE: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
_LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_DISCARD_PORT: Final = 9  # RFC 863; any port that is not DNS's
_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST has the same number
# The pod has no address or route of the family, or the kernel lacks it: there is nothing to capture.
_NO_WAY_OUT: Final = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EHOSTUNREACH})


class CaptureError(ProxyError):
    """The rules are not in force; nothing of the pod may run."""

    code = "CaptureFailed"


def install(proxy_uid: int) -> None:
    """Put the rules into the calling thread's network namespace, all or none. Raises CaptureError."""
    ports = PodPorts(
        proxy_uid=proxy_uid,
        outbound=sidecar.OUTBOUND_PORT,
        inbound=sidecar.INBOUND_PORT,
        dns=sidecar.DNS_PORT,
        health=sidecar.HEALTH_PORT,
    )
    try:
        with netlink.rules_socket() as connection:
            netlink.transact(connection, rules.of_pod(ports))
    except OSError as error:
        remedy = "give the capture container NET_ADMIN, on nodes with nf_tables, nft_redir, nft_reject_inet and nf_conntrack"
        raise CaptureError(f"the capture rules could not be installed: {error.strerror or error}", remedy=remedy) from error


def prove() -> None:
    """Send what an app would send, and see that it ends here: each family that has a way out, TCP, UDP and DNS. Raises CaptureError."""
    try:
        proven = [family for family in (socket.AF_INET, socket.AF_INET6) if _prove_family(family)]
    except OSError as error:
        raise CaptureError(f"expected the capture rules to be in force, got {error}", remedy="see the node's kernel log") from error
    if not proven:
        raise CaptureError("the pod has no route of either family to prove the rules by", remedy="see the node's network plugin")


def find_network(pod_addresses: str) -> PodNetwork:
    """The pod's network: its addresses as the downward API gives them (`status.podIPs`), and what the kernel has."""
    return PodNetwork(addresses=tuple(pod_addresses.split(",")), ipv6=_has_loopback6())


def write(plan: Plan, network: PodNetwork, files: PodFiles) -> None:
    """Write Envoy's configuration and the app's trust bundle. Raises ProxyError."""
    try:
        _write(files.trust_bundle, _trust_bundle(files))
        _write(files.token_secret, pod_bootstrap.token_secret(files))
        _write(files.authorities_secret, pod_bootstrap.authorities_secret(files))
        _write(files.bootstrap, pod_bootstrap.build(plan, network, files, _private_authorities(files)))
    except PrivateAuthoritiesError as error:
        remedy = f"remove {sidecar.PRIVATE_AUTHORITIES_KEY} from the ConfigMap; the controller makes it anew"
        raise CaptureError(f"{error} in {sidecar.PRIVATE_AUTHORITIES_KEY}", remedy=remedy) from error
    except OSError as error:
        raise CaptureError(f"the sidecar's files could not be written: {error}", remedy="see the capture container's mounts") from error


def run(environment: Mapping[str, str], files: PodFiles) -> None:
    """All of it, in order. Raises ProxyError."""
    try:
        plan = sidecar.parse(environment.get(sidecar.PLAN_VARIABLE, ""))
    except PlanError as error:
        raise CaptureError(f"{error} in {sidecar.PLAN_VARIABLE}", remedy="make the pod again, so that it is injected again") from error
    addresses = environment.get(sidecar.POD_ADDRESSES_VARIABLE, "")
    if not addresses:
        raise CaptureError(f"expected the pod's addresses in {sidecar.POD_ADDRESSES_VARIABLE}", remedy="see the node's network plugin")
    install(plan.proxy_uid)
    kernel.drop_capabilities()
    prove()
    write(plan, find_network(addresses), files)


def _prove_family(family: socket.AddressFamily) -> bool:
    """False when the pod has no way out of this family. Raises CaptureError, or OSError for what was not expected."""
    with contextlib.ExitStack() as held:
        try:
            proxy = held.enter_context(_bound(family, socket.SOCK_STREAM, sidecar.OUTBOUND_PORT))
            resolver = held.enter_context(_bound(family, socket.SOCK_DGRAM, sidecar.DNS_PORT))
            caller = held.enter_context(_socket(family, socket.SOCK_STREAM))
            caller.connect((_ELSEWHERE[family], _DISCARD_PORT))
        except OSError as error:
            if error.errno in _NO_WAY_OUT:
                return False
            raise
        accepted, _ = proxy.accept()
        with accepted:
            destination = _original_destination(accepted, family)
        if destination != (_ELSEWHERE[family], _DISCARD_PORT):
            raise CaptureError(f"a connection came to the gate as one to {destination}", remedy="remove what else changes packets here")
        _prove_datagrams(family, resolver)
    return True


def _prove_datagrams(family: socket.AddressFamily, resolver: socket.socket) -> None:
    with _socket(family, socket.SOCK_DGRAM) as asker:
        asker.sendto(b"question", (_ELSEWHERE[family], 53))
        resolver.recvfrom(16)
    with _socket(family, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(b"out", (_ELSEWHERE[family], _DISCARD_PORT))
        except PermissionError:
            return
    raise CaptureError("a datagram that is no DNS question was let out", remedy="see the node's kernel log")


def _original_destination(accepted: socket.socket, family: socket.AddressFamily) -> tuple[str, int]:
    if family == socket.AF_INET:
        found = accepted.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
        return socket.inet_ntop(family, found[4:8]), struct.unpack_from(">H", found, 2)[0]
    found = accepted.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
    return socket.inet_ntop(family, found[8:24]), struct.unpack_from(">H", found, 2)[0]


@contextlib.contextmanager
def _bound(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> Iterator[socket.socket]:
    with _socket(family, kind) as made:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((_LOOPBACK[family], port))
        if kind == socket.SOCK_STREAM:
            made.listen()
        yield made


def _socket(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(family, kind)
    made.settimeout(_PROOF_SECONDS)
    return made


def _has_loopback6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as made:
            made.bind(("::1", 0))
    except OSError:
        return False
    return True


def _private_authorities(files: PodFiles) -> tuple[PrivateAuthority, ...]:
    """Those that Envoy can use: of one that it can't, it would take none, and the pod would not start for another namespace's mistake.

    Raises PrivateAuthoritiesError.
    """
    file = files.authorities / sidecar.PRIVATE_AUTHORITIES_KEY
    found = private_authorities.decode(file.read_bytes()) if file.exists() else ()
    return tuple(each for each in found if _is_usable(each))


def _is_usable(authority: PrivateAuthority) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=authority.pem)
    except (ssl.SSLError, ValueError):
        sys.stderr.write(f"hopgate capture: the caBundle of {', '.join(authority.addresses)} can't be read: nothing is trusted there\n")
        return False
    return True


def _trust_bundle(files: PodFiles) -> bytes:
    """PEM: this image's roots, then the gate's CA of opened TLS."""
    return files.system_roots.read_bytes() + b"\n" + (files.authorities / sidecar.OPEN_TLS_AUTHORITY_KEY).read_bytes()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, for anybody of the pod who mounts it to read."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)
    new.replace(path)


def main() -> int:
    """Run as the capture container does. Returns its exit code."""
    try:
        run(os.environ, PodFiles())
    except ProxyError as error:
        sys.stderr.write(f"hopgate: {error}; {error.remedy} ({error.code})\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
