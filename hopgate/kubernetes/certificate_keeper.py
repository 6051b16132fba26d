"""Keeps the serving certificates in their Secret and the `caBundle` of the webhook configurations as `certificates.plan` says.

Called again and again by the leader. The Secret is written first, so that no key is trusted that could be lost; it and the
configurations are written only as the version that was read. Where cert-manager looks after the Secret, nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hopgate.kubernetes import certificates, secret_keeper
from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.api import Manifest
from hopgate.kubernetes.certificates import PUBLISH_SECONDS, Kept, Mint, Pair, Use
from hopgate.kubernetes.secret_keeper import SecretKeeper, find

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
        owner: str | None = None,
    ) -> None:
        """`clock` gives Unix seconds; `owner` is the ClusterRole that the Secret goes with (None: it stays)."""
        self._calls = calls
        use = Use(names=names, publish=PUBLISH_SECONDS)
        self._secret = SecretKeeper(calls, mint, namespace=namespace, name=secret, use=use, clock=clock)
        self._configurations = tuple(configurations)
        self._owner = owner
        self.serving: Pair | None = None

    def step(self) -> Kept | None:
        """Look, and do what is to be done now. Gives what is kept; None where it is not ours. Raises ClientError (409: look again).

        `serving` is what the server is to show after that, cert-manager's too; None while there is none.
        """
        secret = self._secret.find()
        if secret is not None and certificates.is_cert_managers(secret):
            self.serving = certificates.serving_of(secret)
            return None
        found = [found for each in self._configurations if (found := find(self._calls, _path(each))) is not None]
        own = [each for each in found if not certificates.is_cert_managers(each)]
        bundles = [bundle for each in own for bundle in certificates.bundles_of(each)]
        owner = None if self._owner is None else secret_keeper.owner(self._calls, self._owner)
        planned = self._secret.keep(secret, bundles, owner)
        for each in own:
            self._trust(each, planned.bundle)
        self.serving = planned.serving
        return planned

    def _trust(self, configuration: Manifest, bundle: bytes) -> None:
        patch = certificates.bundle_patch(configuration, bundle)
        if patch:
            plural = "mutatingwebhookconfigurations" if configuration["kind"].startswith("Mutating") else "validatingwebhookconfigurations"
            path = _path((plural, configuration["metadata"]["name"]))
            self._calls.call("PATCH", path, list(patch), content_type="application/json-patch+json")


def _path(configuration: ConfigurationName) -> str:
    plural, name = configuration
    return f"{_CONFIGURATIONS}/{plural}/{name}"
