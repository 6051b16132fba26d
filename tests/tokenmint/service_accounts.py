"""Tokens as an API server signs them for a pod, with keys of the tests."""

from __future__ import annotations

import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from joserfc import jwk

from tests.tokenmint.forge import NOW

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256 = ec.generate_private_key(ec.SECP256R1())
ISSUER, AUDIENCE = "https://kubernetes.default.svc", "hopgate"
LIFE = 600

Json = dict[str, Any]


def public_jwk(private: RSAPrivateKey | EllipticCurvePrivateKey, **members: Any) -> Json:
    public = private.public_key()
    key = jwk.RSAKey.import_key(public) if isinstance(public, RSAPublicKey) else jwk.ECKey.import_key(public)
    return {**key.as_dict(private=False), "use": "sig", **members}


JWKS: Json = {"keys": [public_jwk(RSA, kid="one", alg="RS256"), public_jwk(P256, kid="curve", alg="ES256")]}


def bound(**changes: Any) -> Json:
    """The claim `kubernetes.io` of a projected token; None takes a member away."""
    usual: Json = {
        "namespace": "demo",
        "node": {"name": "node1", "uid": "node-uid"},
        "pod": {"name": "planner-1", "uid": "pod-uid"},
        "serviceaccount": {"name": "planner", "uid": "account-uid"},
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


def claims(**changes: Any) -> Json:
    """The claims of a projected token; None takes one away. `kubernetes_io` stands for `kubernetes.io`."""
    usual: Json = {
        "aud": [AUDIENCE],
        "exp": NOW + LIFE,
        "iat": NOW,
        "iss": ISSUER,
        "jti": "00000000-0000-4000-8000-000000000000",
        "kubernetes.io": bound(),
        "nbf": NOW,
        "sub": "system:serviceaccount:demo:planner",
    }
    named = {name.replace("kubernetes_io", "kubernetes.io"): value for name, value in changes.items()}
    return {name: value for name, value in (usual | named).items() if value is not None}


def token(key: RSAPrivateKey | EllipticCurvePrivateKey = RSA, algorithm: str = "RS256", header: Json | None = None, **changes: Any) -> str:
    """Signed by another library, without `typ` as the API server does."""
    members = {"kid": "one"} if header is None else header
    return jwt.PyJWS().encode(json.dumps(claims(**changes)).encode(), key, algorithm=algorithm, headers={"typ": None, **members})
