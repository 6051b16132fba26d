"""The Envoys of a mesh as gates: the caller is the peer whose certificate such an Envoy verified.

The peer's name is its SPIFFE ID in the form that meshes on Kubernetes give it, `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, and it
is believed for the trust domains that were named and from an Envoy that is known itself: on one machine by the mesh's own credential, in
a cluster by the SPIFFE ID in the certificate that authz verified. Anybody else who reaches authz could name a peer, and would be given
the upstream's credential. In a cluster an Envoy that is known is answered about destinations of its own namespaces alone.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from authz.workloads import Refusal
from hopgate.identity import names
from hopgate.identity.names import ObjectName

_SPIFFE: Final = re.compile(r"spiffe://([a-z0-9._-]{1,255})/ns/([^/]{1,253})/sa/([^/]{1,253})")
# The SPIFFE ID standard, section 2: any path.
_IDENTITY: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The destinations that an Envoy stands before, by their namespaces; None: those of every namespace."""

    namespaces: frozenset[str] | None = None

    def covers(self, namespace: str) -> bool:
        """Whether destinations of this namespace are among them."""
        return self.namespaces is None or namespace in self.namespaces


EVERYWHERE: Final = Reach()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Which peers are believed, and who may say who they are: Envoys with the credential, or those named in `envoys`.

    `credential_sha256` is in hexadecimal digits; empty: there is no credential. `envoys` are by their SPIFFE IDs.
    """

    credential_sha256: str = field(default="", repr=False)
    trust_domains: frozenset[str] = frozenset()
    envoys: Mapping[str, Reach] = field(default_factory=dict)


NO_MESH: Final = Mesh()


def admit(mesh: Mesh, credential: str | None, envoy: str | None) -> Reach | Refusal:
    """What the Envoy that asks may ask about: known by its credential, or as `envoy`, the SPIFFE ID in its verified certificate.

    `envoy` is None where no certificate is asked for, and empty where it names nobody; then a credential counts nothing.
    """
    if envoy is not None:
        if not envoy:
            return Refusal(code="MeshEnvoyNameless", message="expected one SPIFFE ID in the certificate of the Envoy that asks")
        return mesh.envoys.get(envoy, Refusal(code="MeshEnvoyUnknown", message="the Envoy that asks is none that is trusted here"))
    if not mesh.credential_sha256 or credential is None or not _is_credential(mesh, credential):
        return Refusal(code="MeshCredentialUnknown", message="the check came from no Envoy of a mesh that is trusted here")
    return EVERYWHERE


def identify(mesh: Mesh, principal: str, agents: Mapping[tuple[str, str], ObjectName]) -> ObjectName | Refusal:
    """The agent that the peer `principal` is, said by an Envoy that was admitted. `agents` by namespace and service account."""
    if not principal:
        return Refusal(code="PeerUnknown", message="the mesh's Envoy verified no client certificate of the caller")
    match = _SPIFFE.fullmatch(principal)
    if match is None:
        return Refusal(code="PeerUnknown", message="expected the peer as `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`")
    domain, namespace, account = match.groups()
    if domain not in mesh.trust_domains:
        return Refusal(code="TrustDomainUnknown", message="the peer's trust domain is not one that is trusted here")
    return agents.get((namespace, account), Refusal(code="AgentUnknown", message="no Agent has the peer's service account"))


def parse_envoy(text: str) -> tuple[str, Reach]:
    """An Envoy as settings name it, `IDENTITY[=NAMESPACE,...]`; `*` is every namespace, none its own. Raises ValueError."""
    identity, equals, listed = text.partition("=")
    if _IDENTITY.fullmatch(identity) is None:
        raise ValueError(f"expected the Envoy's SPIFFE ID such as `spiffe://example.org/ns/demo/sa/tickets`, got `{identity[:80]}`")
    if not equals:
        own = _SPIFFE.fullmatch(identity)
        if own is None:
            raise ValueError(f"expected `{identity[:80]}=NAMESPACE,...`: a SPIFFE ID of this form doesn't say what the Envoy stands before")
        return identity, Reach(namespaces=frozenset({own[2]}))
    if listed == "*":
        return identity, EVERYWHERE
    namespaces = listed.split(",")
    for namespace in namespaces:
        if not names.is_label(namespace):
            raise ValueError(f"expected namespaces behind `=`, with commas between them, or `*`, got `{listed[:80]}`")
    return identity, Reach(namespaces=frozenset(namespaces))


def parse_trust_domain(text: str) -> str:
    """SPIFFE ID, section 2.1: lower case letters, digits, dots, hyphens and underscores. Raises ValueError."""
    if _TRUST_DOMAIN.fullmatch(text) is None:
        raise ValueError(f"expected a SPIFFE trust domain such as `example.org`, got `{text[:80]}`")
    return text


def _is_credential(mesh: Mesh, credential: str) -> bool:
    return hmac.compare_digest(hashlib.sha256(credential.encode(errors="surrogateescape")).hexdigest(), mesh.credential_sha256)
