from __future__ import annotations

import pytest

from tokenmint import validity
from tokenmint.errors import TokenError


@pytest.mark.parametrize(
    ("now", "code"),
    [(69, "TokenNotYetValid"), (70, None), (100, None), (229, None), (230, "TokenExpired")],
    ids=["before the skew", "within the skew before", "at the start", "within the skew after", "after the skew"],
)
def test_a_token_is_valid_from_its_start_until_just_before_its_end_give_or_take_the_skew(now: int, code: str | None) -> None:
    if code is None:
        validity.check(now=now, not_before=100, expires_at=200)
        return
    with pytest.raises(TokenError) as caught:
        validity.check(now=now, not_before=100, expires_at=200)
    assert caught.value.code == code


def test_the_mint_gives_no_longer_life_than_verifiers_accept() -> None:
    assert validity.TOKEN_LIFE_SECONDS <= validity.MAX_TOKEN_LIFE_SECONDS == 120
