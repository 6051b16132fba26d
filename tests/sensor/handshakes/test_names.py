from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from sensor.handshakes import names
from sensor.handshakes.dns_answer import Address, DnsAnswer
from sensor.handshakes.names import MAX_LIFE_SECONDS, MIN_LIFE_SECONDS, Names

IP = IPv4Address("192.0.2.7")
SECOND = 1_000_000_000


def _answer(name: str, *addresses: IPv4Address | IPv6Address, ttl: int = 60) -> DnsAnswer:
    listed = tuple(Address(ip=each, ttl=ttl) for each in addresses)
    return DnsAnswer(name=name, aliases=("cdn.example.net",), addresses=listed, exists=True, whole=True)


def test_an_address_has_the_name_that_was_asked_for_in_its_cgroup_only() -> None:
    table = Names()
    table.learn(1, _answer("api.example.com", IP, IPv6Address("2001:db8::1")), 0)
    assert table.of(1, IP, 0) == ("api.example.com",)
    assert table.of(1, IPv6Address("2001:db8::1"), 0) == ("api.example.com",)
    assert table.of(2, IP, 0) == ()
    assert table.of(1, IPv4Address("192.0.2.8"), 0) == ()


def test_the_name_that_was_looked_up_last_comes_first() -> None:
    table = Names()
    for name in ("a.example.com", "b.example.com", "a.example.com"):
        table.learn(1, _answer(name, IP), 0)
    assert table.of(1, IP, 0) == ("a.example.com", "b.example.com")


def test_a_name_is_forgotten_after_its_life_which_has_bounds() -> None:
    for ttl, life in ((0, MIN_LIFE_SECONDS), (1000, 1000), (1 << 31, MAX_LIFE_SECONDS)):
        table = Names()
        table.learn(1, _answer("api.example.com", IP, ttl=ttl), 0)
        assert table.of(1, IP, life * SECOND - 1) == ("api.example.com",)
        assert table.of(1, IP, life * SECOND) == ()
        assert len(table) == 0


def test_what_is_looked_up_again_lives_on() -> None:
    table = Names()
    table.learn(1, _answer("api.example.com", IP), 0)
    table.learn(1, _answer("api.example.com", IP), 200 * SECOND)
    assert table.of(1, IP, 400 * SECOND) == ("api.example.com",)


def test_the_oldest_address_gives_way_and_is_counted() -> None:
    table = Names(max_addresses=2)
    for number in range(3):
        table.learn(1, _answer("api.example.com", IP + number), 0)
    assert (len(table), table.dropped) == (2, 1)
    assert table.of(1, IP, 0) == ()
    assert table.of(1, IP + 2, 0) == ("api.example.com",)


def test_the_oldest_name_of_an_address_gives_way_and_is_counted() -> None:
    table = Names()
    for number in range(names.MAX_NAMES + 1):
        table.learn(1, _answer(f"n{number}.example.com", IP), 0)
    assert (len(table.of(1, IP, 0)), table.dropped) == (names.MAX_NAMES, 1)
    assert "n0.example.com" not in table.of(1, IP, 0)
