"""Three other libraries judge every token that is made and every one that is refused, and agree with `verify`."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from typing import Any

import authlib.deprecate  # type: ignore[import-untyped]  # Authlib ships no types
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwk, jws

from tests.tokenmint import forge
from tests.tokenmint.forge import BINDING, ISSUER, KEY, KEYS, NOW, PRIVATE, TICKETS
from tests.tokenmint.test_hop_token import CLAIMS
from tokenmint import compact, hop_token, jose
from tokenmint.errors import TokenError, TokenKeyUnknownError
from tokenmint.hop_token import HopClaims, RequestBinding

with warnings.catch_warnings():  # Authlib tells its users to move to joserfc, which is what is checked here
    warnings.simplefilter("ignore", authlib.deprecate.AuthlibDeprecationWarning)
    from authlib.jose import JsonWebSignature  # type: ignore[import-untyped]  # Authlib ships no types

VECTORS = json.loads(forge.VECTORS.read_text(encoding="utf-8"))
EVERY_VECTOR = [(vector["name"], vector["token"]) for part in ("accepted", "refused") for vector in VECTORS[part]]
PUBLIC = PRIVATE.public_key()
PEM = PUBLIC.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
ORDER = ["iss", "sub", "act", "aud", "iat", "exp", "jti", "txn", "groups", "req"]

Decode = Callable[[str], tuple[dict[str, Any], bytes]]


def by_pyjwt(token: str) -> tuple[dict[str, Any], bytes]:
    decoded = jwt.PyJWS().decode_complete(token, PUBLIC, algorithms=["EdDSA"])
    return decoded["header"], decoded["payload"]


def by_authlib(token: str) -> tuple[dict[str, Any], bytes]:
    decoded = JsonWebSignature(["EdDSA"]).deserialize_compact(token.encode(), PEM)
    return dict(decoded["header"]), decoded["payload"]


def by_joserfc(token: str) -> tuple[dict[str, Any], bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoded = jws.deserialize_compact(token, jwk.OKPKey.import_key(PUBLIC), algorithms=["EdDSA"])
    assert decoded.payload is not None
    return dict(decoded.headers()), decoded.payload


LIBRARIES = pytest.mark.parametrize("decode", [by_pyjwt, by_authlib, by_joserfc], ids=["PyJWT", "Authlib", "joserfc"])


def reference(decode: Decode, token: str, binding: RequestBinding = BINDING, audience: str = str(TICKETS)) -> bool:
    """Whether a token is acceptable: another library's word on the signature, and the rules told once more."""
    try:
        header, payload = decode(token)
        claims = json.loads(payload)
        if list(header.items()) != [("alg", "EdDSA"), ("kid", KEY.kid), ("typ", "hop+jwt")]:
            return False
        if token.split(".")[:2] != [forge.base64url(forge.compact_json(part)) for part in (header, claims)]:
            return False
        if token.split(".")[2] != forge.base64url(compact.decode(token.split(".")[2]) or b""):
            return False
        return _claims_are_good(claims, binding, audience)
    except Exception:  # noqa: BLE001 - three libraries, each with errors of its own: whatever they raise is a refusal
        return False


def _claims_are_good(claims: dict[str, Any], binding: RequestBinding, audience: str) -> bool:
    request = {"method": binding.method, "authority": binding.authority}
    request["path_sha256"] = forge.base64url(hashlib.sha256(binding.path.encode("utf-8", "surrogatepass")).digest())
    request["body_sha256"] = forge.base64url(binding.body_sha256)
    chain, act = [], claims.get("act")
    while act is not None:
        if list(act) not in (["sub"], ["sub", "act"]):
            return False
        chain.append(act["sub"])
        if "act" in act and act["act"] is None:
            return False
        act = act.get("act")
    for_user = claims["sub"].startswith("user:")
    if not for_user:
        chain.append(claims["sub"])
    issuer, _, user = claims["sub"].partition("#")
    times = type(claims["iat"]) is int and type(claims["exp"]) is int and claims["exp"] - claims["iat"] in range(1, 121)
    return (
        list(claims) == [name for name in ORDER if name in claims]
        and {*ORDER} - {*claims} <= {"act", "groups"}
        and (claims["iss"], claims["aud"], claims["req"]) == (ISSUER, audience, request)
        and times
        and claims["iat"] - 30 <= NOW < claims["exp"] + 30
        and all(0 < len(claims[name]) <= 64 and set(claims[name]) <= _ID_LETTERS for name in ("jti", "txn"))
        and 0 < len(chain) <= 8
        and len(set(chain)) == len(chain)
        and all(_is_agent(agent) for agent in chain)
        and (not for_user or (len(issuer) > len("user:") and len(user) > 0))
        and ("groups" not in claims or (for_user and 0 < len(claims["groups"]) <= 128 and all(claims["groups"])))
    )


_ID_LETTERS = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")


def _is_agent(text: str) -> bool:
    kind, _, name = text.partition(":")
    parts = name.split("/")
    return kind == "agent" and len(parts) == 2 and all(part.replace("-", "").isalnum() and part == part.lower() for part in parts)


def accepts(token: str, binding: RequestBinding = BINDING) -> bool:
    try:
        hop_token.verify(token, audience=TICKETS, issuers={ISSUER}, keys=KEYS, now=NOW, binding=binding)
    except TokenError:
        return False
    return True


@LIBRARIES
@pytest.mark.parametrize(("name", "token"), EVERY_VECTOR, ids=[name for name, _ in EVERY_VECTOR])
def test_another_library_agrees_on_every_vector(decode: Decode, name: str, token: str) -> None:
    assert reference(decode, token) == accepts(token), name


@LIBRARIES
@settings(max_examples=50)
@given(claims=CLAIMS)
def test_another_library_reads_every_token_that_is_made(decode: Decode, claims: HopClaims) -> None:
    token = hop_token.mint(KEY, claims).reveal()
    assert reference(decode, token, claims.binding, str(claims.audience))


@LIBRARIES
@settings(max_examples=100)
@given(data=st.data())
def test_another_library_agrees_on_every_edit(decode: Decode, data: st.DataObject) -> None:
    token = forge.good()
    position = data.draw(st.integers(0, len(token) - 1))
    edited = token[:position] + data.draw(st.sampled_from("Aa0_-=. \n")) + token[position + 1 :]
    assert reference(decode, edited) == accepts(edited)


def test_the_mint_writes_what_joserfc_would_write() -> None:
    """Ed25519 is deterministic, so signing without the library on the request path gives the same bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = jws.serialize_compact(
            forge.header(), forge.compact_json(forge.payload()), jwk.OKPKey.import_key(PRIVATE), algorithms=["EdDSA"]
        )
    assert hop_token.mint(KEY, forge.claims()).reveal() == theirs


def test_pyjwt_checks_a_made_token_from_the_published_key_set() -> None:
    published = jwt.PyJWKSet.from_dict({"keys": [key.jwk() for key in KEYS.values()]})
    options: Any = {"verify_exp": False, "verify_iat": False, "strict_aud": True, "require": ["exp", "iat", "jti"]}
    claims = jwt.decode(
        hop_token.mint(KEY, forge.claims()).reveal(),
        published[KEY.kid].key,
        algorithms=["EdDSA"],
        audience=str(TICKETS),
        issuer=ISSUER,
        options=options,
    )
    assert claims == forge.payload()


def ec_jwk(curve: ec.EllipticCurve) -> dict[str, Any]:
    return dict(jwk.ECKey.import_key(ec.generate_private_key(curve)).as_dict(private=False))


def rsa_jwk(bits: int) -> dict[str, Any]:
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=bits).public_key().public_numbers()
    return {"kty": "RSA", "n": forge.base64url(numbers.n.to_bytes(bits // 8, "big")), "e": "AQAB"}


def okp_jwk(public: bytes, curve: str) -> dict[str, Any]:
    return {"kty": "OKP", "crv": curve, "x": forge.base64url(public)}


def test_each_kind_of_key_is_for_its_own_algorithms() -> None:
    assert jose.from_jwk(ec_jwk(ec.SECP256R1())).algorithms == {"ES256"}
    assert jose.from_jwk(ec_jwk(ec.SECP384R1())).algorithms == {"ES384"}
    assert jose.from_jwk(ec_jwk(ec.SECP521R1())).algorithms == {"ES512"}
    assert jose.from_jwk(rsa_jwk(2048)).algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert jose.from_jwk(okp_jwk(KEY.public, "Ed25519")).algorithms == {"EdDSA", "Ed25519"}


def off_the_curve() -> dict[str, Any]:
    return ec_jwk(ec.SECP256R1()) | {"x": forge.base64url(bytes(31) + b"\1"), "y": forge.base64url(bytes(31) + b"\1")}


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, id="a shared secret"),
        pytest.param({}, id="no kind"),
        pytest.param({"kty": ["RSA"]}, id="a kind that is not text"),
        pytest.param({"kty": "RSA", "n": "AQAB"}, id="a missing member"),
        pytest.param({"kty": "RSA", "n": 5, "e": "AQAB"}, id="a member that is not text"),
        pytest.param(rsa_jwk(1024), id="an RSA key of 1024 bits"),
        pytest.param(rsa_jwk(2048) | {"e": "AQ"}, id="an RSA key with exponent 1"),
        pytest.param(rsa_jwk(2048) | {"n": "!" * 400}, id="an RSA key that is not base64url"),
        pytest.param(ec_jwk(ec.SECP256K1()), id="another curve"),
        pytest.param(ec_jwk(ec.SECP256R1()) | {"crv": "P-384"}, id="a point of another curve"),
        pytest.param(off_the_curve(), id="a point off the curve"),
        pytest.param(ec_jwk(ec.SECP256R1()) | {"crv": "Ed25519"}, id="an EC key that says Ed25519"),
        pytest.param(okp_jwk(ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw(), "Ed448"), id="Ed448"),
        pytest.param(okp_jwk(KEY.public[:31], "Ed25519"), id="an Ed25519 key cut short"),
        pytest.param(okp_jwk(KEY.public, "P-256"), id="an Ed25519 key that says P-256"),
    ],
)
def test_a_key_that_can_not_check_a_signature_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(TokenKeyUnknownError):
        jose.from_jwk(parameters)


def test_a_token_can_not_choose_an_algorithm_that_its_key_is_not_for() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    assert isinstance(private, EllipticCurvePrivateKey)
    segments = compact.split(jwt.encode({"a": 1}, private, algorithm="ES256"), 1000)
    key = jose.from_jwk(dict(jwk.ECKey.import_key(private.public_key()).as_dict()))
    jose.verify(segments, "ES256", key)
    for algorithm in ("RS256", "HS256", "none", "ES384"):
        with pytest.raises(TokenError) as caught:
            jose.verify(segments, algorithm, key)
        assert caught.value.code == "TokenAlgorithm"


def test_a_wrapped_key_is_the_key() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    segments = compact.split(forge.sign({"alg": "EdDSA"}, {"a": 1}, private), 1000)
    jose.verify(segments, "EdDSA", jose.from_ed25519(private.public_key()))
    with pytest.raises(TokenError) as caught:
        jose.verify(segments, "EdDSA", jose.from_ed25519(PUBLIC))
    assert caught.value.code == "TokenSignature"
