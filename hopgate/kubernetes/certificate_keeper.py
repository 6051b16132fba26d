"""Keeps the serving certificates in their Secret and the `caBundle` of the webhook configurations as `certificates.plan` says.

Called again and again by the leader. The Secret is written first, so that no key is trusted that could be lost; it and the
configurations are written only as the version that was read, so two that do this at once do no harm: the later one is refused and
looks again. Where cert-manager looks after the Secret, nothing is written here.
"""

from __future__ import annotations

import http
from collections.abc import Callable, Sequence
from typing import Any, Final

from hopgate.kubernetes import certificates
from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.api import Manifest, RefusedError
from hopgate.kubernetes.certificates import Kept, Mint

_CONFIGURATIONS: Final = "/apis/admissionregistration.k8s.io/v1"
# (plural, name) of a webhook configuration.
ConfigurationName = tuple[str, str]


class CertificateKeeper:
    """One Secret, the names that its certificate is for, and the configurations that trust it."""

    def __init__(
        self,
        calls: Calls,
        mint: Mint,
        *,
        namespace: str,
        secret: str,
        names: frozenset[str],
        configurations: Sequence[ConfigurationName],
        clock: Callable[[], int],
    ) -> None:
        """`clock` gives Unix seconds."""
        self._calls = calls
        self._mint = mint
        self._namespace, self._secret = namespace, secret
        self._names = names
        self._configurations = tuple(configurations)
        self._clock = clock

    def step(self) -> Kept | None:
        """Look, and do what is to be done now. Gives what is kept; None where it is not ours. Raises ClientError (409: look again)."""
        secret = self._find(f"/api/v1/namespaces/{self._namespace}/secrets/{self._secret}")
        if secret is not None and certificates.is_cert_managers(secret):
            return None
        found = [found for each in self._configurations if (found := self._find(_path(each))) is not None]
        own = [each for each in found if not certificates.is_cert_managers(each)]
        bundles = [bundle for each in own for bundle in certificates.bundles_of(each)]
        kept = None if secret is None else certificates.read(secret)
        planned = certificates.plan(kept, bundles, self._names, self._clock(), self._mint)
        if secret is None or kept is None or certificates.write(kept) != certificates.write(planned):
            self._write(secret, planned)
        for each in own:
            self._trust(each, planned.bundle)
        return planned

    def _write(self, before: Manifest | None, planned: Kept) -> None:
        metadata: dict[str, Any] = {"name": self._secret, "namespace": self._namespace}
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "kubernetes.io/tls",
            "data": certificates.write(planned),
        }
        if before is None:
            self._calls.call("POST", f"/api/v1/namespaces/{self._namespace}/secrets", body)
            return
        body["type"] = before.get("type") or "Opaque"
        metadata.update({key: value for key, value in before["metadata"].items() if key != "managedFields"})
        self._calls.call("PUT", f"/api/v1/namespaces/{self._namespace}/secrets/{self._secret}", body)

    def _trust(self, configuration: Manifest, bundle: bytes) -> None:
        patch = certificates.bundle_patch(configuration, bundle)
        if patch:
            plural = "mutatingwebhookconfigurations" if configuration["kind"].startswith("Mutating") else "validatingwebhookconfigurations"
            path = _path((plural, configuration["metadata"]["name"]))
            self._calls.call("PATCH", path, list(patch), content_type="application/json-patch+json")

    def _find(self, path: str) -> Manifest | None:
        try:
            return self._calls.call("GET", path)
        except RefusedError as refused:
            if refused.status == http.HTTPStatus.NOT_FOUND:
                return None
            raise


def _path(configuration: ConfigurationName) -> str:
    plural, name = configuration
    return f"{_CONFIGURATIONS}/{plural}/{name}"
