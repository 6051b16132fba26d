"""What an Envoy that is not ours is told, so that it asks this gate: filters, a cluster and a secret, from the template's own pieces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopgate.manifests.document import Value
from hopgate.proxy import bootstrap
from hopgate.proxy.bootstrap import Filler


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineAuthz:
    """The authz of one machine: its socket, and the file of the mesh's credential."""

    socket: Path
    credential_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAuthz:
    """The authz of a cluster, where it answers the Envoys of a mesh. `host` is a name or an IP address, `name` that in its certificate.

    `authorities` (PEM) vouch for it; `certificate` and `key` (PEM) say who asks.
    """

    host: str
    port: int
    name: str
    authorities: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSpec:
    """What an Envoy that is not ours is told. `destination` is what it stands before, `KIND:NAMESPACE/NAME`; None: Host or SNI says."""

    authz: MachineAuthz | ClusterAuthz
    destination: str | None = None
    check_timeout_seconds: float = bootstrap.CHECK_TIMEOUT_SECONDS


# What the manager of an Envoy that is not ours must do so that what is judged is what its upstream sees.
_MESH_MANAGER: Final = (
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "max_request_headers_kb",
    "common_http_protocol_options",
    "http2_protocol_options",
    "stream_idle_timeout",
    "request_headers_timeout",
)


def build_mesh(spec: MeshSpec) -> dict[str, Value]:
    """The parts for an Envoy that is not ours, by where they belong. Raises BootstrapError."""
    filler = bootstrap.template_filler()
    values: dict[str, Value] = {
        "authz_cluster": "hopgate_authz",
        "credential_metadata": [],
        "check_timeout": f"{spec.check_timeout_seconds:.3f}s",
        "max_body_bytes": bootstrap.MAX_BODY_BYTES,
        **(_on_machine(filler, spec.authz) if isinstance(spec.authz, MachineAuthz) else _in_cluster(filler, spec.authz)),
    }
    route = {} if spec.destination is None else filler.fill_piece("mesh_route", {**values, "destination": spec.destination})
    filled = filler.fill_piece("mesh", {**values, "mesh_route": route})
    parts = filled if isinstance(filled, dict) else {}
    manager = parts["http_connection_manager"]
    settings = manager.get("typed_config") if isinstance(manager, dict) else None
    settings = settings if isinstance(settings, dict) else {}
    return {**parts, "http_connection_manager": {name: settings[name] for name in _MESH_MANAGER}}


def _on_machine(filler: Filler, authz: MachineAuthz) -> dict[str, Value]:
    given: dict[str, Value] = {
        "authz_socket": str(authz.socket),
        "credential_name": "hopgate_credential",
        "credential_file": str(authz.credential_file),
    }
    return {
        "discovery": "STATIC",
        "authz_address": filler.fill_piece("mesh_socket", given),
        "authz_transport": None,
        "credential_filters": filler.fill_piece("mesh_credential", given),
        "mesh_secrets": [filler.fill_piece("mesh_secret", given)],
    }


def _in_cluster(filler: Filler, authz: ClusterAuthz) -> dict[str, Value]:
    given: dict[str, Value] = {
        "authz_host": authz.host,
        "authz_port": authz.port,
        "authz_name": authz.name,
        "authorities": str(authz.authorities),
        "certificate": str(authz.certificate),
        "private_key": str(authz.key),
    }
    return {
        "discovery": "STRICT_DNS",
        "authz_address": filler.fill_piece("mesh_address", given),
        "authz_transport": filler.fill_piece("mesh_tls", given),
        "credential_filters": None,
        "mesh_secrets": [],
    }
