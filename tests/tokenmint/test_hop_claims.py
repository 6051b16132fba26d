from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.identity.names import ObjectName, User
from tests.tokenmint import forge
from tests.tokenmint.forge import ALICE, BINDING, FRONT, ISSUER, NOW, PLANNER, TICKETS
from tokenmint import hop_claims
from tokenmint.errors import TokenChainError, TokenError
from tokenmint.hop_claims import MAX_CHAIN_DEPTH, HopClaims, next_claims


def agents(count: int) -> tuple[ObjectName, ...]:
    return tuple(ObjectName("demo", f"agent-{number}") for number in range(count))


def following(**changes: Any) -> HopClaims:
    usual: dict[str, Any] = {
        "issuer": ISSUER,
        "caller": PLANNER,
        "chain": (FRONT,),
        "user": ALICE,
        "audience": TICKETS,
        "token_id": "id",
        "transaction": "txn",
        "now": NOW,
        "binding": BINDING,
    }
    return next_claims(**(usual | changes))


def refusal(make: Any, **changes: Any) -> str:
    with pytest.raises(TokenError) as caught:
        make(**changes)
    return caught.value.code


def test_the_caller_is_put_before_the_chain_so_far() -> None:
    assert following().actors == (PLANNER, FRONT)


def test_a_first_hop_has_the_caller_alone() -> None:
    assert following(chain=()).actors == (PLANNER,)


def test_a_hop_lives_a_minute_from_now() -> None:
    claims = following()
    assert (claims.issued_at, claims.expires_at) == (NOW, NOW + 60)


@given(length=st.integers(0, MAX_CHAIN_DEPTH - 1))
def test_a_chain_never_loses_a_member(length: int) -> None:
    chain = agents(length)
    assert following(chain=chain).actors[1:] == chain


def test_a_caller_that_is_in_the_chain_already_is_refused() -> None:
    with pytest.raises(TokenChainError, match="`demo/planner` again"):
        following(chain=(FRONT, PLANNER))
    assert following(chain=(FRONT, ObjectName("demo", "planner-2"))).actors[0] == PLANNER


def test_a_chain_that_would_be_too_deep_is_refused() -> None:
    assert refusal(following, chain=agents(MAX_CHAIN_DEPTH)) == "TokenChain"
    assert len(following(chain=agents(MAX_CHAIN_DEPTH - 1)).actors) == MAX_CHAIN_DEPTH


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"actors": ()}, "TokenChain", id="no agent"),
        pytest.param({"actors": (PLANNER, PLANNER)}, "TokenChain", id="an agent twice"),
        pytest.param({"expires_at": NOW + 121}, "TokenLife", id="a longer life than any"),
        pytest.param({"expires_at": NOW}, "TokenLife", id="no life"),
        pytest.param({"token_id": "a b"}, "TokenMalformed", id="an id with a space"),
        pytest.param({"transaction": ""}, "TokenMalformed", id="no transaction"),
        pytest.param({"issuer": ""}, "TokenMalformed", id="no issuer"),
        pytest.param({"user": User(issuer="https://idp.example", subject="")}, "TokenUser", id="a user without an id"),
        pytest.param({"user": User(issuer="https://idp.example#x", subject="a")}, "TokenUser", id="an issuer with the separator"),
        pytest.param({"user": User(issuer="i", subject="x" * 256)}, "TokenUser", id="a user with an endless id"),
        pytest.param({"user": User(issuer="i", subject="a", groups=("",))}, "TokenUser", id="a group without a name"),
        pytest.param({"user": User(issuer="i", subject="a", groups=("g",) * 129)}, "TokenUser", id="too many groups"),
    ],
)
def test_claims_that_would_not_be_accepted_are_not_made(change: dict[str, Any], code: str) -> None:
    assert refusal(forge.claims, **change) == code
    assert forge.claims().token_id


def test_the_subject_is_the_user_and_without_one_the_agent_that_began_the_chain() -> None:
    assert forge.claims().subject == "user:https://idp.example#alice"
    assert forge.claims(user=None).subject == "agent:demo/front"


def test_the_chain_is_written_as_rfc_8693_nests_it() -> None:
    """RFC 8693 section 4.1: the outermost `act` is the current actor, those before are nested in it."""
    payload = hop_claims.decode(hop_claims.encode(forge.claims()))
    assert payload.act is not None
    assert payload.act.act is not None
    assert (payload.act.sub, payload.act.act.sub, payload.act.act.act) == ("agent:demo/planner", "agent:demo/front", None)


def test_text_that_has_no_utf8_form_is_not_minted() -> None:
    user = User(issuer="https://idp.example", subject="\ud800")
    assert refusal(hop_claims.encode, claims=forge.claims(user=user)) == "TokenMalformed"


def test_the_path_is_not_readable_in_a_token() -> None:
    assert b"session=1" not in hop_claims.encode(forge.claims())
