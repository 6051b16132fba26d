"""Private authorities as text: what is published is what is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.kubernetes import private_authorities
from hopgate.kubernetes.private_authorities import MAX_BYTES, PrivateAuthoritiesError
from hopgate.resources.private_authorities import PrivateAuthority

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
AUTHORITIES = st.builds(PrivateAuthority, addresses=st.lists(TEXTS, max_size=3).map(tuple), pem=TEXTS)


@given(st.lists(AUTHORITIES, max_size=5).map(tuple))
def test_what_is_written_is_read(authorities: tuple[PrivateAuthority, ...]) -> None:
    text, left = private_authorities.encode(authorities)
    assert (private_authorities.decode(text.encode()), left) == (authorities, ())


def test_what_there_is_no_room_for_is_told_and_the_rest_is_published() -> None:
    large = PrivateAuthority(addresses=("198.18.0.8",), pem="x" * (MAX_BYTES - 150))
    small = [PrivateAuthority(addresses=(f"198.18.0.{number}",), pem="y" * 40) for number in (9, 10)]
    text, left = private_authorities.encode((large, *small))
    assert left == (small[1],)
    assert private_authorities.decode(text.encode()) == (large, small[0])
    assert len(text) <= MAX_BYTES


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[1]", b'[{"pem": "x"}]', b'[{"addresses": "198.18.0.8", "pem": "x"}]', b'[{"addresses": [8], "pem": "x"}]']
)
def test_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises(PrivateAuthoritiesError):
        private_authorities.decode(text)
