from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmint import compact
from tokenmint.errors import TokenMalformedError


@given(data=st.binary(min_size=1))
def test_decoding_what_was_encoded_is_identity(data: bytes) -> None:
    assert compact.decode(compact.encode(data).decode()) == data


@given(text=st.text("AZaz09-_=+/ \n", max_size=12))
def test_a_text_that_decodes_is_the_one_spelling_of_its_bytes(text: str) -> None:
    data = compact.decode(text)
    assert data is None or compact.encode(data).decode() == text


@pytest.mark.parametrize("text", ["", "A", "AB", "AAA=", "AA==", "+/+/", "AA A", "AAA\n", "ÄÄÄÄ", "AAAAA"], ids=repr)
def test_another_spelling_does_not_decode(text: str) -> None:
    assert compact.decode(text) is None
    assert compact.decode("AA") == b"\0"


def test_a_token_is_taken_apart_without_believing_it() -> None:
    segments = compact.split("e30.W10.AA", 10)
    assert (segments.unverified_header, segments.unverified_payload, segments.text) == (b"{}", b"[]", "e30.W10.AA")


def test_a_token_that_is_one_character_too_long_is_refused() -> None:
    with pytest.raises(TokenMalformedError, match="at most 9 characters, got 10"):
        compact.split("e30.W10.AA", 9)


def test_the_segment_that_is_wrong_is_named() -> None:
    with pytest.raises(TokenMalformedError, match="the payload of the token"):
        compact.split("e30.W1=.AA", 100)
