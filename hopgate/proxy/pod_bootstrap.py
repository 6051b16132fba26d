"""Envoy's bootstrap in a pod: the template `envoy/agent.yaml` filled with a plan of the injector and what the pod turned out to have.

It differs from one machine's in where Envoy listens (the pod has one network namespace), in how authz is reached and told who asks
(TLS, the pod's token), and in two more listeners: DNS, and the kubelet's probes. The filters that judge a hop are the same pieces.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hopgate.kubernetes import sidecar
from hopgate.kubernetes.sidecar import Plan, PlannedProbe, ProbeKind
from hopgate.manifests.document import Value
from hopgate.proxy import bootstrap
from hopgate.proxy.bootstrap import BootstrapError, CommonSpec, Filler
from hopgate.resources.private_authorities import PrivateAuthority

# In the proxy's image (Debian's package ca-certificates): whom the gate trusts as the other end of a registered outside name.
SYSTEM_ROOTS: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_ANY_STATUS_OF_SUCCESS: Final[Value] = [{"start": 200, "end": 400}]  # as the kubelet takes them; the end is not included


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFiles:
    """Where the files of a pod's sidecar are."""

    configuration: Path = Path(sidecar.CONFIGURATION_FOLDER)
    admin_socket: Path = Path(sidecar.ADMIN_SOCKET)
    token: Path = Path(sidecar.TOKEN_FILE)
    authorities: Path = Path(sidecar.AUTHORITIES_FOLDER)
    trust_bundle: Path = Path(sidecar.TRUST_BUNDLE)
    system_roots: Path = SYSTEM_ROOTS

    @property
    def bootstrap(self) -> Path:
        """Envoy's configuration."""
        return self.configuration / Path(sidecar.BOOTSTRAP_FILE).name

    @property
    def token_secret(self) -> Path:
        """The file that tells Envoy of the token's file."""
        return self.configuration / Path(sidecar.TOKEN_SECRET_FILE).name

    @property
    def authorities_secret(self) -> Path:
        """The file that tells Envoy of the file with authz's authorities."""
        return self.configuration / Path(sidecar.AUTHORITIES_SECRET_FILE).name


@dataclass(frozen=True, slots=True, kw_only=True)
class PodNetwork:
    """What a pod's network has. `ipv6` says whether the kernel has IPv6 there, whatever the pod's addresses are."""

    addresses: tuple[str, ...]
    ipv6: bool


def build(plan: Plan, network: PodNetwork, files: PodFiles, private: tuple[PrivateAuthority, ...] = ()) -> bytes:
    """The bootstrap as JSON. Raises BootstrapError."""
    filler = bootstrap.template_filler()
    loopbacks = ["127.0.0.1", "::1"] if network.ipv6 else ["127.0.0.1"]
    values = bootstrap.common_values(
        filler,
        CommonSpec(
            agent=plan.agent,
            admin_socket=files.admin_socket,
            trusted_ca=files.system_roots,
            private_authorities=private,
            max_heap_bytes=plan.max_heap_bytes,
        ),
        {"namespace": None, "capture_address": loopbacks[0], "more_capture_addresses": [*loopbacks[1:]], "credential_metadata": []},
    )
    values |= {
        "inbound_port": sidecar.INBOUND_PORT,
        "health_port": sidecar.HEALTH_PORT,
        "dns_port": sidecar.DNS_PORT,
        "more_open_addresses": ["::"] if network.ipv6 else [],
        "authz_addresses": [*_reachable(plan.authz_addresses, network.addresses)],
        "authz_port": plan.authz_port,
        "authz_name": plan.authz_name,
        "resolver_port": plan.resolver_port,
        "token_secret": str(files.token_secret),
        "token_folder": str(files.token.parent),
        "authorities_secret": str(files.authorities_secret),
        "authorities_folder": str(files.authorities),
        "health_filters": [_ready_filter(filler), *(_probe_filter(filler, probe) for probe in plan.probes)],
    }
    dns = [
        filler.fill_piece(f"dns_{kind}", {**values, "name": f"dns_{kind}_{number}", "address": address})
        for kind in ("datagram", "stream")
        for number, address in enumerate(loopbacks)
    ]
    probes = [filler.fill_piece("probe", _probe_values(filler, probe, network.addresses[0])) for probe in plan.probes]
    parts: dict[str, Value] = {
        "control_clusters": [filler.fill_piece("remote_control", {**values, "name": name}) for name in ("authz", "certificates")],
        "inbound_listeners": [filler.fill_piece("captured_inbound", values)],
        "inbound_clusters": [filler.fill_piece("captured_app", values)],
        "pod_listeners": [*dns, filler.fill_piece("health", values)],
        "pod_clusters": [filler.fill_piece("resolver", values), *probes],
    }
    return filler.fill_bootstrap({**values, **parts})


def token_secret(files: PodFiles) -> bytes:
    """The file through which Envoy reads the token, again whenever the kubelet renews it (secret discovery by file)."""
    return _secret("token", {"generic_secret": {"secret": {"filename": str(files.token)}}})


def authorities_secret(files: PodFiles) -> bytes:
    """The same for the authorities that vouch for authz."""
    trusted: Value = {"filename": str(files.authorities / sidecar.AUTHZ_AUTHORITY_KEY)}
    return _secret("authorities", {"validation_context": {"trusted_ca": trusted, "watched_directory": {"path": str(files.authorities)}}})


def _secret(name: str, content: Mapping[str, Value]) -> bytes:
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return json.dumps({"resources": [{"@type": kind, "name": name, **content}]}).encode()


def _reachable(addresses: Sequence[str], own: Sequence[str]) -> list[str]:
    """Those of a family that the pod has an address of. Raises BootstrapError when there is none."""
    try:
        families = {ipaddress.ip_address(address).version for address in own}
        found = [address for address in addresses if ipaddress.ip_address(address).version in families]
    except ValueError as error:
        raise BootstrapError(f"expected IP addresses of the pod and of authz: {error}", remedy="mend the injector's settings") from error
    if not found:
        raise BootstrapError(
            f"expected an address of authz of the pod's family ({', '.join(own) or 'none'}), got {', '.join(addresses) or 'none'}",
            remedy="give authz's Service the cluster's IP families",
        )
    return found


def _ready_filter(filler: Filler) -> Value:
    return filler.fill_piece("health_filter", {"path": sidecar.READY_PATH, "healthy": None})


def _probe_filter(filler: Filler, probe: PlannedProbe) -> Value:
    return filler.fill_piece("health_filter", {"path": probe.path, "healthy": {_cluster(probe): {"value": 100}}})


def _cluster(probe: PlannedProbe) -> str:
    return f"probe/{probe.name}"


def _probe_values(filler: Filler, probe: PlannedProbe, pod_address: str) -> dict[str, Value]:
    encrypted = probe.kind is ProbeKind.HTTP and probe.action.get("scheme") == "HTTPS"
    return {
        "name": _cluster(probe),
        "timeout": f"{probe.timeout_seconds}s",
        "period": f"{probe.period_seconds}s",
        "pod_address": pod_address,
        "port": probe.port,
        "http": _http_check(probe, pod_address) if probe.kind is ProbeKind.HTTP else None,
        "tcp": {} if probe.kind is ProbeKind.TCP else None,
        "grpc": {"service_name": str(probe.action.get("service") or "")} if probe.kind is ProbeKind.GRPC else None,
        "protocol_options": filler.fill_piece("http2", {}) if probe.kind is ProbeKind.GRPC else None,
        "transport_socket": filler.fill_piece("unverified_tls", {}) if encrypted else None,
    }


def _http_check(probe: PlannedProbe, pod_address: str) -> Value:
    """The kubelet's request: its Host is the pod's address unless the probe has another, and a path without its slash gets one."""
    headers = [(str(header["name"]), str(header.get("value") or "")) for header in _headers(probe.action)]
    named = [value for name, value in headers if name.lower() == "host"]
    address = f"[{pod_address}]" if ":" in pod_address else pod_address
    added: list[Value] = [
        # Envoy would read a percent sign as the start of a command.
        {"header": {"key": name, "value": value.replace("%", "%%")}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for name, value in headers
        if name.lower() != "host"
    ]
    path = str(probe.action.get("path") or "/")
    return {
        "host": named[0] if named else f"{address}:{probe.port}",
        "path": path if path.startswith("/") else f"/{path}",
        "request_headers_to_add": added,
        "expected_statuses": _ANY_STATUS_OF_SUCCESS,
    }


def _headers(action: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [header for header in action.get("httpHeaders") or () if isinstance(header, dict) and "name" in header]
