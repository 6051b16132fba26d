"""What the commands read of a cluster, each part by itself: who lacks a right learns which part is missing, and gets the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

from hopgate.kubernetes.api import ClientError, Manifest
from hopgate.resources.kinds import GROUP, VERSION

if TYPE_CHECKING:  # it brings Cedar along, which a command line has no use for
    from hopgate.kubernetes.access import Calls

_T = TypeVar("_T")
# One answer stays small enough to arrive within a call's time.
_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """Why a part could not be read: what the API server said, with the client's code."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


@dataclass(frozen=True, slots=True)
class Part(Generic[_T]):
    """What was read, or why it was not."""

    value: _T | None = None
    unread: Unread | None = None


def attempt(read: Callable[[], _T]) -> Part[_T]:
    """One part."""
    try:
        return Part(read())
    except ClientError as error:
        return Part(unread=Unread(code=error.code, message=str(error)))


class ClusterReader:
    """Lists and reads by plain requests. All raise ClientError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def governed_namespaces(self, label: str) -> list[Manifest]:
        """The namespaces with a label (`KEY=VALUE`)."""
        return self._list("/api/v1/namespaces", labelSelector=label)

    def namespace(self, name: str) -> Manifest:
        """One namespace."""
        return self._calls.call("GET", f"/api/v1/namespaces/{quote(name, safe='')}")

    def pods(self, namespace: str) -> list[Manifest]:
        """The pods of a namespace."""
        return self._list(f"/api/v1/namespaces/{quote(namespace, safe='')}/pods")

    def pod(self, namespace: str, name: str) -> Manifest:
        """One pod."""
        return self._calls.call("GET", f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}")

    def leases(self, namespace: str) -> list[Manifest]:
        """The Leases of a namespace."""
        return self._list(f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases")

    def secret(self, namespace: str, name: str) -> Manifest:
        """One Secret."""
        return self._calls.call("GET", f"/api/v1/namespaces/{quote(namespace, safe='')}/secrets/{quote(name, safe='')}")

    def webhook_configurations(self) -> list[Manifest]:
        """Every configuration of both kinds; each says its kind."""
        kinds = {
            "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
            "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
        }
        return [
            {**found, "kind": kind}
            for kind, plural in kinds.items()
            for found in self._list(f"/apis/admissionregistration.k8s.io/v1/{plural}")
        ]

    def resources(self, plural: str, namespaces: tuple[str, ...] | None) -> list[Manifest]:
        """The hopgate objects of a kind, of all namespaces or of these."""
        base = f"/apis/{GROUP}/{VERSION}"
        if namespaces is None:
            return self._list(f"{base}/{plural}")
        return [found for namespace in namespaces for found in self._list(f"{base}/namespaces/{quote(namespace, safe='')}/{plural}")]

    def try_pod(self, namespace: str, pod: Mapping[str, Any]) -> Manifest:
        """What the API server would make of a pod. A dry run: nothing is made or recorded."""
        return self._calls.call("POST", f"/api/v1/namespaces/{quote(namespace, safe='')}/pods?dryRun=All", pod)

    def _list(self, path: str, **parameters: str) -> list[Manifest]:
        items: list[Manifest] = []
        following: dict[str, str] = {}
        while True:
            page = self._calls.call("GET", f"{path}?{urlencode({**parameters, 'limit': str(_PAGE), **following})}")
            items.extend(page.get("items") or ())
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return items
            following = {"continue": token}
