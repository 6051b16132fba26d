from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenmint.forge import NOW
from tokenmint.replay import ReplayCache
from tokenmint.validity import CLOCK_SKEW_SECONDS


def test_a_token_is_accepted_once() -> None:
    cache = ReplayCache()
    assert cache.claim("a", NOW + 60, NOW)
    assert not cache.claim("a", NOW + 60, NOW)
    assert cache.claim("b", NOW + 60, NOW)
    assert cache.refused_seen == 1


def test_an_id_is_seen_although_it_comes_with_another_end() -> None:
    cache = ReplayCache()
    assert cache.claim("a", NOW + 60, NOW)
    assert not cache.claim("a", NOW + 61, NOW)


def test_an_id_is_kept_as_long_as_a_verifier_accepts_the_token() -> None:
    cache = ReplayCache()
    assert cache.claim("a", NOW + 60, NOW)
    assert not cache.claim("a", NOW + 60, NOW + 60 + CLOCK_SKEW_SECONDS - 1)
    assert len(cache) == 1
    assert not cache.claim("a", NOW + 60, NOW + 60 + CLOCK_SKEW_SECONDS)
    assert len(cache) == 0
    assert (cache.refused_seen, cache.refused_expired) == (1, 1)


def test_a_clock_that_is_set_back_brings_no_token_back() -> None:
    cache = ReplayCache()
    assert cache.claim("a", NOW + 60, NOW)
    assert cache.claim("b", NOW + 600, NOW + 500)
    assert not cache.claim("a", NOW + 60, NOW)
    assert cache.claim("c", NOW + 600, NOW)


def test_a_full_cache_refuses_and_counts_until_something_expires() -> None:
    cache = ReplayCache(capacity=3)
    assert all(cache.claim(name, NOW + 60, NOW) for name in "abc")
    assert not cache.claim("d", NOW + 60, NOW)
    assert (len(cache), cache.refused_full) == (3, 1)
    assert cache.claim("d", NOW + 200, NOW + 90)


def test_a_capacity_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ReplayCache(capacity=0)
    assert ReplayCache(capacity=1).capacity == 1


def test_a_backlog_of_expired_ids_goes_a_few_at_a_time() -> None:
    cache = ReplayCache()
    assert all(cache.claim(str(number), NOW + number % 7, NOW) for number in range(10_000))
    before = len(cache)
    assert cache.claim("x", NOW + 1000, NOW + 500)
    assert 0 < before - len(cache) < 100
    for number in range(200):
        assert cache.claim(f"y{number}", NOW + 1000, NOW + 500)
    assert len(cache) == 201


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 90), st.integers(0, 60)), max_size=60), st.integers(1, 8))
def test_no_id_is_accepted_twice_while_its_token_is_valid(steps: list[tuple[int, int, int]], capacity: int) -> None:
    cache, now, accepted = ReplayCache(capacity), NOW, dict[str, int]()
    for name, life, step in steps:
        now += step
        token_id, expires_at = str(name), now + life
        if cache.claim(token_id, expires_at, now):
            assert accepted.get(token_id, 0) + CLOCK_SKEW_SECONDS <= now
            accepted[token_id] = expires_at
        assert len(cache) <= capacity


def test_many_threads_with_one_token_let_one_through() -> None:
    cache = ReplayCache()
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: cache.claim("a", NOW + 60, NOW), range(200))) == 1


def test_an_id_takes_under_200_bytes() -> None:
    count = 100_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        cache = ReplayCache(capacity=count)
        for number in range(count):
            cache.claim(f"{number:032x}", NOW + 60 + number % 60, NOW)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(cache) == count
    assert used / count < 200
