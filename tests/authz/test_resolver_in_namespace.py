"""The resolver inside a plugged namespace, asked as programs ask: whichever nameserver they mean, it is this one that answers them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from authz.resolver import Resolver
from hopgate.identity.names import ObjectName
from hopgate.local import namespace
from hopgate.manifests import snapshots
from hopgate.resources.registry import Registry
from tests.network_namespaces import Namespace

pytestmark = pytest.mark.root

# Nameservers that are not there (RFC 5737, RFC 3849), and the loopback ones of machines with a resolver of their own.
NAMESERVERS = ["203.0.113.53", "2001:db8::53", "127.0.0.53", "::1"]
LOOK_UP = """
import json, socket, sys
print(json.dumps([entry[4][0] for entry in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)]))
"""


@dataclass
class Inside:
    """A plugged namespace that a resolver serves, and what was recorded."""

    network: Namespace
    registry: Registry
    folder: Path
    names: list[tuple[str, str, str, str]] = field(default_factory=list)

    def record(self, agent: ObjectName, name: str, kind: str, answer: str, transport: str, /) -> None:
        self.names.append((name, kind, answer, transport))

    async def run(self, *command: str) -> tuple[int, str]:
        """Exit code and what a command prints that is run inside."""
        entered = ("nsenter", f"--net=/proc/self/fd/{self.network.descriptor}", "--", *command)
        process = await asyncio.create_subprocess_exec(
            *entered, pass_fds=(self.network.descriptor,), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        printed, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, printed.decode()

    async def dig(self, nameserver: str, *arguments: str) -> str:
        return (await self.run("dig", f"@{nameserver}", "+time=5", "+tries=1", *arguments))[1]

    async def getaddrinfo(self, nameserver: str, name: str) -> tuple[int, str]:
        """What the C library finds with this nameserver in its configuration."""
        configuration = self.folder / "resolv.conf"
        configuration.write_text(f"nameserver {nameserver}\nsearch corp.example\noptions timeout:5 attempts:1\n")
        # a mount namespace of its own: the machine's own file is not touched
        script = 'mount --bind "$1" /etc/resolv.conf && exec "$2" -c "$3" "$4"'
        return await self.run("unshare", "--mount", "sh", "-c", script, "sh", str(configuration), sys.executable, LOOK_UP, name)


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    registry = snapshots.load(Path(__file__).parent.parent / "world", previous=None, now=int(time.time())).registry
    network = Namespace()
    namespace.plug(network.descriptor)
    made = Inside(network, registry, tmp_path)
    resolver = Resolver(lambda: registry, agent=ObjectName("demo", "planner"), record=made.record)
    await resolver.start(namespace.open_sockets_in(network.descriptor))
    yield made
    await resolver.stop()
    network.close()


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
@pytest.mark.parametrize("nameserver", NAMESERVERS)
async def test_dig_is_answered_from_the_nameserver_that_it_asked(inside: Inside, nameserver: str, transport: str) -> None:
    options = ["+tcp"] if transport == "TCP" else []
    printed = await inside.dig(nameserver, "tickets.demo.svc", *options)
    assert "status: NOERROR" in printed, printed
    assert f"SERVER: {nameserver}#53" in printed, printed
    assert "reply from unexpected source" not in printed
    assert inside.registry.by_host["tickets.demo.svc"].address in printed
    assert "status: NXDOMAIN" in await inside.dig(nameserver, "evil.example", *options)
    assert inside.names == [("tickets.demo.svc", "A", "Answered", transport), ("evil.example", "A", "NxDomain", transport)]


@pytest.mark.parametrize("nameserver", NAMESERVERS)
@pytest.mark.parametrize("name", ["tickets.demo.svc", "tickets.demo.svc.cluster.local", "api.openai.com"])
async def test_the_c_library_finds_a_registered_name_and_is_not_slowed_by_ipv6(inside: Inside, nameserver: str, name: str) -> None:
    code, printed = await inside.getaddrinfo(nameserver, name)
    assert code == 0, printed
    assert json.loads(printed) == [inside.registry.by_host[name].address]
    # once each: nothing was asked again, and the search list was not tried
    assert sorted(inside.names) == [(name, "A", "Answered", "UDP"), (name, "AAAA", "NoData", "UDP")]


async def test_the_c_library_is_told_at_once_that_another_name_does_not_exist(inside: Inside) -> None:
    code, printed = await inside.getaddrinfo("203.0.113.53", "c2VjcmV0.evil.example")
    assert code != 0
    assert "Name or service not known" in printed
    assert {name for name, *_ in inside.names} == {"c2vjcmv0.evil.example", "c2vjcmv0.evil.example.corp.example"}
    assert {answer for _, _, answer, _ in inside.names} == {"NxDomain"}


async def test_localhost_is_the_machines_own_files_and_is_not_asked(inside: Inside) -> None:
    code, printed = await inside.getaddrinfo("203.0.113.53", "localhost")
    assert code == 0, printed
    assert "127.0.0.1" in json.loads(printed)
    assert inside.names == []
