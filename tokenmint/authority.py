"""hopgate's certificate authorities: the gate's for opened TLS, and the one for the servers of hopgate's own parts in a cluster.

The gate's is a root, and leaves in memory for names that the caller vouches for.

The root of one machine (EC P-256, path length 0) lives in one process and is trusted by the agents behind that gate alone; a cluster's is
kept outside (`load`). A leaf is for
one DNS name, for servers only, and short-lived. Whether a name is registered is the caller's to check: here a host is
refused only when it is not a DNS host name in lower case (an address, a wildcard, anything else).

The cluster's (`create_root`, `issue_serving`, `examine`) is kept outside, as PEM, by whoever decides when it is replaced.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hopgate.identity import names
from hopgate.resources.kinds import SecretValue
from tokenmint import validity
from tokenmint.errors import AuthorityExpiredError, AuthorityUnusableError, HostRefusedError
from tokenmint.redacted import Redacted

# Longer than a gate runs between two upgrades. The key dies with the process, so the date protects nothing more.
AUTHORITY_LIFE_SECONDS: Final = 366 * 86_400
# From before now (for clocks that are behind) to the end, a leaf's whole period.
LEAF_LIFE_SECONDS: Final = 86_400
# A cached leaf is made anew when less than this is left of it, so whoever was given one has hours to ask again.
LEAF_RENEWAL_SECONDS: Final = 6 * 3600
# By how much the clock of an API server may be behind that of whoever issues a serving certificate.
SERVING_SKEW_SECONDS: Final = 300
# Names with opened TLS are registered by people; this bounds memory (some 3 KB each) if they are generated.
MAX_LEAVES: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A server certificate. `certificate_pem` is the chain, leaf first; `expires_at` and `renew_at` are Unix seconds."""

    host: str
    certificate_pem: bytes
    private_key_pem: SecretValue
    expires_at: int
    renew_at: int


class Authority(Redacted):
    """A root certificate and its key, which never leaves."""

    __slots__ = ("_certificate", "_expires_at", "_key", "_leaves", "certificate_pem")

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self._expires_at = int(certificate.not_valid_after_utc.timestamp())
        self._leaves: OrderedDict[str, Leaf] = OrderedDict()
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(cls, now: int) -> Self:
        """A new root that is valid from `now` (Unix seconds). Its name holds its key's hash, so roots of two gates differ."""
        key, certificate = _make_root("gate", now)
        return cls(key, certificate)

    @classmethod
    def load(cls, certificate_pem: bytes, private_key_pem: SecretValue) -> Self:
        """A root that is kept outside; certificates after the first are what leads from it to what is trusted.

        Raises AuthorityUnusableError; the message never holds what was given.
        """
        try:
            certificate = x509.load_pem_x509_certificates(certificate_pem)[0]
            key = _load_key(private_key_pem)
            is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except (ValueError, x509.ExtensionNotFound):
            raise AuthorityUnusableError("expected a CA's certificate and its private key, of an elliptic curve, in PEM") from None
        if not is_authority or certificate.public_key() != key.public_key():
            raise AuthorityUnusableError("expected a CA's certificate and the private key that belongs to it") from None
        loaded = cls(key, certificate)
        loaded.certificate_pem = certificate_pem
        return loaded

    def issue(self, host: str, now: int) -> Leaf:
        """The leaf for a host that the caller has found to be registered; the cached one until it nears its end.

        Raises HostRefusedError, and AuthorityExpiredError when the root itself is about to end.
        """
        cached = self._leaves.get(host)
        if cached is not None and cached.expires_at - LEAF_LIFE_SECONDS <= now < cached.renew_at:
            self._leaves.move_to_end(host)
            return cached
        leaf = self._make(host, now)
        self._leaves[host] = leaf
        self._leaves.move_to_end(host)
        if len(self._leaves) > MAX_LEAVES:
            self._leaves.popitem(last=False)
        return leaf

    def _make(self, host: str, now: int) -> Leaf:
        if not _is_host(host):
            raise HostRefusedError(f"expected a DNS host name in lower case, got `{host[:80]!r}`")
        expires_at = min(now - validity.CLOCK_SKEW_SECONDS + LEAF_LIFE_SECONDS, self._expires_at)
        if expires_at - now < LEAF_RENEWAL_SECONDS:
            raise AuthorityExpiredError("expected a certificate authority that is still valid, got one that ends: restart the gate")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certify(host, key.public_key(), now, expires_at)
        return Leaf(
            host=host,
            certificate_pem=certificate.public_bytes(serialization.Encoding.PEM) + self.certificate_pem,
            private_key_pem=_key_pem(key),
            expires_at=expires_at,
            renew_at=expires_at - LEAF_RENEWAL_SECONDS,
        )

    def _certify(self, host: str, key: ec.EllipticCurvePublicKey, now: int, expires_at: int) -> x509.Certificate:
        return _certify_server(self._certificate, self._key, [x509.DNSName(host)], key, (now - validity.CLOCK_SKEW_SECONDS, expires_at))


def create_root(now: int) -> tuple[bytes, SecretValue]:
    """A new root for the servers of a cluster: certificate and private key, PEM. It is valid for `AUTHORITY_LIFE_SECONDS` from `now`."""
    key, certificate = _make_root("cluster", now, SERVING_SKEW_SECONDS)
    return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def issue_serving(root: tuple[bytes, SecretValue], names: Iterable[str], now: int, life_seconds: int) -> tuple[bytes, SecretValue]:
    """A server's certificate of `root` for DNS names and addresses, and its private key, PEM; it never outlives the root.

    Raises HostRefusedError, AuthorityExpiredError for a root that has ended, and ValueError for one that can't be read.
    """
    authority = x509.load_pem_x509_certificate(root[0])
    signer = _load_key(root[1])
    expires_at = min(now + life_seconds, int(authority.not_valid_after_utc.timestamp()))
    if expires_at <= now:
        raise AuthorityExpiredError("expected a certificate authority that is still valid, got one that ended: make a new one")
    key = ec.generate_private_key(ec.SECP256R1())
    period = (now - SERVING_SKEW_SECONDS, expires_at)
    certificate = _certify_server(authority, signer, [_general_name(name) for name in sorted(names)], key.public_key(), period)
    return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def examine(pair: tuple[bytes, SecretValue], root_pem: bytes | None = None) -> tuple[int, int, frozenset[str]] | None:
    """From when to when the certificate is valid (Unix seconds) and its names; None where it is of no use.

    Of no use is what can't be read, has another key than the one beside it, or was not signed by `root_pem` where that is given.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pair[0])
        if certificate.public_key() != _load_key(pair[1]).public_key():
            return None
        if root_pem is not None:
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(root_pem))
        names = _names(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return None
    return int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp()), names


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(name.value) for name in found if isinstance(name, x509.DNSName | x509.IPAddress))


def ends_at(certificate_pem: bytes) -> int | None:
    """When the certificate ends (Unix seconds), None where it can't be read."""
    try:
        return int(x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc.timestamp())
    except ValueError:
        return None


def _make_root(
    whose: str, now: int, skew_seconds: int = validity.CLOCK_SKEW_SECONDS
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "hopgate"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"hopgate {whose} {key_id.digest.hex()[:16]}"),
        ]
    )
    certificate = (
        _builder(now - skew_seconds, now + AUTHORITY_LIFE_SECONDS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(key_id, critical=False)
        .add_extension(_authority_key_id(key_id), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _certify_server(
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    names: list[x509.GeneralName],
    key: ec.EllipticCurvePublicKey,
    period: tuple[int, int],
) -> x509.Certificate:
    key_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(*period)
        .subject_name(x509.Name([]))  # a common name is too short for some hosts, and nothing reads it: RFC 9525 section 2
        .issuer_name(authority.subject)
        .public_key(key)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)  # RFC 5280 4.2.1.6: the subject is empty
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_authority_key_id(key_id), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        if not _is_host(name):
            raise HostRefusedError(f"expected a DNS host name in lower case or an address, got `{name[:80]!r}`") from None
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> SecretValue:
    return SecretValue(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def _load_key(pem: SecretValue) -> ec.EllipticCurvePrivateKey:
    """Raises ValueError; its message never holds what was given."""
    try:
        key = serialization.load_pem_private_key(pem.reveal(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("expected a private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("expected a private key of an elliptic curve")
    return key


def _builder(not_before: int, not_after: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(not_before, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(not_after, dt.UTC))
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    """RFC 5280 section 4.2.1.3: the root signs certificates, a leaf signs handshakes, neither does anything else."""
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_id(key_id: x509.SubjectKeyIdentifier) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def _is_host(host: str) -> bool:
    """A DNS name whose last label is not a number: what ends in one is read as an IPv4 address (WHATWG URL section 3.5)."""
    return names.is_subdomain(host) and not host.rpartition(".")[2].isdigit()
