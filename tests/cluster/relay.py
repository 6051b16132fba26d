"""A port of this machine's loopback that leads to the same port inside a network namespace: how tests and people reach a cluster there."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_CHUNK = 1 << 16


class Relay:
    """Takes connections at 127.0.0.1:PORT and dials 127.0.0.1:PORT inside the namespace of a process.

    A thread of its own made the change of namespace: the listening socket is from before it, what it dials with is from after.
    """

    def __init__(self, port: int, process: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", port))
        self._namespace = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="relay")

    def start(self) -> None:
        """Take connections from now on."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """End every connection, and the port."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()
        os.close(self._namespace)

    def _run(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(self._namespace, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        connections: set[asyncio.Task[None]] = set()

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(self._connect(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(take, sock=self._listener)
        self._ready.set()
        await self._ended.wait()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(_close, writer)
            try:
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                return
            stack.push_async_callback(_close, inner_writer)
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end of the one side, which then is the other's."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
