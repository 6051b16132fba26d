"""How pods are injected: the settings of an installation, and the names that people write and read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hopgate.kubernetes import sidecar
from hopgate.resources.kinds import Provider

# On a namespace: its pods are governed. On a pod, `disabled` asks for this pod to be left alone, which needs a right.
INJECT_LABEL: Final = "hopgate.dev/inject"
ENABLED: Final = "enabled"
DISABLED: Final = "disabled"
# On an injected pod: for selectors; and which settings it was injected with.
INJECTED_LABEL: Final = "hopgate.dev/injected"
DIGEST_ANNOTATION: Final = "hopgate.dev/injection"
# On a pod: variables (with commas between them) that are left as they are, whatever their names are.
KEEP_ENV_ANNOTATION: Final = "hopgate.dev/keep-env"

# The API server takes no shorter ones; a longer one would outlive what it speaks for.
SHORTEST_TOKEN_SECONDS: Final = 600
LONGEST_TOKEN_SECONDS: Final = 3600
_LARGEST_UID: Final = 2**31 - 1


class SettingsError(ValueError):
    """A setting can't be used."""


def capture_resources() -> Mapping[str, Mapping[str, str]]:
    """Of the capture container, where nothing else is asked for."""
    return {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}


def proxy_resources() -> Mapping[str, Mapping[str, str]]:
    """Of Envoy's container, where nothing else is asked for."""
    return {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One installation's. `image` has Envoy and the programs of `hopgate.proxy`. Raises SettingsError.

    `authz_addresses` are the cluster addresses of authz's Service, so that a pod's own DNS settings can't matter; `authz_name` is the name
    in its certificate. The addresses are found out for each pod (`authz_service`), and left out before that. `authorities` names the
    ConfigMap that every governed namespace has, with the keys of `hopgate.kubernetes.sidecar`.
    `max_heap_bytes` belongs below the memory limit of `proxy_resources`. With `refuse_unknown_users` a container must say its user by
    number; without it, one whose image names the proxy's user is not found out here.
    """

    image: str
    authz_addresses: tuple[str, ...] = ()
    authz_name: str
    authz_port: int
    resolver_port: int
    audience: str
    token_seconds: int = LONGEST_TOKEN_SECONDS
    proxy_uid: int = 1337
    image_pull_policy: str = "IfNotPresent"
    authorities: str = sidecar.AUTHORITIES_CONFIG_MAP
    capture_resources: Mapping[str, Mapping[str, str]] = field(default_factory=capture_resources)
    proxy_resources: Mapping[str, Mapping[str, str]] = field(default_factory=proxy_resources)
    max_heap_bytes: int = 160 << 20
    drain_seconds: int = 20
    refuse_unknown_users: bool = False

    def __post_init__(self) -> None:
        if not SHORTEST_TOKEN_SECONDS <= self.token_seconds <= LONGEST_TOKEN_SECONDS:
            raise SettingsError(
                f"expected a token's life of {SHORTEST_TOKEN_SECONDS} to {LONGEST_TOKEN_SECONDS} seconds, got {self.token_seconds}"
            )
        if not 0 < self.proxy_uid <= _LARGEST_UID:
            raise SettingsError(f"expected a user for the proxy that is not root, got {self.proxy_uid}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceFacts:
    """What is known of a pod's namespace. `providers` are those that its registry has: their SDKs find a placeholder key."""

    name: str
    governed: bool
    providers: frozenset[Provider] = frozenset()


def digest(settings: Settings) -> str:
    """The same for equal settings, another for others."""
    fields: Mapping[str, Any] = dataclasses.asdict(settings)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
