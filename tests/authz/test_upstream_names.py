"""Names of outside hosts: only public addresses are dialled, failures keep what was known, and nothing waits for a look-up."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from authz import upstream_names
from authz.upstream_names import MachineNames, UpstreamNames
from hopgate.snapshot import ResolvedHost

NOT_DIALLED = {
    "loopback": "127.0.0.1",
    "loopback, IPv6": "::1",
    "link-local": "169.254.1.1",
    "the metadata service": "169.254.169.254",
    "link-local, IPv6": "fe80::1",
    "private": "10.0.0.1",
    "private, 172": "172.16.0.1",
    "private, 192": "192.168.1.1",
    "unique local": "fd00::1",
    "carrier": "100.64.0.1",
    "unspecified": "0.0.0.0",  # noqa: S104 - a value, nothing is bound
    "multicast": "224.0.0.1",
    "multicast, IPv6": "ff0e::1",
    "virtual": "198.18.0.5",
    "IPv4 in IPv6": "::ffff:127.0.0.1",
    "virtual, in IPv6": "::ffff:198.18.0.5",
    "private, in IPv6": "::ffff:10.0.0.1",
    "loopback, in IPv6 of old": "::127.0.0.1",
    "loopback, by 6to4": "2002:7f00:1::",
    "public, by 6to4": "2002:101:101::",
    "the metadata service, by NAT64": "64:ff9b::169.254.169.254",
    "private, by a NAT64 of one's own": "64:ff9b:1::10.0.0.1",
    "site-local": "fec0::1",
    "link-local with its interface": "fe80::1%lo",
    "public with an interface": "2606:4700::1%lo",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "documentation": "192.0.2.1",
    "documentation, 203": "203.0.113.1",
    "documentation, IPv6": "2001:db8::1",
    "documentation, IPv6 of 2024": "3fff::1",
    "Teredo": "2001::1",
    "segment routing": "5f00::1",
    "an address with a port": "1.1.1.1:80",
    "an address in octal": "0177.0.0.1",
    "an address as one number": "2130706433",
    "no address": "example",
}


@pytest.mark.parametrize("address", NOT_DIALLED.values(), ids=NOT_DIALLED)
def test_an_address_that_is_not_public_is_not_dialled(address: str) -> None:
    assert upstream_names.dialable([address, "1.1.1.1"]) == ("1.1.1.1",)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_a_public_address_is_dialled(address: str) -> None:
    assert upstream_names.dialable([address, "10.0.0.1"]) == (address,)


def test_ipv4_comes_first_and_each_once() -> None:
    given = ["2606:4700::1", "8.8.8.8", "1.1.1.1", "8.8.8.8"]
    assert upstream_names.dialable(given) == ("8.8.8.8", "1.1.1.1", "2606:4700::1")


class Names:
    """A resolver of a test's own: `answers` maps hosts to addresses, or to the error that a look-up raises."""

    def __init__(self, answers: dict[str, list[str] | OSError]) -> None:
        self.answers = answers
        self.now = 100.0
        self.told: list[Mapping[str, ResolvedHost]] = []
        self.under = UpstreamNames(
            lambda: set(self.answers), on_change=lambda found: self.told.append(dict(found)), resolve=self.resolve, clock=lambda: self.now
        )

    async def resolve(self, host: str) -> list[str]:
        answer = self.answers[host]
        if isinstance(answer, OSError):
            raise answer
        return answer


async def test_a_name_is_told_with_the_time_it_was_looked_up() -> None:
    names = Names({"a.example": ["1.1.1.1", "127.0.0.1"], "b.example": ["10.0.0.1"]})
    await names.under.look_up_all({"a.example", "b.example"})
    assert names.told == [{"a.example": ResolvedHost(addresses=("1.1.1.1",), resolved_at=100)}]


async def test_a_failed_look_up_keeps_the_last_addresses_and_their_age() -> None:
    names = Names({"a.example": ["1.1.1.1"]})
    await names.under.look_up_all({"a.example"})
    names.answers["a.example"], names.now = OSError("down"), 200.0
    await names.under.look_up_all({"a.example"})
    assert len(names.told) == 1
    names.answers["a.example"] = ["8.8.8.8"]
    await names.under.look_up_all({"a.example"})
    assert names.told[-1] == {"a.example": ResolvedHost(addresses=("8.8.8.8",), resolved_at=200)}


async def test_a_name_that_is_registered_no_more_is_forgotten() -> None:
    names = Names({"a.example": ["1.1.1.1"], "b.example": ["8.8.8.8"]})
    await names.under.look_up_all(set(names.answers))
    del names.answers["a.example"]
    await names.under.look_up_all(set(names.answers))
    assert list(names.told[-1]) == ["b.example"]


async def test_a_new_name_is_looked_up_when_woken() -> None:
    told: asyncio.Queue[set[str]] = asyncio.Queue()
    names = Names({"a.example": ["1.1.1.1"]})
    under = UpstreamNames(lambda: set(names.answers), on_change=lambda found: told.put_nowait(set(found)), resolve=names.resolve)
    running = asyncio.create_task(under.run())
    async with asyncio.timeout(10):
        assert await told.get() == {"a.example"}
        names.answers["b.example"] = ["8.8.8.8"]
        under.refresh()
        assert await told.get() == {"a.example", "b.example"}
    running.cancel()


@asynccontextmanager
async def running(under: UpstreamNames) -> AsyncIterator[None]:
    task = asyncio.create_task(under.run())
    try:
        async with asyncio.timeout(10):
            yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class Hanging:
    """Look-ups that end when told to: `asked` are the hosts in their order, `most` how many were under way at once."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = set(hosts)
        self.asked: list[str] = []
        self.told: asyncio.Queue[set[str]] = asyncio.Queue()
        self.let = asyncio.Event()
        self.under_way = self.most = 0
        self.names = UpstreamNames(lambda: set(self.hosts), on_change=lambda found: self.told.put_nowait(set(found)), resolve=self.resolve)

    async def resolve(self, host: str) -> list[str]:
        self.asked.append(host)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if host.startswith("hangs"):
                await self.let.wait()
        finally:
            self.under_way -= 1
        return ["1.1.1.1"]


async def test_a_name_that_hangs_holds_up_neither_the_others_nor_new_ones() -> None:
    hanging = Hanging("hangs.example", "quick.example")
    async with running(hanging.names):
        assert await hanging.told.get() == {"quick.example"}
        hanging.hosts.add("new.example")
        hanging.names.refresh()
        assert await hanging.told.get() == {"quick.example", "new.example"}
        assert hanging.asked.count("hangs.example") == 1
        hanging.let.set()
        assert await hanging.told.get() == {"quick.example", "new.example", "hangs.example"}


async def test_names_that_are_looked_up_together_are_told_together() -> None:
    hosts = [f"{number}.example" for number in range(20)]
    hanging = Hanging(*hosts)
    async with running(hanging.names):
        assert await hanging.told.get() == set(hosts)


async def test_a_name_that_hangs_is_given_up_and_the_next_may_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_names, "LOOKUP_SECONDS", 0.01)
    hanging = Hanging(*(f"hangs-{number}.example" for number in range(2 * upstream_names.CONCURRENCY)), "quick.example")
    async with running(hanging.names):
        assert await hanging.told.get() == {"quick.example"}
    assert hanging.most == upstream_names.CONCURRENCY
    assert hanging.under_way == 0


async def test_waking_often_does_not_keep_known_names_from_being_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_names, "REFRESH_SECONDS", 0.05)
    hanging = Hanging("a.example")
    async with running(hanging.names):
        while len(hanging.asked) < 3:
            hanging.names.refresh()
            await asyncio.sleep(0)


async def test_a_name_is_forgotten_when_woken_even_if_nothing_is_new() -> None:
    hanging = Hanging("a.example", "b.example")
    async with running(hanging.names):
        assert await hanging.told.get() == {"a.example", "b.example"}
        hanging.hosts.remove("a.example")
        hanging.names.refresh()
        assert await hanging.told.get() == {"b.example"}


async def test_the_machine_says_what_its_own_files_say() -> None:
    assert "127.0.0.1" in await MachineNames()("localhost")


def hanging_getaddrinfo(end: threading.Event) -> Callable[..., list[object]]:
    def ask(*_: object, **__: object) -> list[object]:
        end.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    return ask


async def test_look_ups_that_hang_hold_up_no_other_thread_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", hanging_getaddrinfo(end))
    names = MachineNames()
    asked = [asyncio.create_task(names(f"{number}.example")) for number in range(upstream_names.MAX_THREADS)]
    async with asyncio.timeout(10):
        await asyncio.to_thread(int)
        with pytest.raises(OSError, match="hang already"):
            await names("one-more.example")
        given_up = asked.pop()
        given_up.cancel()
        await asyncio.wait([given_up])
        end.set()
        assert {type(outcome) for outcome in await asyncio.gather(*asked, return_exceptions=True)} == {socket.gaierror}
        with pytest.raises(socket.gaierror):
            await names("one-more.example")
