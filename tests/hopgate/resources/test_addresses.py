"""Virtual addresses: in the range of their TLS treatment, the same everywhere, kept while the name lives."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.resources import addresses
from hopgate.resources.kinds import Tls

_NAMES = st.dictionaries(st.from_regex(r"[a-z]{1,6}\.example", fullmatch=True), st.sampled_from(Tls), max_size=40)


@given(wanted=_NAMES)
def test_every_name_has_an_address_of_its_own_within_its_range(wanted: dict[str, Tls]) -> None:
    given_addresses = addresses.allot(wanted, {})

    assert given_addresses.keys() == wanted.keys()
    assert len(set(given_addresses.values())) == len(wanted)
    for name, address in given_addresses.items():
        network = addresses.RANGES[wanted[name]]
        assert IPv4Address(address) in network
        assert IPv4Address(address) not in (network.network_address, network.broadcast_address)


@given(wanted=_NAMES, data=st.data())
def test_addresses_do_not_depend_on_the_order_of_names(wanted: dict[str, Tls], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(wanted.items()))))

    assert addresses.allot(wanted, {}) == addresses.allot(shuffled, {})


@given(before=_NAMES, added=_NAMES)
def test_a_name_that_stays_keeps_its_address(before: dict[str, Tls], added: dict[str, Tls]) -> None:
    first = addresses.allot(before, {})
    second = addresses.allot({**added, **before}, first)

    assert first.items() <= second.items()
    assert len(set(second.values())) == len(second)


def test_a_name_that_changes_its_range_gets_another_address() -> None:
    first = addresses.allot({"a.example": Tls.OPEN}, {})
    second = addresses.allot({"a.example": Tls.SEALED}, first)

    assert IPv4Address(first["a.example"]) in IPv4Network("198.18.0.0/17")
    assert IPv4Address(second["a.example"]) in IPv4Network("198.18.128.0/17")


def test_the_hash_of_a_name_never_changes() -> None:
    """Another version of hopgate beside this one must give the same addresses."""
    wanted = {"api.openai.com": Tls.OPEN, "sealed.example.com": Tls.SEALED, "tickets.demo.svc": Tls.DISABLED}

    assert addresses.allot(wanted, {}) == {
        "api.openai.com": "198.18.80.22",
        "sealed.example.com": "198.18.231.145",
        "tickets.demo.svc": "198.19.19.59",
    }


def test_two_names_of_one_hash_get_neighbouring_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "RANGES", {tls: IPv4Network("198.18.0.0/29") for tls in Tls})
    wanted = {f"{letter}.example": Tls.OPEN for letter in "abcdefg"}

    given_addresses = addresses.allot(wanted, {})

    assert sorted(given_addresses.values()) == [f"198.18.0.{last}" for last in range(1, 7)]
    assert wanted.keys() - given_addresses.keys() == {"g.example"}
