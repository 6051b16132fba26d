"""The Envoys of a mesh as gates: the caller is the peer whose certificate such an Envoy verified.

The peer's name is its SPIFFE ID in the form that meshes on Kubernetes give it, `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, and it
is believed for the trust domains that were named and from an Envoy that presented the mesh's own credential. Without that
credential anybody who reaches authz could name a peer.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from authz.workloads import Refusal
from hopgate.identity.names import ObjectName

_SPIFFE: Final = re.compile(r"spiffe://([a-z0-9._-]{1,255})/ns/([^/]{1,253})/sa/([^/]{1,253})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Which peers are believed. `credential_sha256` is in hexadecimal digits; without one no Envoy of a mesh is."""

    credential_sha256: str = field(default="", repr=False)
    trust_domains: frozenset[str] = frozenset()


NO_MESH: Final = Mesh()


def identify(mesh: Mesh, credential: str | None, principal: str, agents: Mapping[tuple[str, str], ObjectName]) -> ObjectName | Refusal:
    """The agent that the peer `principal` is, said by an Envoy that presented `credential`. `agents` by namespace and service account."""
    if not mesh.credential_sha256 or credential is None or not _is_credential(mesh, credential):
        return Refusal(code="MeshCredentialUnknown", message="the check came from no Envoy of a mesh that is trusted here")
    if not principal:
        return Refusal(code="PeerUnknown", message="the mesh's Envoy verified no client certificate of the caller")
    match = _SPIFFE.fullmatch(principal)
    if match is None:
        return Refusal(code="PeerUnknown", message="expected the peer as `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`")
    domain, namespace, account = match.groups()
    if domain not in mesh.trust_domains:
        return Refusal(code="TrustDomainUnknown", message="the peer's trust domain is not one that is trusted here")
    return agents.get((namespace, account), Refusal(code="AgentUnknown", message="no Agent has the peer's service account"))


def _is_credential(mesh: Mesh, credential: str) -> bool:
    return hmac.compare_digest(hashlib.sha256(credential.encode(errors="surrogateescape")).hexdigest(), mesh.credential_sha256)
