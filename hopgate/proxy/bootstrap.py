"""Envoy's bootstrap for one agent: the template `envoy/agent.yaml` filled with the agent's values.

Here is what both ways to run share, and the values of one machine; those of a pod are in `pod_bootstrap`.

The template is read as a tree and filled as a tree (its own first lines state the three rules), so that no value can
become configuration. One bootstrap serves the agent's whole life: where a hop goes is in authz's answers, not here. The
one thing of the registry that it does hold are private authorities, since trust in one must not spread to other names.

`build` is all that a start needs. `check` reads the result with envoy-data-plane and refuses unknown fields; that library
takes half a second to import, so the tests and `make test` pay for it and a start does not.
"""

from __future__ import annotations

import functools
import importlib
import ipaddress
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hopgate.manifests import document
from hopgate.manifests.document import Value
from hopgate.proxy.errors import ProxyError
from hopgate.resources.addresses import RANGES
from hopgate.resources.kinds import Tls
from hopgate.resources.private_authorities import PrivateAuthority

CAPTURE_PORT: Final = 15001
AUTHZ_CLUSTER: Final = "authz"
# Larger bodies are judged as incomplete; the largest prompts with pictures in them are below it.
MAX_BODY_BYTES: Final = 1 << 20
# One agent's connections. Each may hold MAX_BODY_BYTES while it is judged; the heap limit stands above that.
MAX_CONNECTIONS: Final = 1024
MAX_HEAP_BYTES: Final = 512 << 20
# A check takes about a millisecond; a machine under load may need a thousand times that, and then the hop is refused.
CHECK_TIMEOUT_SECONDS: Final = 1.0

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_GROUP = "[0-9a-f]{1,4}"
_IPV6 = "|".join(
    (
        f"(?:{_GROUP}:){{7}}{_GROUP}",
        f"(?:{_GROUP}:){{1,7}}:",
        *(f"(?:{_GROUP}:){{1,{left}}}(?::{_GROUP}){{1,{7 - left}}}" for left in range(6, 0, -1)),
        f":(?::{_GROUP}){{1,7}}",
        "::",
    )
)
_PORT = "(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
# Exactly what Envoy can read as an address. It takes anything else for no address, and would dial the agent's choice instead.
DIAL_PATTERN: Final = rf"(?:{_OCTET}(?:\.{_OCTET}){{3}}|\[(?:{_IPV6})\]):{_PORT}"


class BootstrapError(ProxyError):
    """The bootstrap can't be made from what was given, or Envoy would not take it."""

    code = "BootstrapInvalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapSpec:
    """What differs between agents.

    `namespace` is a path to the agent's network namespace, as Envoy's own process can open it. `app_port` is the port that the
    agent's own server listens at, on its loopback address; None: there is no way in. `inbound_port` 0 lets the kernel choose.
    """

    agent: str
    workload_token: str = field(repr=False)
    namespace: str
    authz_socket: Path
    certificates_socket: Path
    admin_socket: Path
    trusted_ca: Path
    app_port: int | None = None
    inbound_port: int = 0
    private_authorities: tuple[PrivateAuthority, ...] = ()
    check_timeout_seconds: float = CHECK_TIMEOUT_SECONDS


def build(spec: BootstrapSpec) -> bytes:
    """The bootstrap of one machine, as JSON. Raises BootstrapError."""
    if spec.app_port == CAPTURE_PORT:
        raise BootstrapError(f"the agent can't listen at port {CAPTURE_PORT}, the gate's own", remedy="choose another port with --listen")
    filler = template_filler()
    common = common_values(
        filler,
        CommonSpec(
            agent=spec.agent,
            admin_socket=spec.admin_socket,
            trusted_ca=spec.trusted_ca,
            private_authorities=spec.private_authorities,
            check_timeout_seconds=spec.check_timeout_seconds,
        ),
        {
            "namespace": spec.namespace,
            "capture_address": "0.0.0.0",  # noqa: S104 - of the agent's own namespace
            "more_capture_addresses": ["::"],
            "credential_metadata": [{"key": "authorization", "value": f"Bearer {spec.workload_token}"}],
        },
    )
    given = {**common, "inbound_port": spec.inbound_port, "app_port": spec.app_port}
    inbound = spec.app_port is not None
    parts: dict[str, Value] = {
        "control_clusters": [
            filler.fill_piece("control", {"name": "authz", "socket": str(spec.authz_socket)}),
            filler.fill_piece("control", {"name": "certificates", "socket": str(spec.certificates_socket)}),
        ],
        "inbound_listeners": [filler.fill_piece("inbound", given)] if inbound else [],
        "inbound_clusters": [filler.fill_piece("app", given)] if inbound else [],
        "pod_listeners": [],
        "pod_clusters": [],
    }
    return filler.fill_bootstrap({**given, **parts})


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSpec:
    """What differs between agents wherever they run."""

    agent: str
    admin_socket: Path
    trusted_ca: Path
    private_authorities: tuple[PrivateAuthority, ...] = ()
    check_timeout_seconds: float = CHECK_TIMEOUT_SECONDS
    max_heap_bytes: int = MAX_HEAP_BYTES


def common_values(filler: Filler, spec: CommonSpec, ways: Mapping[str, Value]) -> dict[str, Value]:
    """The template's values that both ways to run have, with `ways`, those that the chains of private authorities need as well."""
    values: dict[str, Value] = {
        "node": spec.agent,
        "authz_cluster": AUTHZ_CLUSTER,
        "capture_port": CAPTURE_PORT,
        "admin_socket": str(spec.admin_socket),
        "trusted_ca": str(spec.trusted_ca),
        "check_timeout": f"{spec.check_timeout_seconds:.3f}s",
        "max_body_bytes": MAX_BODY_BYTES,
        "max_connections": MAX_CONNECTIONS,
        "max_heap_bytes": spec.max_heap_bytes,
        "dial_pattern": DIAL_PATTERN,
        **ways,
    }
    chains: list[Value] = []
    clusters: list[Value] = []
    for number, authority in enumerate(spec.private_authorities):
        cluster = f"upstream_tls_private_{number}"
        prefixes: list[Value] = [{"address_prefix": _open_address(address), "prefix_len": 32} for address in authority.addresses]
        for shape in ("tls", "http"):
            given: dict[str, Value] = {"name": f"private_{number}_{shape}", "prefixes": prefixes, "cluster": cluster}
            chains.append(filler.fill_piece(f"{shape}_chain", {**values, **given}))
        trusted: dict[str, Value] = {"name": cluster, "trusted_ca": {"inline_string": authority.pem}}
        clusters.append(filler.fill_piece("upstream_tls", {**values, **trusted}))
    return {**values, "private_chains": chains, "private_clusters": clusters}


def _open_address(text: str) -> str:
    """A chain for any other address would change how that address is treated, not only whom it is verified by."""
    opened = RANGES[Tls.OPEN]
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        address = None
    if address is None or address not in opened:
        raise BootstrapError(f"expected an address in {opened}, got `{text[:80]}`", remedy="give a virtual address of opened TLS")
    return str(address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filler:
    """Fills the template. A value that was put in is never looked at again."""

    bootstrap: Value
    pieces: Mapping[str, Value]

    def fill_bootstrap(self, scope: Mapping[str, Value]) -> bytes:
        """The whole, as JSON. Raises BootstrapError when the template names what `scope` has not."""
        return json.dumps(self._fill(self.bootstrap, scope)).encode()

    def fill_piece(self, name: str, scope: Mapping[str, Value]) -> Value:
        """One piece of the template. Raises BootstrapError."""
        return self._fill(_look_up(self.pieces, f"${name}"), scope)

    def _fill(self, part: Value, scope: Mapping[str, Value]) -> Value:
        if isinstance(part, str):
            return _look_up(scope, part) if part.startswith("$") else part
        if isinstance(part, list):
            return self._fill_list(part, scope)
        if not isinstance(part, dict):
            return part
        given = {key: value for key, value in part.items() if not key.startswith("$")}
        if "$piece" in part:
            return self.fill_piece(f"{part['$piece']}", {**scope, **{key: self._fill(value, scope) for key, value in given.items()}})
        if "$each" in part:
            items = self._fill(part["$each"], scope)
            return [self._fill(given, {**scope, "item": item}) for item in (items if isinstance(items, list) else [items])]
        filled = {key: self._fill(value, scope) for key, value in given.items()}
        return {key: value for key, value in filled.items() if value is not None}

    def _fill_list(self, parts: Sequence[Value], scope: Mapping[str, Value]) -> list[Value]:
        filled: list[Value] = []
        for part in parts:
            value = self._fill(part, scope)
            if isinstance(part, str) and isinstance(value, list):
                filled += value
            else:
                filled.append(value)
        return filled


def _look_up(scope: Mapping[str, Value], placeholder: str) -> Value:
    try:
        return scope[placeholder[1:]]
    except KeyError:
        raise BootstrapError(f"the template names `{placeholder}`, which has no value", remedy="install hopgate again") from None


@functools.cache
def template_filler() -> Filler:
    """The template, read once. Raises BootstrapError."""
    path = template_path()
    reading = document.read(path.read_bytes())
    tree = reading.documents[0].value if reading.documents and not reading.mistakes else None
    pieces = tree.get("pieces") if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or not isinstance(pieces, dict):
        raise BootstrapError(f"the template `{path}` can't be read: {reading.mistakes}", remedy="install hopgate again")
    return Filler(bootstrap=tree.get("bootstrap"), pieces=pieces)


def template_path() -> Path:
    """Where the template is: in the checkout, or where the distribution put its data. Raises BootstrapError."""
    for root in (Path(__file__).resolve().parents[2], Path(sys.prefix) / "share" / "hopgate"):
        path = root / "envoy" / "agent.yaml"
        if path.is_file():
            return path
    raise BootstrapError("Envoy's template `envoy/agent.yaml` is missing", remedy="install hopgate again")


def check(bootstrap: bytes) -> None:
    """Read a bootstrap with envoy-data-plane's types: unknown fields, types and enum values are refused. Raises BootstrapError."""
    tree = json.loads(bootstrap)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its generated code is older than the library under it
            from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap  # noqa: PLC0415 - half a second, for tests only

            for name in sorted(_type_names(tree)):
                importlib.import_module(f"envoy_data_plane.{name.rpartition('.')[0]}")  # registers the type
        Bootstrap.from_dict(tree)
    except (ImportError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BootstrapError(f"envoy-data-plane does not take the bootstrap: {error}", remedy="mend `envoy/agent.yaml`") from error


def _type_names(part: Value) -> set[str]:
    """The names of the messages that travel as Any."""
    if isinstance(part, list):
        return set().union(*(_type_names(item) for item in part))
    if not isinstance(part, dict):
        return set()
    own = part.get("@type")
    named = {own.rpartition("/")[2]} if isinstance(own, str) else set()
    return named.union(*(_type_names(value) for value in part.values()))
