"""What an Envoy that is not ours needs to ask the gate, from the same template as our own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopgate.manifests.document import Value
from hopgate.proxy import bootstrap

# What its manager must do so that what is judged is what its upstream sees.
_MANAGER: Final = (
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "max_request_headers_kb",
    "common_http_protocol_options",
    "http2_protocol_options",
    "stream_idle_timeout",
    "request_headers_timeout",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSpec:
    """Where the gate is. `destination` is what the Envoy stands before, `KIND:NAMESPACE/NAME`; None: Host or SNI says."""

    authz_socket: Path
    credential_file: Path
    destination: str | None = None
    check_timeout_seconds: float = bootstrap.CHECK_TIMEOUT_SECONDS


def build(spec: MeshSpec) -> dict[str, Value]:
    """The parts, by where they belong; empty ones are left out. Raises BootstrapError."""
    filler = bootstrap.template_filler()
    values: dict[str, Value] = {
        "authz_cluster": "hopgate_authz",
        "authz_socket": str(spec.authz_socket),
        "credential_name": "hopgate_credential",
        "credential_file": str(spec.credential_file),
        "credentials": [],
        "check_timeout": f"{spec.check_timeout_seconds:.3f}s",
        "max_body_bytes": bootstrap.MAX_BODY_BYTES,
        "mesh_route": None if spec.destination is None else filler.fill_piece("mesh_route", {"destination": spec.destination}),
    }
    filled = filler.fill_piece("mesh", values)
    parts = filled if isinstance(filled, dict) else {}
    manager = parts.get("http_connection_manager")
    settings = manager.get("typed_config") if isinstance(manager, dict) else None
    kept = {name: settings[name] for name in _MANAGER} if isinstance(settings, dict) else {}
    return {name: part for name, part in {**parts, "http_connection_manager": kept}.items() if part}
