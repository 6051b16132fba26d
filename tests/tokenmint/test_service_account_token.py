"""A service account's token gives the pod that it was made for; whatever differs in one fact is refused with its own code."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenmint import service_accounts as accounts
from tests.tokenmint.forge import NOW
from tests.tokenmint.service_accounts import AUDIENCE, ISSUER, JWKS, LIFE, P256, RSA, STRANGER, bound, public_jwk, token
from tokenmint import service_account_token
from tokenmint.errors import TokenError
from tokenmint.issued_token import Period
from tokenmint.service_account_token import PodIdentity

PLANNER = PodIdentity(
    namespace="demo",
    service_account="planner",
    service_account_uid="account-uid",
    pod="planner-1",
    pod_uid="pod-uid",
    period=Period(not_before=NOW, expires_at=NOW + LIFE),
)


def verify(text: str, jwks: Any = JWKS, now: int = NOW) -> PodIdentity:
    return service_account_token.verify(text, issuer=ISSUER, audience=AUDIENCE, jwks=jwks, now=now)


def refusal(text: str, jwks: Any = JWKS, now: int = NOW) -> str:
    with pytest.raises(TokenError) as caught:
        verify(text, jwks, now)
    assert len(text) < 20 or text not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(token(), id="RS256"),
        pytest.param(token(P256, "ES256", {"kid": "curve"}), id="ES256"),
        pytest.param(token(header={"kid": "one", "typ": "JWT"}), id="with the type that an external signer writes"),
        pytest.param(token(kubernetes_io=bound(node=None)), id="of a pod that is on no node"),
        pytest.param(token(kubernetes_io=bound(warnafter=NOW + 1)), id="with a member that is not known"),
        pytest.param(token(aud=AUDIENCE), id="with its one audience as text"),
    ],
)
def test_a_projected_token_gives_its_pod(text: str) -> None:
    assert verify(text) == PLANNER


@pytest.mark.parametrize(("algorithm", "curve"), [("ES384", ec.SECP384R1()), ("ES512", ec.SECP521R1())], ids=["ES384", "ES512"])
def test_every_curve_that_an_api_server_may_have_is_known(algorithm: str, curve: ec.EllipticCurve) -> None:
    private = ec.generate_private_key(curve)
    keys = {"keys": [public_jwk(private, kid="k", alg=algorithm)]}
    assert verify(token(private, algorithm, {"kid": "k"}), keys) == PLANNER


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("", "TokenMalformed", id="nothing"),
        pytest.param("x" * 20_000, "TokenMalformed", id="longer than any"),
        pytest.param(token() + "=", "TokenMalformed", id="another spelling"),
        pytest.param(token(header={}), "TokenMalformed", id="no key id"),
        pytest.param(token(header={"kid": "one", "jku": "https://evil.example"}), "TokenMalformed", id="a key by address"),
        pytest.param(token(header={"kid": "one", "typ": "hop+jwt"}), "TokenType", id="a hop token"),
        pytest.param(token(header={"kid": "one", "typ": "at+jwt"}), "TokenType", id="a user's access token"),
        pytest.param(token(algorithm="PS256"), "TokenAlgorithm", id="an algorithm that no API server signs with"),
        pytest.param(token(header={"kid": "two"}), "TokenKeyUnknown", id="a key id that is not known"),
        pytest.param(token(STRANGER), "TokenSignature", id="a stranger's key under the server's id"),
        pytest.param(token(iss="https://other.example"), "TokenIssuer", id="another cluster's"),
        pytest.param(token(iss=None), "TokenIssuer", id="no issuer"),
        pytest.param(token(aud=["https://kubernetes.default.svc"]), "TokenAudience", id="for the API server"),
        pytest.param(token(aud=[AUDIENCE, "other"]), "TokenAudience", id="for somebody else as well"),
        pytest.param(token(aud=[]), "TokenAudience", id="for nobody"),
        pytest.param(token(aud=None), "TokenAudience", id="no audience"),
        pytest.param(token(exp=None), "TokenMalformed", id="no end"),
        pytest.param(token(exp=True), "TokenMalformed", id="an end that is true"),
        pytest.param(token(exp=NOW - 30), "TokenExpired", id="expired"),
        pytest.param(token(nbf=NOW + 31), "TokenNotYetValid", id="not yet valid"),
        pytest.param(token(iat=NOW + 31), "TokenNotYetValid", id="issued in the future"),
        pytest.param(token(kubernetes_io=None), "TokenWorkload", id="no claims of Kubernetes"),
        pytest.param(token(kubernetes_io=[]), "TokenWorkload", id="claims of Kubernetes as an array"),
        pytest.param(token(kubernetes_io=bound(namespace=None)), "TokenWorkload", id="no namespace"),
        pytest.param(token(kubernetes_io=bound(namespace="de/mo")), "TokenWorkload", id="no name of a namespace"),
        pytest.param(token(kubernetes_io=bound(namespace="other")), "TokenWorkload", id="a namespace that `sub` does not name"),
        pytest.param(token(sub="system:serviceaccount:demo:other"), "TokenWorkload", id="an account that `sub` does not name"),
        pytest.param(token(sub=None), "TokenWorkload", id="no subject"),
        pytest.param(token(sub="demo/planner"), "TokenWorkload", id="a subject that is no service account"),
        pytest.param(token(kubernetes_io=bound(serviceaccount=None)), "TokenWorkload", id="no service account"),
        pytest.param(token(kubernetes_io=bound(serviceaccount="planner")), "TokenWorkload", id="a service account as text"),
        pytest.param(token(kubernetes_io=bound(serviceaccount={"name": "planner"})), "TokenWorkload", id="an account without uid"),
        pytest.param(token(kubernetes_io=bound(pod=None)), "TokenUnbound", id="bound to no pod"),
        pytest.param(token(kubernetes_io=bound(pod=None, secret={"name": "s", "uid": "u"})), "TokenUnbound", id="bound to a Secret"),
        pytest.param(token(kubernetes_io=bound(pod={"name": "planner-1", "uid": 5})), "TokenWorkload", id="a uid that is a number"),
        pytest.param(token(kubernetes_io=bound(pod={"name": "planner-1", "uid": ""})), "TokenWorkload", id="an empty uid"),
        pytest.param(token(kubernetes_io=bound(pod={"name": "a/b", "uid": "u"})), "TokenWorkload", id="no name of a pod"),
        pytest.param(token(kubernetes_io=bound(pod={"uid": "u"})), "TokenWorkload", id="a pod without a name"),
    ],
)
def test_refuses_what_differs_in_one_fact(text: str, code: str) -> None:
    assert refusal(text) == code


@pytest.mark.parametrize(
    ("jwks", "code"),
    [
        pytest.param({}, "TokenKeyUnknown", id="no keys yet"),
        pytest.param({"keys": []}, "TokenKeyUnknown", id="no keys"),
        pytest.param({"keys": [public_jwk(RSA, kid="next")]}, "TokenKeyUnknown", id="only the next key"),
        pytest.param({"keys": [public_jwk(RSA, kid="one"), public_jwk(STRANGER, kid="one")]}, "TokenKeyUnknown", id="two of one id"),
        pytest.param({"keys": [public_jwk(RSA, kid="one") | {"use": "enc"}]}, "TokenKeyUnknown", id="a key to encrypt with"),
        pytest.param({"keys": [public_jwk(P256, kid="one")]}, "TokenAlgorithm", id="a curve under the id"),
    ],
)
def test_refuses_with_other_keys(jwks: Any, code: str) -> None:
    assert refusal(token(), jwks) == code


def test_a_rotated_key_is_known_beside_the_one_before() -> None:
    both = {"keys": [*JWKS["keys"], public_jwk(STRANGER, kid="two", alg="RS256")]}
    assert verify(token(), both) == verify(token(STRANGER, header={"kid": "two"}), both) == PLANNER


def test_is_good_from_its_start_to_its_end_and_half_a_minute_around() -> None:
    text = token()
    assert [refusal(text, now=moment) for moment in (NOW - 31, NOW + LIFE + 30)] == ["TokenNotYetValid", "TokenExpired"]
    assert [verify(text, now=moment) for moment in (NOW - 30, NOW + LIFE + 29)] == [PLANNER, PLANNER]


@given(position=st.integers(0, 10_000), letter=st.sampled_from("AQgw_-0"))
def test_any_changed_letter_is_refused(position: int, letter: str) -> None:
    text = accounts.token()
    place = position % len(text)
    changed = text[:place] + letter + text[place + 1 :]
    if changed != text:
        with pytest.raises(TokenError):
            verify(changed)
