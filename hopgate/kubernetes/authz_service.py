"""Where governed pods reach authz: the cluster addresses of its Service.

A pod keeps the addresses that it was made with, so they are read anew for each pod: a Service that was made again has others.
"""

from __future__ import annotations

import http
from typing import ClassVar

from hopgate.identity.names import ObjectName
from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.api import ClientError, Manifest, RefusedError


class NoAddressError(ClientError):
    """authz's Service is not there, or has no cluster address (yet)."""

    code: ClassVar[str] = "AuthzWithoutAddress"


class AuthzService:
    """The Service of this name."""

    def __init__(self, calls: Calls, name: ObjectName) -> None:
        self._calls = calls
        self._name = name

    def addresses(self) -> tuple[str, ...]:
        """At least one. Raises NoAddressError, or what else the client raises."""
        try:
            service = self._calls.call("GET", f"/api/v1/namespaces/{self._name.namespace}/services/{self._name.name}")
        except RefusedError as refused:
            if refused.status != http.HTTPStatus.NOT_FOUND:
                raise
            raise NoAddressError(f"expected the Service {self._name} of authz, which does not exist: install authz") from refused
        found = addresses_of(service)
        if not found:
            raise NoAddressError(f"expected the Service {self._name} of authz to have a cluster address, which it has not")
        return found


def addresses_of(service: Manifest) -> tuple[str, ...]:
    """A Service's cluster addresses, its first family's first; none for one that is headless, or leads to a name outside."""
    spec = service.get("spec") or {}
    return tuple(each for each in spec.get("clusterIPs") or (spec.get("clusterIP"),) if each and each != "None")
