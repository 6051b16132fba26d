from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk

from tests.tokenmint import forge
from tests.tokenmint.forge import BINDING, ISSUER, KEY, NOW, TICKETS
from tokenmint import hop_token, keys
from tokenmint.errors import TokenError
from tokenmint.keys import KEY_LIFE_SECONDS, KeyRing, PublicKey, SigningKey
from tokenmint.validity import GRACE_SECONDS


def token_of(ring: KeyRing, now: int) -> str:
    return hop_token.mint(ring.signing_key(now), forge.claims(issued_at=now, expires_at=now + 60)).reveal()


def is_accepted(token: str, ring: KeyRing, now: int) -> bool:
    try:
        hop_token.verify(token, audience=TICKETS, issuers={ISSUER}, keys=ring.public_keys(now), now=now, binding=BINDING)
    except TokenError:
        return False
    return True


def test_the_key_id_is_the_thumbprint_of_rfc_7638() -> None:
    public = jwk.OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": forge.base64url(KEY.public)})
    assert KEY.kid == public.thumbprint() == PublicKey(KEY.public, NOW).kid


def test_the_thumbprint_is_that_of_rfc_8037_appendix_a3() -> None:
    public = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    assert PublicKey(public, NOW).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_each_ring_has_a_key_of_its_own() -> None:
    assert KeyRing.create(NOW).signing_key(NOW).kid != KeyRing.create(NOW).signing_key(NOW).kid


def test_tokens_of_the_former_key_stay_valid_for_their_life_and_no_longer() -> None:
    ring = KeyRing.create(NOW)
    token = token_of(ring, NOW)
    ring.rotate(NOW + 1)
    assert token_of(ring, NOW + 1) != token
    assert is_accepted(token, ring, NOW + 1)
    assert is_accepted(token, ring, NOW + 89)
    assert not is_accepted(token, ring, NOW + 90)


def test_a_retired_key_is_published_through_the_longest_life_of_a_token() -> None:
    ring = KeyRing.create(NOW)
    former = ring.signing_key(NOW).kid
    ring.rotate(NOW + 10)
    assert former in ring.public_keys(NOW + 10 + GRACE_SECONDS - 1)
    assert former not in ring.public_keys(NOW + 10 + GRACE_SECONDS)


def test_a_key_signs_for_its_life_and_is_then_replaced() -> None:
    ring = KeyRing.create(NOW)
    first = ring.signing_key(NOW)
    assert ring.signing_key(NOW + KEY_LIFE_SECONDS - 1) is first
    assert not ring.due(NOW + KEY_LIFE_SECONDS - 1)
    assert ring.due(NOW + KEY_LIFE_SECONDS)
    assert ring.signing_key(NOW + KEY_LIFE_SECONDS) is not first


def test_a_key_from_the_future_is_replaced_when_the_clock_is_set_back() -> None:
    ring = KeyRing.create(NOW)
    assert not ring.due(NOW - 30)
    assert ring.due(NOW - 31)


def test_rotating_twice_at_once_keeps_every_living_key() -> None:
    ring = KeyRing.create(NOW)
    kids = [ring.signing_key(NOW).kid]
    for _ in range(3):
        ring.rotate(NOW)
        kids.append(ring.signing_key(NOW).kid)
    assert set(ring.public_keys(NOW)) == set(kids)
    assert len(set(kids)) == 4


@given(steps=st.lists(st.integers(0, KEY_LIFE_SECONDS), max_size=12))
def test_the_signing_key_is_always_published(steps: list[int]) -> None:
    ring, now = KeyRing.create(NOW), NOW
    for step in steps:
        now += step
        assert ring.signing_key(now).kid in ring.public_keys(now)
        assert len(ring.public_keys(now)) <= 2 + len(steps)


def test_keys_that_ended_are_forgotten() -> None:
    ring = KeyRing.create(NOW)
    for hour in range(1, 50):
        ring.rotate(NOW + hour * 3600)
    assert len(ring.public_keys(NOW + 49 * 3600)) == 2


def test_a_ring_rotates_once_when_many_threads_find_it_due() -> None:
    made: list[SigningKey] = []

    def generate() -> SigningKey:
        made.append(SigningKey.generate())
        return made[-1]

    ring = KeyRing.create(NOW, generate)
    with ThreadPoolExecutor(8) as pool:
        kids = {key.kid for key in pool.map(ring.signing_key, [NOW + KEY_LIFE_SECONDS] * 64)}
    assert len(made) == 2
    assert kids == {made[1].kid}


def test_the_published_set_holds_public_members_only() -> None:
    ring = KeyRing.create(NOW)
    ring.rotate(NOW)
    published = ring.jwks(NOW)["keys"]
    assert len(published) == 2
    assert all(set(key) == {"kty", "crv", "x", "kid", "use", "alg", "exp"} for key in published)


def test_the_published_keys_can_not_be_changed_through_the_mapping() -> None:
    with pytest.raises(TypeError):
        KeyRing.create(NOW).public_keys(NOW)["x"] = PublicKey(KEY.public, NOW)  # type: ignore[index]  # the point of the test


def test_a_union_takes_the_earlier_end_of_a_key_that_is_told_twice() -> None:
    early, late = PublicKey(KEY.public, NOW + 1), PublicKey(KEY.public, NOW + 9)
    for order in ((early, late), (late, early)):
        assert keys.union({key.kid: key} for key in order)[KEY.kid].valid_until == NOW + 1


def test_a_union_goes_by_the_keys_own_ids() -> None:
    assert set(keys.union([{"another id": PublicKey(KEY.public, NOW)}])) == {KEY.kid}


class TestAnnouncing:
    def test_the_next_key_is_published_before_it_signs_and_then_signs(self) -> None:
        ring = KeyRing.create(NOW)
        first = ring.signing_key(NOW).kid
        ring.announce()
        [successor] = set(ring.public_keys(NOW)) - {first}
        assert ring.signing_key(NOW).kid == first
        assert ring.signing_key(NOW + KEY_LIFE_SECONDS).kid == successor
        assert ring.public_keys(NOW + KEY_LIFE_SECONDS)[successor].valid_until == NOW + 2 * KEY_LIFE_SECONDS + GRACE_SECONDS

    def test_there_is_one_successor_at_a_time_and_another_after_it_signs(self) -> None:
        ring = KeyRing.create(NOW)
        ring.announce()
        told = set(ring.public_keys(NOW))
        ring.announce()
        assert set(ring.public_keys(NOW)) == told
        ring.rotate(NOW + 1)
        assert set(ring.public_keys(NOW + 1)) == told
        ring.announce()
        assert len(ring.public_keys(NOW + 1)) == 3

    def test_who_knew_the_announced_keys_accepts_tokens_after_the_rotation(self) -> None:
        ring = KeyRing.create(NOW)
        ring.announce()
        known = keys.parse(ring.jwks(NOW))
        later = NOW + KEY_LIFE_SECONDS
        token = token_of(ring, later)
        hop_token.verify(token, audience=TICKETS, issuers={ISSUER}, keys=known, now=later, binding=BINDING)
        alone = KeyRing.create(NOW)
        known = keys.parse(alone.jwks(NOW))
        with pytest.raises(TokenError) as refused:
            hop_token.verify(token_of(alone, later), audience=TICKETS, issuers={ISSUER}, keys=known, now=later, binding=BINDING)
        assert refused.value.code == "TokenKeyUnknown"


class TestParsing:
    def test_gives_what_was_published(self) -> None:
        ring = KeyRing.create(NOW)
        ring.announce()
        assert keys.parse(ring.jwks(NOW)) == dict(ring.public_keys(NOW))
        assert keys.parse({"keys": []}) == {}

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"kid": "A" * 43}, id="an id that is not its thumbprint"),
            pytest.param({"kid": None}, id="no id"),
            pytest.param({"x": forge.base64url(b"short")}, id="a key of another length"),
            pytest.param({"x": 5}, id="a key that is a number"),
            pytest.param({"exp": None}, id="no end"),
            pytest.param({"exp": True}, id="an end that is true"),
            pytest.param({"exp": 1.5}, id="an end with a fraction"),
            pytest.param({"d": "AAAA"}, id="a private part"),
            pytest.param({"alg": "none"}, id="another algorithm"),
            pytest.param({"crv": "Ed448"}, id="another curve"),
            pytest.param({"use": "enc"}, id="another use"),
        ],
    )
    def test_refuses_what_no_ring_publishes(self, change: dict[str, object]) -> None:
        member = {name: value for name, value in (PublicKey(KEY.public, NOW).jwk() | change).items() if value is not None}
        with pytest.raises(TokenError) as refused:
            keys.parse({"keys": [member]})
        assert refused.value.code == "TokenKeyUnknown"

    @pytest.mark.parametrize("jwks", [{}, {"keys": {}}, {"keys": ["x"]}, {"keys": [None]}, {"keys": [[]]}], ids=repr)
    def test_refuses_what_is_no_set(self, jwks: dict[str, object]) -> None:
        with pytest.raises(TokenError):
            keys.parse(jwks)

    def test_refuses_more_than_any_ring_has(self) -> None:
        members = [PublicKey(SigningKey.generate().public, NOW).jwk() for _ in range(keys.MAX_PUBLISHED + 1)]
        assert len(keys.parse({"keys": members[1:]})) == keys.MAX_PUBLISHED
        with pytest.raises(TokenError):
            keys.parse({"keys": members})
