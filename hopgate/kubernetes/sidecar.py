"""What the injector and the programs inside a pod agree on: names, ports, paths, and the plan that one hands to the other.

The injector writes the plan into the capture container's environment; the capture program makes rules and Envoy's configuration of
it. A plan holds nothing secret, and a pod's owner could write one: it names only what concerns that pod itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

CAPTURE_CONTAINER: Final = "hopgate-capture"
PROXY_CONTAINER: Final = "hopgate-proxy"
TOKEN_VOLUME: Final = "hopgate-token"  # noqa: S105 - a volume's name
CONFIGURATION_VOLUME: Final = "hopgate-configuration"
ADMIN_VOLUME: Final = "hopgate-admin"
AUTHORITIES_VOLUME: Final = "hopgate-authorities"
TRUST_VOLUME: Final = "hopgate-trust"
CONTAINERS: Final = frozenset({CAPTURE_CONTAINER, PROXY_CONTAINER})
VOLUMES: Final = frozenset({TOKEN_VOLUME, CONFIGURATION_VOLUME, ADMIN_VOLUME, AUTHORITIES_VOLUME, TRUST_VOLUME})

OUTBOUND_PORT: Final = 15001
INBOUND_PORT: Final = 15006
HEALTH_PORT: Final = 15020
DNS_PORT: Final = 15053
PORTS: Final = frozenset({OUTBOUND_PORT, INBOUND_PORT, HEALTH_PORT, DNS_PORT})

CONFIGURATION_FOLDER: Final = "/etc/hopgate/proxy"
BOOTSTRAP_FILE: Final = f"{CONFIGURATION_FOLDER}/envoy.json"
TOKEN_SECRET_FILE: Final = f"{CONFIGURATION_FOLDER}/token.json"
AUTHORITIES_SECRET_FILE: Final = f"{CONFIGURATION_FOLDER}/authorities.json"
ADMIN_FOLDER: Final = "/run/hopgate/admin"
ADMIN_SOCKET: Final = f"{ADMIN_FOLDER}/envoy.sock"
TOKEN_FOLDER: Final = "/var/run/secrets/hopgate.dev"  # noqa: S105 - a folder
TOKEN_FILE: Final = f"{TOKEN_FOLDER}/token"
# The ConfigMap of every governed namespace, and where it is mounted:
# whom the sidecar trusts as authz, and whom the app trusts as the other end of opened TLS.
AUTHORITIES_CONFIG_MAP: Final = "hopgate-authorities"
AUTHORITIES_FOLDER: Final = "/etc/hopgate/authorities"
AUTHZ_AUTHORITY_KEY: Final = "authz.pem"
OPEN_TLS_AUTHORITY_KEY: Final = "open-tls.pem"
# Where the app finds its bundle: the image's own roots and the gate's CA.
TRUST_FOLDER: Final = "/etc/hopgate/trust"
TRUST_BUNDLE: Final = f"{TRUST_FOLDER}/ca-certificates.pem"

PLAN_VARIABLE: Final = "HOPGATE_PLAN"
POD_ADDRESSES_VARIABLE: Final = "HOPGATE_POD_IPS"
READY_PATH: Final = "/ready"
PROBE_PATH: Final = "/probe"


class ProbeKind(StrEnum):
    """How a probe asks. The values are the fields' names in a container's probe (Kubernetes API, Probe)."""

    HTTP = "httpGet"
    TCP = "tcpSocket"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedProbe:
    """A probe of the app that Envoy carries out. `name` is CONTAINER/PROBE; `port` has been resolved; seconds as the probe has them.

    `action` is the probe's own action, as the pod had it; `period_seconds` is how long an answer may be old.
    """

    name: str
    kind: ProbeKind
    port: int
    action: Mapping[str, Any]
    period_seconds: int
    timeout_seconds: int

    @property
    def path(self) -> str:
        """Where the kubelet asks for it instead."""
        return f"{PROBE_PATH}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that the capture program needs to know. `authz_addresses` are of the Service that `authz_name` names in its certificate."""

    agent: str
    proxy_uid: int
    authz_addresses: tuple[str, ...]
    authz_name: str
    authz_port: int
    resolver_port: int
    max_heap_bytes: int
    probes: tuple[PlannedProbe, ...] = ()

    def to_json(self) -> str:
        """As text, always the same for equal plans."""
        probes = [
            {
                "name": probe.name,
                "kind": probe.kind.value,
                "port": probe.port,
                "action": dict(probe.action),
                "periodSeconds": probe.period_seconds,
                "timeoutSeconds": probe.timeout_seconds,
            }
            for probe in self.probes
        ]
        fields = {
            "agent": self.agent,
            "proxyUser": self.proxy_uid,
            "authz": {"addresses": list(self.authz_addresses), "name": self.authz_name, "port": self.authz_port},
            "resolverPort": self.resolver_port,
            "maxHeapBytes": self.max_heap_bytes,
            "probes": probes,
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))


class PlanError(ValueError):
    """A text is not a plan."""


def parse(text: str) -> Plan:
    """The plan that `to_json` wrote. Raises PlanError."""
    try:
        fields = json.loads(text)
        authz = fields["authz"]
        return Plan(
            agent=_text(fields["agent"]),
            proxy_uid=_number(fields["proxyUser"]),
            authz_addresses=tuple(_text(address) for address in authz["addresses"]),
            authz_name=_text(authz["name"]),
            authz_port=_number(authz["port"]),
            resolver_port=_number(fields["resolverPort"]),
            max_heap_bytes=_number(fields["maxHeapBytes"]),
            probes=tuple(_probe(probe) for probe in fields["probes"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PlanError("expected a plan of the injector") from error


def _probe(fields: Mapping[str, Any]) -> PlannedProbe:
    if not isinstance(fields["action"], dict):
        raise TypeError
    return PlannedProbe(
        name=_text(fields["name"]),
        kind=ProbeKind(fields["kind"]),
        port=_number(fields["port"]),
        action=fields["action"],
        period_seconds=_number(fields["periodSeconds"]),
        timeout_seconds=_number(fields["timeoutSeconds"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value
