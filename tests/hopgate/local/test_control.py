"""One request, one packet, one answer; what is no message ends the connection, and descriptors travel beside theirs."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hopgate.local import control
from hopgate.local.control import (
    Answer,
    Attach,
    Attached,
    Client,
    Connection,
    ControlError,
    Hello,
    Refused,
    Request,
    SensorStatus,
    Status,
    StatusRequest,
    Welcome,
)

ATTACH = Attach(
    agent="demo/planner",
    pid=7,
    listen=8080,
    command=("python", "ü", "\n"),
    user=1000,
    allow_sockets=("/a",),
    binds=(),
    kept_variables=("KEY",),
    cgroup_id=9,
)
STATUS = Status(
    pid=1,
    resources="/r",
    data="/d",
    snapshot_digest="x",
    snapshot_loaded_at=1,
    mistakes=("m" * 50_000,),
    agents=(),
    authz_pid=None,
    authz_restarts=0,
    counters={},
    sensor=SensorStatus(pid=None, restarts=0, loader="", why="", unseen=("connections: switched off",), counters={}),
)


def pair() -> tuple[socket.socket, Connection]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.settimeout(10)
    return here, Connection(there)


async def received(connection: Connection) -> tuple[Request, list[int]] | None:
    return await asyncio.wait_for(connection.receive(), 10)


@pytest.mark.parametrize("request_", [Hello(agent="demo/planner"), ATTACH, StatusRequest()], ids=["hello", "attach", "status"])
async def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    here, connection = pair()
    with here:
        here.send(msgspec.json.encode(request_))
        assert await received(connection) == (request_, [])
        connection.close()


async def test_descriptors_arrive_beside_their_request() -> None:
    here, connection = pair()
    reading, writing = os.pipe()
    with here:
        socket.send_fds(here, [msgspec.json.encode(ATTACH)], [writing])
        os.close(writing)
        found = await received(connection)
        assert found is not None
        [arrived] = found[1]
        os.write(arrived, b"through")
        os.close(arrived)
        assert os.read(reading, 100) == b"through"
    os.close(reading)
    connection.close()


@pytest.mark.parametrize(
    "packet",
    [
        b"hello",
        b"{}",
        b'{"type":"drop"}',
        b'{"type":"hello"}',
        b'{"type":"hello","agent":1}',
        b"\xff",
        msgspec.json.encode(Attached(inbound=None)),
    ],
    ids=repr,
)
async def test_what_is_no_request_is_refused_and_its_descriptors_closed(packet: bytes) -> None:
    here, connection = pair()
    reading, writing = os.pipe()
    with here:
        socket.send_fds(here, [packet], [writing])
        os.close(writing)
        assert await received(connection) is None
        assert await asyncio.wait_for(asyncio.to_thread(os.read, reading, 1), 10) == b""  # no writer is left
    os.close(reading)
    connection.close()


async def test_a_packet_beyond_the_bound_is_refused() -> None:
    here, connection = pair()
    with here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        whole = msgspec.json.encode(Hello(agent="x" * control.MAX_PACKET_BYTES))
        here.send(whole)
        assert await received(connection) is None
    connection.close()


async def test_a_peer_that_is_gone_is_none() -> None:
    here, connection = pair()
    here.close()
    assert await received(connection) is None
    connection.close()


async def test_knows_its_peers_user_from_the_kernel() -> None:
    here, connection = pair()
    assert connection.peer_user() == os.getuid()
    here.close()
    connection.close()


def answering(path: Path, answer: bytes | None, seen: list[bytes]) -> threading.Thread:
    """A gate that gives one answer (None: closes the connection) at `path`."""
    listener = control.listen(path)
    listener.settimeout(10)

    def serve() -> None:
        accepted, _ = listener.accept()
        with accepted, listener:
            seen.append(accepted.recv(control.MAX_PACKET_BYTES))
            if answer is not None:
                accepted.send(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "answer",
    [
        Welcome(authority_pem="pem", providers=("openai",), hidden=("/h",), resources="/r"),
        Attached(inbound="127.0.0.1:1"),
        STATUS,
        Refused(code="X", message="m", remedy="r"),
    ],
    ids=["welcome", "attached", "a large status", "refused"],
)
def test_an_answer_arrives_as_it_was_sent(tmp_path: Path, answer: Answer) -> None:
    seen: list[bytes] = []
    gate = answering(tmp_path / "s", msgspec.json.encode(answer), seen)
    client = Client(tmp_path / "s", 10)
    assert client.ask(StatusRequest()) == answer
    client.close()
    gate.join()
    assert seen == [b'{"type":"status"}']


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"hello", "can't be read"), (b'{"type":"status"}', "can't be read"), (None, "closed the connection")],
    ids=["no JSON", "a request", "nothing"],
)
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, answer: bytes | None, said: str) -> None:
    gate = answering(tmp_path / "s", answer, [])
    client = Client(tmp_path / "s", 10)
    with pytest.raises(ControlError, match=said) as failed:
        client.ask(StatusRequest())
    assert failed.value.remedy
    client.close()
    gate.join()


def test_a_gate_that_does_not_answer_in_time_is_an_error(tmp_path: Path) -> None:
    with control.listen(tmp_path / "s"):
        client = Client(tmp_path / "s", 0.05)
        with pytest.raises(ControlError, match="did not answer"):
            client.ask(StatusRequest())
        client.close()


def _nothing(path: Path) -> None:
    """Leave the path as it is."""


def _left_behind(path: Path) -> None:
    control.listen(path).close()


@pytest.mark.parametrize("make", [_nothing, _left_behind, Path.touch], ids=["no socket", "a socket of a killed gate", "a file"])
def test_where_no_gate_answers_it_says_so(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "s")
    with pytest.raises(ControlError, match="no gate answers") as failed:
        Client(tmp_path / "s", 1)
    assert (failed.value.code, failed.value.remedy) == ("GateUnreachable", "start one with `hopgate up`")


def test_the_socket_is_for_its_owner_only_and_the_umask_as_before(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with control.listen(tmp_path / "s"):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
