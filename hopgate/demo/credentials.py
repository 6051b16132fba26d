"""What the demo's outside world is made of: a CA and certificate for its model API, an issuer of users' tokens."""

from __future__ import annotations

import base64
import datetime
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = datetime.timedelta(hours=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """A server's certificate and key, and the CA that signed it, in PEM."""

    authority_pem: bytes
    certificate_pem: bytes
    key_pem: bytes


def server_certificate(host: str, now: datetime.datetime, *more: str) -> ServerCertificate:
    """A CA of the demo's own and a certificate of it for `host` and `more` names."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo CA")])
    authority = (
        _builder(issuer, issuer, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        _builder(subject, issuer, key.public_key(), now)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in (host, *more)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return ServerCertificate(
        authority_pem=authority.public_bytes(serialization.Encoding.PEM),
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM),
        key_pem=key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What the model API has and wants: a certificate, and a key of its callers."""

    certificate: ServerCertificate
    key: str

    def files(self) -> dict[str, str]:
        """What `hopgate.demo.services` reads, by the names of the files."""
        certificate = self.certificate
        pem = {"certificate.pem": certificate.certificate_pem.decode(), "key.pem": certificate.key_pem.decode()}
        return {**pem, "model-key": self.key}

    def values(self) -> dict[str, str]:
        """What the resources are told of it."""
        return {"model_key": self.key, "authority_pem": json.dumps(self.certificate.authority_pem.decode())}


def new_model(now: datetime.datetime) -> Model:
    """One for `api.openai.com`."""
    return Model(certificate=server_certificate("api.openai.com", now), key=f"sk-demo-{secrets.token_hex(12)}")


def resources(values: Mapping[str, str]) -> dict[str, str]:
    """The demo's manifests by the names of their files, with `values` for their placeholders."""
    folder = Path(__file__).resolve().parent / "resources"
    return {template.name: Template(template.read_text()).substitute(values) for template in sorted(folder.glob("*.yaml"))}


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFE)
    )


class Issuer:
    """An issuer of users' tokens with an Ed25519 key of its own (RFC 8037)."""

    def __init__(self, url: str = "https://login.demo.example") -> None:
        self.url = url
        self._key = ed25519.Ed25519PrivateKey.generate()

    def jwks(self) -> dict[str, object]:
        """The public half, as a JWK set."""
        public = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "demo", "alg": "EdDSA", "use": "sig", "x": _base64url(public)}]}

    def user_token(self, now: int) -> str:
        """The token of the demo's user, who is of the group that may ask."""
        return self.token(subject="ada", groups=("support",), audience="demo", now=now)

    def token(self, *, subject: str, groups: tuple[str, ...], audience: str, now: int) -> str:
        """A token for `subject`, good for an hour."""
        header = {"alg": "EdDSA", "typ": "JWT", "kid": "demo"}
        claims = {"iss": self.url, "sub": subject, "aud": audience, "groups": list(groups), "iat": now, "exp": now + 3600}
        signed = f"{_base64url(json.dumps(header).encode())}.{_base64url(json.dumps(claims).encode())}"
        return f"{signed}.{_base64url(self._key.sign(signed.encode()))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
