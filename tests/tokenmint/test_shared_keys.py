"""Several processes accept each other's hop tokens: once the keys are known, and no longer than the process and its last token."""

from __future__ import annotations

from tests.tokenmint.forge import BINDING, ISSUER, NOW, TICKETS
from tests.tokenmint.test_keys import token_of
from tokenmint import hop_token, keys
from tokenmint.errors import TokenError
from tokenmint.keys import KeyRing
from tokenmint.shared_keys import LINGER_SECONDS, SharedKeys


def is_accepted(token: str, shared: SharedKeys, now: int) -> bool:
    try:
        hop_token.verify(token, audience=TICKETS, issuers={ISSUER}, keys=shared.public_keys(now), now=now, binding=BINDING)
    except TokenError:
        return False
    return True


def test_tokens_of_another_process_are_accepted_once_its_keys_are_known() -> None:
    mine, theirs = KeyRing.create(NOW), KeyRing.create(NOW)
    shared, token = SharedKeys(mine), token_of(theirs, NOW)
    assert not is_accepted(token, shared, NOW)
    shared.learn((keys.parse(theirs.jwks(NOW)),), NOW)
    assert is_accepted(token, shared, NOW)
    assert is_accepted(token_of(mine, NOW), shared, NOW)
    assert shared.signing_key(NOW) is mine.signing_key(NOW)


def test_keys_of_a_process_that_is_gone_are_accepted_while_its_last_token_may_be_used() -> None:
    theirs = KeyRing.create(NOW)
    shared = SharedKeys(KeyRing.create(NOW))
    shared.learn((theirs.public_keys(NOW),), NOW)
    last = token_of(theirs, NOW + 100)
    shared.learn((), NOW + 100)
    shared.learn((), NOW + 150)  # being told again doesn't prolong it
    assert is_accepted(last, shared, NOW + 100 + LINGER_SECONDS - 1)
    forged_later = token_of(theirs, NOW + 100 + LINGER_SECONDS)
    assert not is_accepted(forged_later, shared, NOW + 100 + LINGER_SECONDS)


def test_a_process_that_is_back_is_accepted_for_the_life_of_its_keys() -> None:
    theirs = KeyRing.create(NOW)
    shared = SharedKeys(KeyRing.create(NOW))
    for known, moment in (((theirs.public_keys(NOW),), NOW), ((), NOW + 10), ((theirs.public_keys(NOW),), NOW + 20)):
        shared.learn(known, moment)
    assert is_accepted(token_of(theirs, NOW + 500), shared, NOW + 500)


def test_the_own_keys_are_followed_through_a_rotation() -> None:
    mine = KeyRing.create(NOW)
    shared = SharedKeys(mine)
    before = token_of(mine, NOW)
    assert is_accepted(before, shared, NOW)
    mine.rotate(NOW + 1)
    assert is_accepted(before, shared, NOW + 1)
    assert is_accepted(token_of(mine, NOW + 1), shared, NOW + 1)


def test_nothing_private_shows() -> None:
    assert "redacted" in repr(SharedKeys(KeyRing.create(NOW)))
