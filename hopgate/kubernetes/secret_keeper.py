"""Keeps one authority, and what it signs, in its Secret as `certificates.plan` says: what the keepers of all of them share.

The Secret is written only as the version that was read, so two that do this at once do no harm: the later one is refused and looks again.
"""

from __future__ import annotations

import http
from collections.abc import Callable, Iterable
from typing import Any, Final

from hopgate.kubernetes import certificates
from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.api import Manifest, RefusedError
from hopgate.kubernetes.certificates import Kept, Mint, Use

_TYPE: Final = "kubernetes.io/tls"


def find(calls: Calls, path: str) -> Manifest | None:
    """The object at this path; None where there is none. Raises ClientError."""
    try:
        return calls.call("GET", path)
    except RefusedError as refused:
        if refused.status == http.HTTPStatus.NOT_FOUND:
            return None
        raise


def owner(calls: Calls, cluster_role: str) -> Manifest:
    """What is owned by a ClusterRole of the installation goes with it, in whatever namespace it is: the `ownerReference`.

    Raises ClientError: nothing is made that would be left behind.
    """
    found = calls.call("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{cluster_role}")["metadata"]
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": found["name"], "uid": found["uid"]}


class SecretKeeper:
    """One Secret. `owner` is what it goes with, an `ownerReference`."""

    def __init__(self, calls: Calls, mint: Mint, *, namespace: str, name: str, use: Use, clock: Callable[[], int]) -> None:
        """`clock` gives Unix seconds."""
        self._calls = calls
        self._mint = mint
        self._namespace, self._name = namespace, name
        self._use = use
        self._clock = clock

    def find(self) -> Manifest | None:
        """The Secret as it is. Raises ClientError."""
        return find(self._calls, self._path)

    def keep(self, found: Manifest | None, bundles: Iterable[bytes], owner: Manifest | None = None) -> Kept:
        """Bring the Secret that `find` gave to what it is to be now. Raises ClientError (409: look again)."""
        kept = None if found is None else certificates.read(found, self._use)
        planned = certificates.plan(kept, bundles, self._use, self._clock(), self._mint)
        owned = owner is None or (found is not None and found["metadata"].get("ownerReferences") == [owner])
        if found is None or kept is None or not owned or certificates.write(kept) != certificates.write(planned):
            self._write(found, planned, owner)
        return planned

    @property
    def _folder(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/secrets"

    @property
    def _path(self) -> str:
        return f"{self._folder}/{self._name}"

    def _write(self, before: Manifest | None, planned: Kept, owner: Manifest | None) -> None:
        metadata: dict[str, Any] = {"name": self._name, "namespace": self._namespace}
        if before is not None:
            metadata.update({key: value for key, value in before["metadata"].items() if key != "managedFields"})
        if owner is not None:
            metadata["ownerReferences"] = [owner]
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": _TYPE if before is None else before.get("type") or "Opaque",
            "data": certificates.write(planned),
        }
        if before is None:
            self._calls.call("POST", self._folder, body)
        else:
            self._calls.call("PUT", self._path, body)
