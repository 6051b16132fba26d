"""A network namespace that is a small internet: a resolver that knows any name, and servers behind it that speak as model APIs do.

Programs inside use their own resolver and trust as ever; only /etc/resolv.conf is another file for them. Nothing leads outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Self, cast

import dns.message
import dns.rrset

from tests.http_ends import Upstream, read_request
from tests.network_namespaces import Namespace
from tokenmint.authority import Authority

ADDRESS = "127.0.0.1"
OLLAMA_PORT, PLAIN_PORT, PROXY_PORT = 11434, 8080, 3128
# One answer for all: what the SDKs of OpenAI and Ollama read.
_ANSWER = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","done":true,"choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"hello"}}],"message":{"role":"assistant","content":"hello"}}'
)
# Its own /etc/resolv.conf, in a mount namespace that ends with the program.
_ENTER = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


Answer = Callable[[Upstream, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Resolver(asyncio.DatagramProtocol):
    """Answers every question for an IPv4 address with ADDRESS, every other with nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = dns.message.from_wire(data)
        answer = dns.message.make_response(question)
        asked = question.question[0]
        if asked.rdtype == 1:
            answer.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "A", ADDRESS))
        self._transport.sendto(answer.to_wire(), addr)


async def _answer(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    upstream.requests.append(await read_request(reader))
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(_ANSWER)}\r\nconnection: close\r\n\r\n"
    writer.write(head.encode() + _ANSWER)
    await writer.drain()


async def _refuse(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A proxy that opens no tunnel."""
    upstream.requests.append(await read_request(reader))
    writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await writer.drain()


class ModelWorld:
    """`folder` has `ca.pem`, which programs are to trust, and is where they run. Until `answering` is set, servers keep their answers."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.folder = folder
        self.answering = asyncio.Event()
        self.answering.set()
        self._names = names
        self._namespace = Namespace()
        self._namespace.raise_loopback()
        self._running = contextlib.AsyncExitStack()
        (folder / "resolv.conf").write_text(f"nameserver {ADDRESS}\n", encoding="ascii")

    async def __aenter__(self) -> Self:
        self._running.callback(self._namespace.close)
        await self._serve(443, tls=self._context())
        await self._serve(OLLAMA_PORT)
        await self._serve(PLAIN_PORT)
        await self._serve(PROXY_PORT, answer=_refuse)
        resolver = self._namespace.socket(kind=socket.SOCK_DGRAM)
        resolver.bind((ADDRESS, 53))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(_Resolver, sock=resolver)
        self._running.callback(transport.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()

    async def run(self, *command: str, environment: dict[str, str] | None = None) -> str:
        """Run a program inside; what it prints. It must end well."""
        started = await self.start(*command, environment=environment)
        printed, _ = await asyncio.wait_for(started.communicate(), 60)
        assert started.returncode == 0, (command, printed)
        return printed.decode()

    async def start(self, *command: str, environment: dict[str, str] | None = None) -> asyncio.subprocess.Process:
        """Start a program inside, which trusts this world's authority."""
        authority = str(self.folder / "ca.pem")
        trust = {"SSL_CERT_FILE": authority, "NODE_EXTRA_CA_CERTS": authority, "CURL_CA_BUNDLE": authority}
        descriptor = self._namespace.descriptor
        return await asyncio.create_subprocess_exec(
            *("nsenter", f"--net=/proc/self/fd/{descriptor}", "--"),
            *("unshare", "--mount", "--", "sh", "-c", _ENTER, "sh", str(self.folder / "resolv.conf"), *command),
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **trust, **(environment or {})},
        )

    @contextlib.asynccontextmanager
    async def calling(self, *command: str, environment: dict[str, str] | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
        """A program that waits for its answer while the block lasts, so that a slow machine can look at it too, and must end well then."""
        self.answering.clear()
        started = await self.start(*command, environment=environment)
        try:
            yield started
        finally:
            self.answering.set()
            printed, _ = await asyncio.wait_for(started.communicate(), 60)
        assert started.returncode == 0, (command, printed)

    async def run_python(self, script: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
        """Run a script of the folder with this interpreter."""
        return await self.run(sys.executable, script, *arguments, environment=environment)

    async def _serve(self, port: int, *, tls: ssl.SSLContext | None = None, answer: Answer = _answer) -> None:
        listener = self._namespace.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))

        async def serve(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self.answering.wait()
            await answer(upstream, reader, writer)

        upstream = Upstream(answer=serve, tls=tls)
        await upstream.start(listener)
        self._running.push_async_callback(upstream.stop)

    def _context(self) -> ssl.SSLContext:
        """Shows each name's own certificate."""
        authority = Authority.create(int(time.time()))
        (self.folder / "ca.pem").write_bytes(authority.certificate_pem)
        contexts = {}
        for name in self._names:
            leaf = authority.issue(name, int(time.time()))
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            pair = self.folder / f"{name}.pem"
            pair.write_bytes(leaf.certificate_pem + leaf.private_key_pem.reveal())
            made.load_cert_chain(pair)
            contexts[name] = made
        first = contexts[self._names[0]]

        def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = contexts.get(name or "", first)

        first.sni_callback = choose
        return first
