"""What the rest of hopgate knows of an API server: kinds, listings, events, errors, and what can be asked. No vendor type.

ClientError
├── UnreachableError     no answer, or one that broke off
├── RefusedError         the API server answered with an error: `status`
│   └── ExpiredError     410: the revision is too old to watch from, list again
└── ConfigurationError   no usable kubeconfig, and not inside a cluster
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, ClassVar, Final, Protocol, Self

from hopgate.resources.kinds import GROUP, VERSION

Manifest = Mapping[str, Any]
# What a request holds: an object, or the operations of a JSON Patch.
Body = Mapping[str, Any] | list[Mapping[str, Any]]


class ClientError(Exception):
    """Root of what talking to the API server can raise. `code` is stable."""

    code: ClassVar[str] = "ClusterError"


class UnreachableError(ClientError):
    """The API server did not answer, or its answer broke off."""

    code: ClassVar[str] = "ClusterUnreachable"


class RefusedError(ClientError):
    """The API server answered with an error. `status` is HTTP's, `said` the whole of what it said, which the message may cut."""

    code: ClassVar[str] = "ClusterRefused"

    def __init__(self, status: int, message: str, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.said = said or message


class ExpiredError(RefusedError):
    """The revision is too old to be watched from: list again."""

    code: ClassVar[str] = "RevisionExpired"


class ConfigurationError(ClientError):
    """There is nothing that says where the API server is and who is asking."""

    code: ClassVar[str] = "ClusterNotConfigured"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedKind:
    """A kind as the API server has it. An empty `group` is the core. With a `namespace`, only its objects, with a `label` (`KEY=VALUE`)
    only those that have it, and with a `field` (`PATH=VALUE`) only those in which it is so. Of each object only the fields of `keep` are
    kept, each a part and a name in it; None: all.
    """

    kind: str
    plural: str
    group: str = GROUP
    version: str = VERSION
    namespace: str | None = None
    label: str | None = None
    field: str | None = None
    keep: tuple[tuple[str, str], ...] | None = None
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What stands in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version


AGENTS: Final = WatchedKind(kind="Agent", plural="agents")
TOOL_SERVERS: Final = WatchedKind(kind="ToolServer", plural="toolservers")
MODEL_PROVIDERS: Final = WatchedKind(kind="ModelProvider", plural="modelproviders")
POLICIES: Final = WatchedKind(kind="Policy", plural="policies")
CLUSTER_POLICIES: Final = WatchedKind(kind="ClusterPolicy", plural="clusterpolicies")
IDENTITY_PROVIDERS: Final = WatchedKind(kind="IdentityProvider", plural="identityproviders")
SHADOW_AGENTS: Final = WatchedKind(kind="ShadowAgent", plural="shadowagents")
SERVICES: Final = WatchedKind(kind="Service", plural="services", group="", version="v1")
PODS: Final = WatchedKind(kind="Pod", plural="pods", group="", version="v1")
# What `pods.read` reads of a pod: a twentieth of one. A cluster has thousands.
POD_IDENTITIES: Final = replace(
    PODS,
    keep=(
        ("metadata", "uid"),
        ("metadata", "namespace"),
        ("metadata", "name"),
        ("spec", "serviceAccountName"),
        ("spec", "hostNetwork"),
        ("status", "phase"),
        ("status", "podIPs"),
        ("status", "conditions"),
    ),
)

# What tells of a running pod whose it is.
RUNNING_PODS: Final = replace(
    PODS,
    keep=(
        ("metadata", "uid"),
        ("metadata", "namespace"),
        ("metadata", "name"),
        ("metadata", "deletionTimestamp"),
        ("spec", "serviceAccountName"),
        ("status", "phase"),
    ),
)
NAMESPACES: Final = WatchedKind(
    kind="Namespace", plural="namespaces", group="", version="v1", namespaced=False, keep=(("metadata", "name"), ("metadata", "labels"))
)


def leases(namespace: str, label: str) -> WatchedKind:
    """The Leases of one namespace with a label (`KEY=VALUE`): across the cluster each node renews one every few seconds."""
    return WatchedKind(kind="Lease", plural="leases", group="coordination.k8s.io", version="v1", namespace=namespace, label=label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All objects of a kind at one revision."""

    items: tuple[Manifest, ...] = field(repr=False)
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a watch: `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`. A bookmark's object has a revision and nothing else."""

    type: str
    object: Manifest = field(repr=False)
    revision: str


class Stream(Protocol):
    """One watch, open. Iterating raises ClientError; it ends by itself when the server ends it in order."""

    def __iter__(self) -> Iterator[Event]: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def stop(self) -> None:
        """End it from another thread, at once."""


class Source(Protocol):
    """What the informers need of the API server. All raise ClientError."""

    def list(self, kind: WatchedKind) -> Listing:
        """Every object of the kind, in all namespaces."""

    def watch(self, kind: WatchedKind, revision: str) -> Stream:
        """What changes after `revision`. Raises ExpiredError, here or on the way, where that is too old."""


class SecretSource(Protocol):
    """What the secrets need of the API server."""

    def read_secret(self, namespace: str, name: str) -> Manifest | None:
        """The Secret, None where there is none. Raises ClientError."""


class IdentitySource(Source, Protocol):
    """What knowing workloads, and being known as one of several processes, needs of the API server."""

    def read_jwks(self) -> Mapping[str, Any]:
        """The keys that the API server signs service accounts' tokens with (`/openid/v1/jwks`). Raises ClientError."""

    def apply_lease(self, manifest: Manifest) -> None:
        """Make the Lease, or bring it to what is given (server-side apply). Raises ClientError."""
