from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk

from hopgate.identity.names import User
from hopgate.resources.kinds import IdentityProvider
from tests.tokenmint import forge
from tests.tokenmint.forge import NOW
from tokenmint import user_token
from tokenmint.errors import TokenError

Private = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ISSUER = "https://idp.example"
AUDIENCE = "https://gate.example"


def public_jwk(private: Private, **members: Any) -> dict[str, Any]:
    kind: Any = {RSAPrivateKey: jwk.RSAKey, EllipticCurvePrivateKey: jwk.ECKey, Ed25519PrivateKey: jwk.OKPKey}
    importer = next(found for base, found in kind.items() if isinstance(private, base))
    return {**importer.import_key(private.public_key()).as_dict(private=False), **members}


JWKS = {"keys": [public_jwk(RSA, kid="one", use="sig", alg="RS256")]}


def provider(**changes: Any) -> IdentityProvider:
    usual: dict[str, Any] = {"name": "idp", "issuer": ISSUER, "audiences": (AUDIENCE,), "jwks": JWKS, "groups_claim": "groups"}
    return IdentityProvider(**(usual | changes))


def claims(**changes: Any) -> dict[str, Any]:
    usual = {"iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "exp": NOW + 600, "iat": NOW, "groups": ["finance"]}
    return {name: value for name, value in (usual | changes).items() if value is not None}


def token(key: Private | bytes = RSA, algorithm: str = "RS256", header: dict[str, Any] | None = None, **changes: Any) -> str:
    """Signed by another library, as bytes: it would refuse some of these claims itself."""
    members = {"kid": "one"} if header is None else header
    return jwt.PyJWS().encode(json.dumps(claims(**changes)).encode(), key, algorithm=algorithm, headers={"typ": "JWT", **members})


def verify(text: str, providers: tuple[IdentityProvider, ...] | None = None, keys: Any = None, now: int = NOW) -> User:
    return user_token.verify(text, providers=(provider(),) if providers is None else providers, keys=keys or {}, now=now)


def refusal(text: str, providers: tuple[IdentityProvider, ...] | None = None, keys: Any = None, now: int = NOW) -> str:
    with pytest.raises(TokenError) as caught:
        verify(text, providers, keys, now)
    return caught.value.code


def test_a_users_token_gives_the_user_with_groups() -> None:
    assert verify(token()) == User(issuer=ISSUER, subject="alice", groups=("finance",))


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        *[pytest.param(RSA, name, id=name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")],
        pytest.param(ec.generate_private_key(ec.SECP256R1()), "ES256", id="ES256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), "ES384", id="ES384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), "ES512", id="ES512"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), "EdDSA", id="EdDSA"),
    ],
)
def test_every_asymmetric_algorithm_is_accepted_and_its_signature_checked(private: Private, algorithm: str) -> None:
    known = (provider(jwks={"keys": [public_jwk(private, kid="one")]}),)
    good = token(private, algorithm)
    assert verify(good, known).subject == "alice"
    changed = good[:-20] + ("A" if good[-20] != "A" else "B") + good[-19:]
    assert refusal(changed, known) == "TokenSignature"


def forged(header: dict[str, Any], signature: str = "AA") -> str:
    parts = (forge.base64url(forge.compact_json(part)) for part in (header, claims()))
    return f"{'.'.join(parts)}.{signature}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param(forged({"alg": "none"}), "TokenAlgorithm", id="none"),
        pytest.param(forged({"alg": "none"}, ""), "TokenMalformed", id="none without a signature"),
        pytest.param(forged({}), "TokenAlgorithm", id="no algorithm"),
        pytest.param(forged({"alg": ["RS256"]}), "TokenAlgorithm", id="algorithm as an array"),
        pytest.param(forged({"alg": "RS256", "kid": 1}), "TokenMalformed", id="key id as a number"),
        pytest.param(token(b"x" * 32, "HS256"), "TokenAlgorithm", id="HMAC"),
        pytest.param(token(STRANGER), "TokenSignature", id="a stranger's key under the issuer's id"),
        pytest.param(token(header={"kid": "two"}), "TokenKeyUnknown", id="another key id"),
        pytest.param(token(STRANGER, header={"kid": "../one"}), "TokenKeyUnknown", id="a path as key id"),
        pytest.param(token(STRANGER, header={"kid": "one", "jwk": public_jwk(STRANGER)}), "TokenMalformed", id="an embedded key"),
        pytest.param(token(STRANGER, header={"kid": "one", "jku": "https://evil.example"}), "TokenMalformed", id="a key by address"),
        pytest.param(token(header={"kid": "one", "x5c": ["MIIB"]}), "TokenMalformed", id="a certificate chain"),
        pytest.param(token(header={"kid": "one", "crit": ["x"], "x": 1}), "TokenMalformed", id="a critical extension"),
        pytest.param(token(header={"kid": "one", "zip": "DEF"}), "TokenMalformed", id="a compressed payload"),
        pytest.param(token(header={"kid": "one", "typ": "hop+jwt"}), "TokenType", id="a hop token"),
        pytest.param(token(header={"kid": "one", "typ": "logout+jwt"}), "TokenType", id="a logout token"),
        pytest.param(token(algorithm="PS256"), "TokenKeyUnknown", id="another algorithm than the key's"),
        pytest.param(token(iss="https://evil.example"), "TokenIssuer", id="another issuer"),
        pytest.param(token(iss=None), "TokenIssuer", id="no issuer"),
        pytest.param(token(iss=ISSUER + "/"), "TokenIssuer", id="the issuer with a slash more"),
        pytest.param(token(aud="https://other.example"), "TokenAudience", id="another audience"),
        pytest.param(token(aud=None), "TokenAudience", id="no audience"),
        pytest.param(token(aud=[]), "TokenAudience", id="no audience in an array"),
        pytest.param(token(aud={AUDIENCE: 1}), "TokenAudience", id="an audience as an object"),
        pytest.param(token(aud=[AUDIENCE, 5]), "TokenAudience", id="an audience that is not text"),
        pytest.param(token(exp=None), "TokenMalformed", id="no end"),
        pytest.param(token(exp=str(NOW + 600)), "TokenMalformed", id="an end as text"),
        pytest.param(token(exp=True), "TokenMalformed", id="an end that is true"),
        pytest.param(token(exp=2**60), "TokenMalformed", id="an end that a double does not hold"),
        pytest.param(token(exp=NOW - 30), "TokenExpired", id="expired"),
        pytest.param(token(nbf=NOW + 31), "TokenNotYetValid", id="not yet valid"),
        pytest.param(token(iat=NOW + 31), "TokenNotYetValid", id="issued in the future"),
        pytest.param(token(sub=None), "TokenUser", id="no user"),
        pytest.param(token(sub=""), "TokenUser", id="an empty user"),
        pytest.param(token(sub="x" * 256), "TokenUser", id="an endless user"),
        pytest.param(token(sub="alice\n"), "TokenUser", id="a user with a line end"),
        pytest.param(token(sub="\u202ealice"), "TokenUser", id="a user that reads backwards"),
        pytest.param(token(sub="\ud800"), "TokenMalformed", id="a user without a UTF-8 form"),
        pytest.param(token(groups="finance"), "TokenUser", id="groups as text"),
        pytest.param(token(groups=["finance", 7]), "TokenUser", id="a group that is not text"),
        pytest.param(token(groups=["g"] * 129), "TokenUser", id="too many groups"),
        pytest.param(token(groups=None, _claim_names={"groups": "src1"}), "TokenUser", id="groups kept elsewhere"),
        pytest.param("x" * 17_000, "TokenMalformed", id="longer than any"),
        pytest.param("a.b", "TokenMalformed", id="two segments"),
        pytest.param(token() + "=", "TokenMalformed", id="padding"),
        pytest.param(token() + "\n", "TokenMalformed", id="a line end"),
    ],
)
def test_a_users_token_that_is_not_good_is_refused(text: str, code: str) -> None:
    assert refusal(text) == code
    assert verify(token()).subject == "alice"


@pytest.mark.parametrize(
    ("change", "groups"),
    [
        pytest.param({"aud": [AUDIENCE, "https://other.example"]}, ("finance",), id="one audience of several"),
        pytest.param({"exp": NOW + 0.5}, ("finance",), id="an end with a fraction"),
        pytest.param({"exp": NOW - 29}, ("finance",), id="an end within the skew"),
        pytest.param({"nbf": NOW + 30}, ("finance",), id="a start within the skew"),
        pytest.param({"iat": None}, ("finance",), id="no time of issue"),
        pytest.param({"groups": None}, (), id="no groups"),
        pytest.param({"groups": []}, (), id="empty groups"),
    ],
)
def test_what_the_standards_leave_open_is_accepted(change: dict[str, Any], groups: tuple[str, ...]) -> None:
    assert verify(token(**change)).groups == groups


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "at+jwt", "application/at+jwt"], ids=str)
def test_a_token_that_speaks_of_a_user_is_accepted_whatever_it_is_called(kind: str | None) -> None:
    assert verify(token(header={"kid": "one", "typ": kind})).subject == "alice"


def test_a_repeated_claim_is_refused_although_it_is_signed() -> None:
    header = {"alg": "EdDSA", "kid": "one"}
    private = ed25519.Ed25519PrivateKey.generate()
    known = (provider(jwks={"keys": [public_jwk(private, kid="one")]}),)
    payload = json.dumps(claims()).encode()
    assert verify(forge.sign(header, payload, private), known).subject == "alice"
    assert refusal(forge.sign(header, payload.replace(b"{", b'{"sub":"admin",', 1), private), known) == "TokenMalformed"


def test_the_claims_that_name_user_and_groups_are_configured() -> None:
    known = (provider(user_claim="email", groups_claim="roles"),)
    user = verify(token(email="alice@example.org", roles=["admin"]), known)
    assert (user.subject, user.groups) == ("alice@example.org", ("admin",))


def test_groups_are_not_read_when_no_claim_is_configured() -> None:
    assert verify(token(groups="not even a list"), (provider(groups_claim=None),)).groups == ()


def test_the_issuer_picks_the_provider() -> None:
    other = provider(name="other", issuer="https://other.example", jwks={"keys": [public_jwk(STRANGER, kid="one")]})
    both = (other, provider())
    assert verify(token(), both).issuer == ISSUER
    assert verify(token(STRANGER, iss=other.issuer), both).issuer == other.issuer
    assert refusal(token(STRANGER), both) == "TokenSignature"


def test_two_providers_of_one_issuer_are_ambiguous() -> None:
    assert refusal(token(), (provider(), provider(name="twin"))) == "TokenIssuer"


def test_keys_that_were_supplied_stand_before_those_in_place() -> None:
    supplied = {ISSUER: {"keys": [public_jwk(STRANGER, kid="one")]}}
    assert verify(token(STRANGER), keys=supplied).subject == "alice"
    assert refusal(token(), keys=supplied) == "TokenSignature"


def test_an_issuer_whose_keys_are_not_there_yet_is_refused_and_accepted_once_they_are() -> None:
    remote = (provider(jwks=None, jwks_uri="https://idp.example/jwks"),)
    assert refusal(token(), remote) == "TokenKeyUnknown"
    assert verify(token(), remote, keys={ISSUER: JWKS}).subject == "alice"


def test_a_token_without_a_key_id_is_good_for_the_only_key() -> None:
    assert verify(token(header={})).subject == "alice"
    two = {"keys": [public_jwk(RSA, kid="one"), public_jwk(STRANGER, kid="two")]}
    assert refusal(token(header={}), (provider(jwks=two),)) == "TokenKeyUnknown"


@pytest.mark.parametrize(
    "jwks",
    [
        pytest.param({}, id="no keys"),
        pytest.param({"keys": []}, id="an empty set"),
        pytest.param({"keys": {"one": 1}}, id="keys that are no list"),
        pytest.param({"keys": ["one"]}, id="a key that is no object"),
        pytest.param({"keys": [public_jwk(RSA, kid="one"), public_jwk(STRANGER, kid="one")]}, id="two keys of one id"),
        pytest.param({"keys": [public_jwk(RSA, kid="one", use="enc")]}, id="a key for encryption"),
        pytest.param({"keys": [public_jwk(RSA, kid="one", key_ops=["encrypt"])]}, id="a key that may not verify"),
        pytest.param({"keys": [public_jwk(RSA, kid="one", key_ops=5)]}, id="operations that are no list"),
        pytest.param({"keys": [public_jwk(RSA, kid="one", d="AQAB")]}, id="a private key"),
        pytest.param({"keys": [{"kty": "oct", "kid": "one", "k": "c2VjcmV0"}]}, id="a shared secret"),
    ],
)
def test_a_key_set_without_one_usable_key_is_refused(jwks: dict[str, Any]) -> None:
    assert refusal(token(), (provider(jwks=jwks),)) == "TokenKeyUnknown"
    assert verify(token(), (provider(jwks={"keys": [public_jwk(RSA, kid="one", key_ops=["verify"])]}),)).subject == "alice"


def test_a_hop_token_is_no_users_token_even_of_a_configured_issuer() -> None:
    known = (provider(issuer="hopgate", jwks={"keys": [key.jwk() for key in forge.KEYS.values()]}),)
    assert refusal(forge.good(), known) == "TokenType"


def test_pyjwt_agrees_with_what_is_accepted() -> None:
    options: Any = {"verify_exp": False, "verify_iat": False}
    theirs = jwt.decode(token(), RSA.public_key(), algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER, options=options)
    assert theirs["sub"] == verify(token()).subject


def test_the_claimed_issuer_is_read_without_any_trust() -> None:
    assert user_token.insecure_issuer(token(STRANGER)) == ISSUER
    assert user_token.insecure_issuer(forged({"alg": "none"})) == ISSUER


@pytest.mark.parametrize(
    "text", ["", "sk-1234", "a.b.c", token(iss=7), token(iss=None)], ids=["empty", "a key", "no JSON", "a number", "none"]
)
def test_what_claims_no_issuer_has_none(text: str) -> None:
    assert user_token.insecure_issuer(text) is None


@given(text=st.text(max_size=60), header=st.binary(max_size=40), payload=st.binary(max_size=40))
def test_any_text_is_refused_by_a_typed_error(text: str, header: bytes, payload: bytes) -> None:
    refusal(text)
    made = forge.sign(header or b" ", payload or b" ")
    refusal(made)
    user_token.insecure_issuer(made)
