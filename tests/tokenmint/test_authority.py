from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tokenmint.authority import AUTHORITY_LIFE_SECONDS, LEAF_LIFE_SECONDS, MAX_LEAVES, Authority, Leaf
from tokenmint.errors import AuthorityError

HOST = "api.openai.com"
NOW = int(time.time())


def handshake(leaf: Leaf, root_pem: bytes, folder: Path, host: str = HOST) -> str:
    """A real TLS handshake over loopback, strict on the client's side; gives the version, or raises the client's ssl.SSLError."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(leaf.certificate_pem)
    key.write_bytes(leaf.private_key_pem.reveal())
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(chain, key)
    client_context = ssl.create_default_context(cadata=root_pem.decode())
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=_serve_once, args=(listener, server_context))
        server.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=10) as raw,
                client_context.wrap_socket(raw, server_hostname=host) as connection,
            ):
                assert connection.recv(2) == b"ok"
                return connection.version() or ""
        finally:
            server.join(10)


def _serve_once(listener: socket.socket, context: ssl.SSLContext) -> None:
    listener.settimeout(10)
    raw, _ = listener.accept()
    raw.settimeout(10)
    try:
        with context.wrap_socket(raw, server_side=True) as connection:
            connection.sendall(b"ok")
    except (ssl.SSLError, ConnectionError):
        raw.close()  # the client refused the certificate, which is what some tests want


def refusal(leaf: Leaf, root_pem: bytes, folder: Path, host: str = HOST) -> str:
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        handshake(leaf, root_pem, folder, host)
    return caught.value.verify_message


def certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def test_a_strict_client_completes_a_handshake(tmp_path: Path) -> None:
    authority = Authority.create(NOW)
    assert handshake(authority.issue(HOST, NOW), authority.certificate_pem, tmp_path) == "TLSv1.3"


def test_a_host_longer_than_a_common_name_completes_a_handshake(tmp_path: Path) -> None:
    host = ".".join(["a" * 60] * 3) + ".example"
    authority = Authority.create(NOW)
    assert handshake(authority.issue(host, NOW), authority.certificate_pem, tmp_path, host) == "TLSv1.3"


def test_a_leaf_is_for_its_own_host_only(tmp_path: Path) -> None:
    authority = Authority.create(NOW)
    leaf = authority.issue(HOST, NOW)
    assert "Hostname mismatch" in refusal(leaf, authority.certificate_pem, tmp_path, "evil.example")
    assert "Hostname mismatch" in refusal(leaf, authority.certificate_pem, tmp_path, f"sub.{HOST}")


def test_the_authority_of_another_gate_is_not_trusted(tmp_path: Path) -> None:
    authority, other = Authority.create(NOW), Authority.create(NOW)
    refusal(authority.issue(HOST, NOW), other.certificate_pem, tmp_path)


def test_a_leaf_ends_within_a_day(tmp_path: Path) -> None:
    authority = Authority.create(NOW - 2 * LEAF_LIFE_SECONDS)
    expired = authority.issue(HOST, NOW - LEAF_LIFE_SECONDS)
    assert "expired" in refusal(expired, authority.certificate_pem, tmp_path)
    assert handshake(authority.issue(HOST, NOW), authority.certificate_pem, tmp_path)


def test_a_leaf_can_not_sign_for_another_host(tmp_path: Path) -> None:
    authority = Authority.create(NOW)
    leaf = authority.issue(HOST, NOW)
    issuer_key = serialization.load_pem_private_key(leaf.private_key_pem.reveal(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    issuer = certificates(leaf.certificate_pem)[0]
    copied = certificates(authority.issue("evil.example", NOW).certificate_pem)[0]
    builder = x509.CertificateBuilder(
        issuer.subject,
        copied.subject,
        copied.public_key(),
        7,
        copied.not_valid_before_utc,
        copied.not_valid_after_utc,
        list(copied.extensions),
    )
    forged = builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    key = authority.issue("evil.example", NOW).private_key_pem
    chain = Leaf(host="evil.example", certificate_pem=forged + leaf.certificate_pem, private_key_pem=key, expires_at=0, renew_at=0)
    refusal(chain, authority.certificate_pem, tmp_path, "evil.example")


def test_the_root_may_sign_leaves_and_nothing_below_them() -> None:
    root = certificates(Authority.create(NOW).certificate_pem)[0]
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    root.verify_directly_issued_by(root)


def test_a_leaf_is_for_servers_only_and_names_dns_alone() -> None:
    authority = Authority.create(NOW)
    leaf, root = certificates(authority.issue(HOST, NOW).certificate_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(HOST)]
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == dt.timedelta(seconds=LEAF_LIFE_SECONDS)
    authority_key = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert authority_key == root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    leaf.verify_directly_issued_by(root)


def test_a_leaf_is_cached_until_it_nears_its_end() -> None:
    authority = Authority.create(NOW)
    leaf = authority.issue(HOST, NOW)
    assert authority.issue(HOST, leaf.renew_at - 1) is leaf
    renewed = authority.issue(HOST, leaf.renew_at)
    assert renewed.expires_at > leaf.expires_at
    assert certificates(renewed.certificate_pem)[0].serial_number != certificates(leaf.certificate_pem)[0].serial_number


def test_a_leaf_from_the_future_is_not_given_out_when_the_clock_is_set_back() -> None:
    authority = Authority.create(NOW)
    later = authority.issue(HOST, NOW + 3600)
    assert authority.issue(HOST, NOW) is not later


def test_the_cache_of_leaves_is_bounded_and_forgets_what_was_asked_for_longest_ago() -> None:
    authority = Authority.create(NOW)
    kept, forgotten = authority.issue("kept.example", NOW), authority.issue("forgotten.example", NOW)
    for number in range(MAX_LEAVES - 2):
        authority.issue(f"h{number}.example", NOW)
    assert authority.issue("kept.example", NOW) is kept
    authority.issue("one-more.example", NOW)
    assert authority.issue("kept.example", NOW) is kept
    assert authority.issue("forgotten.example", NOW) is not forgotten


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*.openai.com",
        "API.openai.com",
        "api.openai.com.",
        "127.0.0.1",
        "1.1",
        "::1",
        "[::1]",
        "a b",
        "a/b",
        "a\n",
        "a\0.b",
        "ä.example",
        "-a.example",
        "a..b",
        "user@host",
        "host:443",
        "a" * 64,
        "x." * 127 + "xx",
    ],
    ids=repr,
)
def test_what_is_not_a_dns_host_name_gets_no_certificate(host: str) -> None:
    authority = Authority.create(NOW)
    with pytest.raises(AuthorityError) as caught:
        authority.issue(host, NOW)
    assert caught.value.code == "HostRefused"
    assert authority.issue(HOST, NOW).host == HOST


def test_an_authority_at_its_end_issues_nothing() -> None:
    authority = Authority.create(NOW)
    with pytest.raises(AuthorityError) as caught:
        authority.issue(HOST, NOW + AUTHORITY_LIFE_SECONDS - 3600)
    assert caught.value.code == "AuthorityExpired"
    last = authority.issue(HOST, NOW + AUTHORITY_LIFE_SECONDS - LEAF_LIFE_SECONDS // 2)
    assert last.expires_at == NOW + AUTHORITY_LIFE_SECONDS
