"""Keys of hop tokens: one signing key in memory at a time, its successor, and the public halves with their time.

A private key is made here and never leaves: it has no export, no readable `repr` and no pickled form. A public half is
accepted as long as a token of it can still be valid somewhere: through the key's own life and the longest life of a token.

Where several processes verify each other's tokens, each publishes its public halves (`KeyRing.jwks`) and takes in those of the others
(`parse`, `tokenmint.shared_keys`). They learn of a key with a delay, so the next one is announced before it signs (`KeyRing.announce`).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tokenmint import compact, jose, validity
from tokenmint.compact import encode
from tokenmint.errors import TokenKeyUnknownError
from tokenmint.jose import VerificationKey
from tokenmint.redacted import Redacted

# `EdDSA` (RFC 8037), not its new name `Ed25519` (RFC 9864): PyJWT 2.15, Authlib 1.9 and most others know only the former.
ALGORITHM: Final = "EdDSA"
# A process publishes the key that signs, the next one, and few that retire; a set beyond this is not one of ours.
MAX_PUBLISHED: Final = 16
# How long a key signs. A key that was stolen from memory is of use for this long at most.
KEY_LIFE_SECONDS: Final = 12 * 3600


def _thumbprint(public: bytes) -> str:
    """RFC 7638: SHA-256 of the required members in lexical order, without white space."""
    x = encode(public).decode()
    return encode(hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest()).decode()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of a signing key: 32 bytes (RFC 8032), accepted until `valid_until`. `kid` is its RFC 7638 thumbprint."""

    public: bytes
    valid_until: int
    kid: str = field(init=False)
    verification: VerificationKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kid", _thumbprint(self.public))
        object.__setattr__(self, "verification", jose.from_ed25519(Ed25519PublicKey.from_public_bytes(self.public)))

    def jwk(self) -> dict[str, str | int]:
        """The key as a JWK; `exp` is when it is no longer accepted (OpenID Federation 1.0 section 8.7.2)."""
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": encode(self.public).decode(),
            "kid": self.kid,
            "use": "sig",
            "alg": ALGORITHM,
            "exp": self.valid_until,
        }


class SigningKey(Redacted):
    """An Ed25519 private key that lives in this process only."""

    __slots__ = ("_private", "kid", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self.kid = _thumbprint(self.public)

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes (RFC 8032)."""
        return self._private.sign(data)

    def _shown(self) -> str:
        return f"kid={self.kid}, redacted"


@dataclass(frozen=True, slots=True)
class _Generation:
    """What a ring holds between two rotations: the key that signs since `created_at`, all public halves, and the key that signs next."""

    signing: SigningKey
    created_at: int
    published: tuple[PublicKey, ...]
    successor: SigningKey | None = None


class KeyRing(Redacted):
    """The keys of one process. All times are Unix seconds; safe to use from several threads."""

    __slots__ = ("_generate", "_generation", "_lock", "_view")

    def __init__(self, now: int, generate: Callable[[], SigningKey]) -> None:
        self._generate = generate
        self._lock = threading.Lock()
        self._generation = _begin(generate(), now, ())
        self._view = _view(self._generation.published, now)

    @classmethod
    def create(cls, now: int, generate: Callable[[], SigningKey] = SigningKey.generate) -> Self:
        """A ring with its first key. `generate` makes each next one."""
        return cls(now, generate)

    @property
    def made_at(self) -> int:
        """When the key that signs now began to."""
        return self._generation.created_at

    def due(self, now: int) -> bool:
        """Whether the current key has signed for its life; also when the clock was set back to before its making."""
        age = now - self._generation.created_at
        return age >= KEY_LIFE_SECONDS or age < -validity.CLOCK_SKEW_SECONDS

    def rotate(self, now: int) -> None:
        """Sign with a new key from now on. Tokens of the former key stay valid for their life."""
        with self._lock:
            self._replace(now)

    def announce(self) -> None:
        """Make the key that signs next, and have its public half published with the others. Does nothing when there is one already."""
        with self._lock:
            current = self._generation
            if current.successor is None:
                successor = self._generate()
                public = PublicKey(successor.public, current.created_at + 2 * KEY_LIFE_SECONDS + validity.GRACE_SECONDS)
                self._generation = replace(current, published=(*current.published, public), successor=successor)
                self._view = _view(self._generation.published, current.created_at)

    def signing_key(self, now: int) -> SigningKey:
        """The key to sign with, rotated when it is due."""
        if self.due(now):
            with self._lock:
                if self.due(now):
                    self._replace(now)
        return self._generation.signing

    def public_keys(self, now: int) -> Mapping[str, PublicKey]:
        """Every public half that is still accepted, by `kid`."""
        until, keys = self._view
        if now >= until:
            with self._lock:
                self._view = _view(self._generation.published, now)
                keys = self._view[1]
        return keys

    def jwks(self, now: int) -> dict[str, list[dict[str, str | int]]]:
        """The JWK Set to publish (RFC 7517 section 5). Holds public halves only."""
        return {"keys": [key.jwk() for key in self.public_keys(now).values()]}

    def _shown(self) -> str:
        return f"signing={self._generation.signing!r}, published={len(self._generation.published)}"

    def _replace(self, now: int) -> None:
        ends = now + validity.GRACE_SECONDS
        signing = self._generation.successor or self._generate()
        retired = tuple(
            PublicKey(key.public, min(key.valid_until, ends))
            for key in self._generation.published
            if key.valid_until > now and key.public != signing.public
        )
        self._generation = _begin(signing, now, retired)
        self._view = _view(self._generation.published, now)


def _begin(signing: SigningKey, now: int, retired: tuple[PublicKey, ...]) -> _Generation:
    current = PublicKey(signing.public, now + KEY_LIFE_SECONDS + validity.GRACE_SECONDS)
    return _Generation(signing, now, (current, *retired))


def _view(published: Iterable[PublicKey], now: int) -> tuple[int, Mapping[str, PublicKey]]:
    """The keys that are accepted at `now`, and the time until which that stays so."""
    accepted = {key.kid: key for key in published if key.valid_until > now}
    until = min((key.valid_until for key in accepted.values()), default=now)
    return until, MappingProxyType(accepted)


def union(rings: Iterable[Mapping[str, PublicKey]]) -> Mapping[str, PublicKey]:
    """The public halves of several rings, as a verifier takes them. A `kid` is the key's own hash, so none can shadow another."""
    found: dict[str, PublicKey] = {}
    for keys in rings:
        for key in keys.values():
            if key.kid not in found or found[key.kid].valid_until > key.valid_until:
                found[key.kid] = key  # told twice: the earlier end counts
    return MappingProxyType(found)


def parse(jwks: Mapping[str, Any]) -> Mapping[str, PublicKey]:
    """The keys of a JWK Set that another process published. Raises TokenKeyUnknownError for anything that `KeyRing.jwks` doesn't give."""
    listed = jwks.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_PUBLISHED:
        raise TokenKeyUnknownError(f"expected a JWK Set of at most {MAX_PUBLISHED} keys")
    return union({key.kid: key} for key in map(_parse, listed))


def _parse(member: object) -> PublicKey:
    x, ends = (member.get("x"), member.get("exp")) if isinstance(member, dict) else (None, None)
    public = compact.decode(x) if isinstance(x, str) else None
    if public is None or len(public) != 32 or isinstance(ends, bool) or not isinstance(ends, int):  # RFC 8032 section 5.1.5
        raise TokenKeyUnknownError("expected an Ed25519 public key with its end (`exp`)")
    key = PublicKey(public, ends)
    if key.jwk() != member:
        raise TokenKeyUnknownError("expected a public key as hop token keys are published, under its own thumbprint")
    return key
