"""Signatures checked by joserfc: the one module that imports it.

The algorithms are a fixed list, all asymmetric, and each key says which of them it is for; a token can choose neither.
The library gets only what `tokenmint.compact` has taken apart and found in its one spelling. Claims are not looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jwk, jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError

from tokenmint import compact
from tokenmint.compact import Segments
from tokenmint.errors import TokenAlgorithmError, TokenKeyUnknownError, TokenSignatureError

# RFC 7518 section 3.1 without HMAC and `none`; `EdDSA` of RFC 8037 and its new name `Ed25519` of RFC 9864.
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA", "Ed25519"}),
}
ALGORITHMS: Final = _RSA.union(*_CURVES.values())
# The members of a JWK that are its public key (RFC 7518 section 6, RFC 8037 section 2). Private ones are never read.
_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
# RFC 7518 section 3.3: a key of 2048 bits or larger must be used.
MIN_RSA_BITS: Final = 2048
# Parsed keys that are kept: some issuers publish a dozen at once, and few issuers are configured.
MAX_PARSED_KEYS: Final = 256


@dataclass(frozen=True, slots=True, repr=False)
class VerificationKey:
    """A public key and the algorithms that it is for."""

    algorithms: frozenset[str]
    key: jwk.Key


class _Registry(jws.JWSRegistry):
    """joserfc's own look-up warns at each use of `EdDSA`, which RFC 9864 renames; the list here is fixed and deliberate."""

    def get_alg(self, name: str) -> Any:  # the library does not export its type
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"algorithm `{name[:20]}` is not in the fixed list")
        return self.algorithms[name]


_registry = _Registry(algorithms=sorted(ALGORITHMS), strict_check_header=False)


def verify(segments: Segments, algorithm: str, key: VerificationKey) -> None:
    """Check a token's signature. `algorithm` is what its header names. Raises TokenAlgorithmError and TokenSignatureError."""
    if algorithm not in key.algorithms:
        raise TokenAlgorithmError(f"expected an algorithm of the key ({', '.join(sorted(key.algorithms))}), got `{algorithm[:20]!r}`")
    try:
        jws.deserialize_compact(segments.text, key.key, registry=_registry)
    except (JoseError, ValueError, TypeError) as error:
        raise TokenSignatureError("the signature is not that of the key that the token names") from error


def from_ed25519(key: Ed25519PublicKey) -> VerificationKey:
    """The public half of a hop token key."""
    return VerificationKey(_CURVES["Ed25519"], jwk.OKPKey.import_key(key))


def from_jwk(parameters: Mapping[str, object]) -> VerificationKey:
    """The public key of a JWK (RFC 7517). Raises TokenKeyUnknownError for one that can't check a signature."""
    kty = parameters.get("kty")
    members = [(name, parameters.get(name)) for name in _MEMBERS.get(kty, ())] if isinstance(kty, str) else []
    texts = tuple((name, value) for name, value in members if isinstance(value, str))
    if not isinstance(kty, str) or not texts or len(texts) < len(members):
        raise TokenKeyUnknownError("expected the issuer's key to be an RSA, EC or Ed25519 public key")
    return _import(kty, texts)


@lru_cache(maxsize=MAX_PARSED_KEYS)
def _import(kty: str, members: tuple[tuple[str, str], ...]) -> VerificationKey:
    values = dict(members)
    algorithms = _RSA if kty == "RSA" else _CURVES.get(values["crv"])
    if algorithms is None or (kty == "OKP") != (values.get("crv") == "Ed25519"):
        raise TokenKeyUnknownError("expected the issuer's key on P-256, P-384, P-521 or Ed25519")
    if kty == "RSA" and _bits(values["n"]) < MIN_RSA_BITS:
        raise TokenKeyUnknownError(f"expected the issuer's RSA key to have at least {MIN_RSA_BITS} bits")
    try:
        return VerificationKey(algorithms, jwk.JWKRegistry.import_key({"kty": kty, **values}))
    except (JoseError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TokenKeyUnknownError("expected the issuer's key to be a valid public key") from error


def _bits(number: str) -> int:
    data = compact.decode(number)
    return 0 if data is None else int.from_bytes(data, "big").bit_length()
