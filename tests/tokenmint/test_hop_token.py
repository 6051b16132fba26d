from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopgate.identity.names import DestinationKind, DestinationName, ObjectName, User
from tests.tokenmint import forge
from tests.tokenmint.forge import ALICE, BINDING, FRONT, ISSUER, KEY, KEYS, NOW, PLANNER, TICKETS
from tokenmint import hop_token, keys
from tokenmint.errors import TokenError
from tokenmint.hop_token import HopClaims, RequestBinding, VerifiedHop
from tokenmint.keys import PublicKey, SigningKey

VECTORS = json.loads(forge.VECTORS.read_text(encoding="utf-8"))
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
AGENTS = st.builds(ObjectName, LABELS, LABELS)
DESTINATIONS = st.builds(DestinationName, st.sampled_from(DestinationKind), AGENTS)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
USERS = st.builds(User, issuer=TEXTS.map(lambda text: text.replace("#", "/")), subject=TEXTS, groups=st.lists(TEXTS, max_size=4).map(tuple))
BINDINGS = st.builds(RequestBinding.of, TEXTS, TEXTS, st.text(max_size=30), st.binary(max_size=30))
IDS = st.from_regex(r"[A-Za-z0-9._~-]{1,64}", fullmatch=True)
CLAIMS = st.builds(
    lambda life, **parts: HopClaims(expires_at=parts["issued_at"] + life, **parts),
    life=st.integers(1, 120),
    issuer=st.just(ISSUER),
    user=st.none() | USERS,
    actors=st.lists(AGENTS, min_size=1, max_size=8, unique=True).map(tuple),
    audience=DESTINATIONS,
    token_id=IDS,
    transaction=IDS,
    issued_at=st.integers(NOW - 30, NOW + 30),
    binding=BINDINGS,
)
JSON_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def verify(token: str, **changes: Any) -> VerifiedHop:
    usual: dict[str, Any] = {"audience": TICKETS, "issuers": frozenset({ISSUER}), "keys": KEYS, "now": NOW, "binding": BINDING}
    return hop_token.verify(token, **(usual | changes))


def refusal(token: str, **changes: Any) -> str:
    with pytest.raises(TokenError) as caught:
        verify(token, **changes)
    return caught.value.code


def test_the_stored_vectors_are_what_the_forge_makes() -> None:
    assert forge.document() == VECTORS


def test_the_mint_writes_the_stored_form_to_the_byte() -> None:
    assert hop_token.mint(KEY, forge.claims()).reveal() == VECTORS["accepted"][0]["token"]


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["name"])
def test_a_good_token_is_accepted(vector: dict[str, str]) -> None:
    assert verify(vector["token"]).audience == TICKETS


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_an_attack_is_refused_with_its_code(vector: dict[str, str]) -> None:
    assert refusal(vector["token"]) == vector["code"]


def test_what_is_verified_names_user_chain_and_key() -> None:
    hop = verify(hop_token.mint(KEY, forge.claims()).reveal())
    assert (hop.user, hop.actors, hop.key_id) == (ALICE, (PLANNER, FRONT), KEY.kid)


@given(claims=CLAIMS)
def test_minting_then_verifying_is_identity(claims: HopClaims) -> None:
    hop = verify(hop_token.mint(KEY, claims).reveal(), audience=claims.audience, binding=claims.binding)
    assert {field.name: getattr(hop, field.name) for field in fields(HopClaims)} == {
        field.name: getattr(claims, field.name) for field in fields(HopClaims)
    }


@given(claims=CLAIMS, receiver=DESTINATIONS)
def test_no_token_made_for_one_receiver_is_accepted_by_another(claims: HopClaims, receiver: DestinationName) -> None:
    token = hop_token.mint(KEY, claims).reveal()
    if receiver == claims.audience:
        assert verify(token, audience=receiver, binding=claims.binding).audience == receiver
    else:
        assert refusal(token, audience=receiver, binding=claims.binding) == "TokenAudience"


@given(claims=CLAIMS, other=BINDINGS)
def test_no_token_made_for_one_request_is_accepted_with_another(claims: HopClaims, other: RequestBinding) -> None:
    token = hop_token.mint(KEY, claims).reveal()
    if other == claims.binding:
        assert verify(token, audience=claims.audience, binding=other).binding == other
    else:
        assert refusal(token, audience=claims.audience, binding=other) == "TokenBinding"


def test_a_changed_character_anywhere_is_refused() -> None:
    """Every position of a token, each with the next letter of the alphabet and with one of another alphabet."""
    token = forge.good()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for position, letter in enumerate(token):
        following = "A" if letter == "." else alphabet[(alphabet.index(letter) + 1) % 64]
        for changed in (following, "=", ""):
            refusal(token[:position] + changed + token[position + 1 :])
    assert verify(token).audience == TICKETS


@settings(max_examples=300)
@given(data=st.data())
def test_any_edit_of_a_token_is_refused(data: st.DataObject) -> None:
    """One token has one spelling: replacing any part of it by any text gives the same text or a refusal."""
    token = forge.good()
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, min(len(token), start + 5)))
    edited = token[:start] + data.draw(st.text(max_size=6)) + token[end:]
    if edited != token:
        refusal(edited)


@given(token=st.text(max_size=80) | st.lists(st.text("Aaz09-_=", max_size=12), min_size=3, max_size=3).map(".".join))
def test_any_text_is_refused_by_a_typed_error(token: str) -> None:
    refusal(token)


@given(payload=st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(forge.compact_json))
def test_any_signed_payload_is_refused_by_a_typed_error(payload: bytes) -> None:
    assert refusal(forge.sign(forge.header(), payload)) == "TokenMalformed"


@given(name=st.sampled_from(sorted(forge.payload())), value=JSON_VALUES)
def test_any_value_of_any_claim_is_a_value_or_a_typed_error(name: str, value: object) -> None:
    try:
        text = json.dumps(forge.payload() | {name: value}, separators=(",", ":"), ensure_ascii=False).encode()
        hop = verify(forge.sign(forge.header(), text))
    except TokenError:
        return
    assert hop.audience == TICKETS


@pytest.mark.parametrize(
    ("seconds", "code"), [(0, None), (89, None), (90, "TokenExpired"), (-30, None), (-31, "TokenNotYetValid")], ids=str
)
def test_a_token_is_valid_for_its_life_and_the_skew(seconds: int, code: str | None) -> None:
    token = forge.good()
    if code is None:
        assert verify(token, now=NOW + seconds).expires_at == NOW + 60
    else:
        assert refusal(token, now=NOW + seconds) == code


def test_an_empty_list_of_issuers_is_a_mistake_and_not_any() -> None:
    with pytest.raises(ValueError, match="at least one issuer"):
        verify(forge.good(), issuers=frozenset())


def test_an_unknown_key_is_refused_and_the_same_key_published_is_accepted() -> None:
    assert refusal(forge.good(), keys={}) == "TokenKeyUnknown"
    assert verify(forge.good(), keys=KEYS).key_id == KEY.kid


def test_a_key_published_under_the_id_of_another_is_refused() -> None:
    stranger = SigningKey(forge.STRANGER)
    assert refusal(forge.good(), keys={KEY.kid: PublicKey(stranger.public, NOW + 60)}) == "TokenKeyUnknown"


def test_a_retired_key_has_a_code_of_its_own() -> None:
    retired = PublicKey(KEY.public, NOW)
    assert refusal(forge.good(), keys={KEY.kid: retired}) == "TokenKeyRetired"
    assert verify(forge.good(), keys={KEY.kid: PublicKey(KEY.public, NOW + 1)}).key_id == KEY.kid


def test_tokens_of_several_processes_are_accepted_by_the_union_of_their_keys() -> None:
    rings = [keys.KeyRing.create(NOW), keys.KeyRing.create(NOW)]
    tokens = [hop_token.mint(ring.signing_key(NOW), forge.claims()).reveal() for ring in rings]
    union = keys.union(ring.public_keys(NOW) for ring in rings)
    assert [verify(token, keys=union).key_id for token in tokens] == [ring.signing_key(NOW).kid for ring in rings]
    assert refusal(tokens[0], keys=rings[1].public_keys(NOW)) == "TokenKeyUnknown"


def test_claims_that_do_not_fit_into_a_header_are_not_minted() -> None:
    user = User(issuer="https://idp.example", subject="alice", groups=tuple(f"{number:0250}" for number in range(30)))
    with pytest.raises(TokenError) as caught:
        hop_token.mint(KEY, forge.claims(user=user))
    assert caught.value.code == "TokenMalformed"
    hop_token.mint(KEY, forge.claims(user=User(issuer=user.issuer, subject=user.subject, groups=user.groups[:15])))


def test_the_error_of_a_binding_names_what_differs() -> None:
    other = RequestBinding.of(BINDING.method, BINDING.authority, BINDING.path, b"changed")
    with pytest.raises(TokenError, match=r"another body$"):
        verify(forge.good(), binding=other)
