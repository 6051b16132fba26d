"""Keeps the authorities of a cluster in their Secrets, and what is to be trusted in a ConfigMap of every governed namespace and its own.

Called again and again by the leader, and at once when a namespace has changed. The Secrets are written first, so that no key is trusted
that could be lost. A Secret that cert-manager looks after is left alone, and what it says is published.

All that is made here is owned by a ClusterRole of the installation: of the kinds that may own objects of any namespace the one that is
there whenever authz is, and gone when it is uninstalled. Without it nothing is written.
"""

from __future__ import annotations

import http
import logging
from collections.abc import Callable, Mapping
from typing import Final

from hopgate.kubernetes import authorities, certificates, secret_keeper
from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.api import Manifest, RefusedError
from hopgate.kubernetes.certificates import Mint, Use
from hopgate.kubernetes.secret_keeper import SecretKeeper
from hopgate.kubernetes.sidecar import AUTHORITIES_CONFIG_MAP, AUTHZ_AUTHORITY_KEY, OPEN_TLS_AUTHORITY_KEY

# With the name in the question, a right to this one name is enough.
_CONFIG_MAPS: Final = f"/api/v1/configmaps?fieldSelector=metadata.name%3D{AUTHORITIES_CONFIG_MAP}"
_APPLY: Final = "application/apply-patch+yaml"

_log = logging.getLogger(__name__)


class AuthorityKeeper:
    """The Secrets `NAME-authz` (for the server `NAME-authz.NAMESPACE.svc`) and `NAME-open-tls` in `namespace`, and the ConfigMaps.

    The ClusterRole `NAME-authz` owns them.
    """

    def __init__(
        self, calls: Calls, mint: Mint, *, namespace: str, name: str, private: Callable[[], str | None], clock: Callable[[], int]
    ) -> None:
        """`private` gives what `private_authorities.encode` gives, None while it isn't known; `clock` gives Unix seconds."""
        self._calls = calls
        self._private = private
        self._namespace = namespace
        self._owner = f"{name}-authz"

        def secret(suffix: str, use: Use) -> SecretKeeper:
            return SecretKeeper(calls, mint, namespace=namespace, name=f"{name}-{suffix}", use=use, clock=clock)

        self._secrets: Mapping[str, SecretKeeper] = {
            AUTHZ_AUTHORITY_KEY: secret("authz", authorities.authz_use(f"{name}-authz.{namespace}.svc")),
            OPEN_TLS_AUTHORITY_KEY: secret("open-tls", authorities.OPEN_TLS),
        }

    def step(self) -> None:
        """Look, and do what is to be done now.

        Raises ClientError: 409 where somebody else wrote meanwhile. What one namespace refuses is raised after all others have theirs.
        """
        owner = secret_keeper.owner(self._calls, self._owner)
        found = {key: secret.find() for key, secret in self._secrets.items()}
        namespaces = self._calls.call("GET", "/api/v1/namespaces")["items"]
        config_maps = self._calls.call("GET", _CONFIG_MAPS)["items"]
        places = authorities.places(namespaces, config_maps, self._namespace)
        bundles = {key: self._keep(key, found[key], places, owner) for key in self._secrets}
        if all(bundles.values()):
            self._publish(places, bundles, owner)

    def _keep(self, key: str, secret: Manifest | None, places: Mapping[str, Manifest | None], owner: Manifest) -> bytes:
        if secret is not None and certificates.is_cert_managers(secret):
            bundle = authorities.of_cert_manager(secret)
            if not bundle:
                _log.error("expected `ca.crt` in cert-manager's Secret %s; namespaces keep what they have", secret["metadata"]["name"])
            return bundle
        return self._secrets[key].keep(secret, authorities.published(places.values(), key), owner).bundle

    def _publish(self, places: Mapping[str, Manifest | None], bundles: Mapping[str, bytes], owner: Manifest) -> None:
        refusals: list[RefusedError] = []
        private = self._private()
        for_gateways = {**bundles, authorities.GATEWAY_KEY: bundles[AUTHZ_AUTHORITY_KEY]}
        for namespace, found in places.items():
            told = for_gateways if namespace == self._namespace else bundles
            wanted = authorities.config_map(namespace, found, told, private, owner)
            if wanted is None:
                continue
            try:
                self._write(namespace, found, wanted)
            except RefusedError as refused:
                _log.warning("the authorities of namespace %s could not be published: %s", namespace, refused)
                # A namespace that went meanwhile needs none.
                if refused.status != http.HTTPStatus.NOT_FOUND:
                    refusals.append(refused)
        if refusals:
            raise refusals[0]

    def _write(self, namespace: str, found: Manifest | None, wanted: Manifest) -> None:
        path = f"/api/v1/namespaces/{namespace}/configmaps/{AUTHORITIES_CONFIG_MAP}"
        if found is not None and authorities.is_beyond_mending(found):
            self._calls.call("DELETE", path)
            wanted = {**wanted, "metadata": {key: value for key, value in wanted["metadata"].items() if key != "resourceVersion"}}
        self._calls.call("PATCH", f"{path}?fieldManager=hopgate&force=true", wanted, content_type=_APPLY)
