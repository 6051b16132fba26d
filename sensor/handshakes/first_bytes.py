"""First bytes in, what they say out: the one way into this package for the rest of the sensor.

Nothing that is sent can make it raise, grow without bound or take long: what can't be read is counted by its error's code, what has no
room by why. Time is what the payloads tell.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

from sensor.bounded import remember
from sensor.events import Endpoint, Flag, Kind, Payload
from sensor.handshakes import client_hello, dns_answer, http_head
from sensor.handshakes.errors import HandshakeError
from sensor.handshakes.ja4 import ja4
from sensor.handshakes.names import Names
from sensor.handshakes.quic_flow import QuicFlow
from sensor.handshakes.seen import Answer, Hello, Http2, Request, Seen, origin_of
from sensor.handshakes.tls_stream import TlsStream

_SECOND: Final = 1_000_000_000
# Of hellos that are not whole: a client writes one at once, or gives up.
MAX_STREAMS: Final = 4096
MAX_QUIC_FLOWS: Final = 1024
MAX_HELD_BYTES: Final = 4 << 20
MAX_AGE_NS: Final = 30 * _SECOND
# Of streams that are told, so that a piece that comes twice tells nothing twice.
MAX_TOLD: Final = 16_384
_MAX_PROTOCOLS: Final = 16
_PROTOCOL: Final = re.compile(rb"[!-~]{1,32}")


@dataclass(slots=True)
class Counters:
    """What was not told. `errors` by the code of what was wrong; `dropped` by why: `Evicted` for others, `Expired` before it was whole,
    `Cut` before it was told, `Late` packets of QUIC that say nothing more."""

    seen: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


class FirstBytes:
    """Reads payloads and keeps what is not whole yet; `names` joins addresses with what they were looked up by."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.names = Names()
        self._streams: OrderedDict[int, TlsStream] = OrderedDict()
        self._flows: OrderedDict[tuple[int, Endpoint | None], QuicFlow] = OrderedDict()
        self._told: OrderedDict[int, None] = OrderedDict()
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """How many bytes of hellos that are not whole are kept."""
        return self._held_bytes

    @property
    def unfinished(self) -> int:
        """How many streams and flows are kept."""
        return len(self._streams) + len(self._flows)

    def take(self, payload: Payload) -> tuple[Seen, ...]:
        """What is known by this payload. Never raises for what was sent."""
        self._expire(payload.time_ns)
        try:
            found = self._read(payload)
        except HandshakeError as error:
            self.counters.errors[error.code] += 1
            return ()
        self.counters.seen += len(found)
        return found

    def _read(self, payload: Payload) -> tuple[Seen, ...]:
        match payload.kind:
            case Kind.TLS:
                return self._tls(payload)
            case Kind.QUIC:
                return self._quic(payload)
            case Kind.HTTP:
                origin = origin_of(payload)
                if http_head.is_http2(payload.data):
                    return (Http2(origin=origin),)
                return (Request(origin=origin, head=http_head.read(payload.data)),)
            case Kind.DNS:
                answer = dns_answer.read(payload.data, cut=Flag.CUT in payload.flags)
                self.names.learn(payload.cgroup_id, answer, payload.time_ns)
                return (Answer(origin=origin_of(payload), answer=answer),)
            case Kind.EXECUTED:
                return ()

    def _tls(self, payload: Payload) -> tuple[Seen, ...]:
        cookie = payload.cookie
        if cookie in self._told:
            return ()
        stream = self._streams.get(cookie)
        if stream is None:
            stream = self._streams[cookie] = TlsStream(payload.time_ns)
        before = stream.size
        try:
            body = stream.add(payload.sequence, payload.data)
            self._held_bytes += stream.size - before
            if body is None:
                self._after_piece(payload)
                return ()
            self._forget_stream(cookie)
            self._tell(cookie)
            return (_hello(payload, body, quic=False),)
        except HandshakeError:
            # A stream whose beginning is wrong does not get better by more of it.
            self._held_bytes += stream.size - before if cookie in self._streams else 0
            self._forget_stream(cookie)
            self._tell(cookie)
            raise

    def _after_piece(self, payload: Payload) -> None:
        if Flag.CUT in payload.flags:
            self.counters.dropped["Cut"] += 1
            self._forget_stream(payload.cookie)
            self._tell(payload.cookie)
        self._make_room()

    def _quic(self, payload: Payload) -> tuple[Seen, ...]:
        key = (payload.cookie, payload.remote)
        flow = self._flows.get(key) or QuicFlow(payload.time_ns)
        before, late = flow.size, flow.late
        try:
            bodies = flow.add(payload.data)
        finally:
            if flow.begun:
                self._flows[key] = flow
                self._held_bytes += flow.size - before
            self.counters.dropped["Late"] += flow.late - late
            self._make_room()
        return tuple(_hello(payload, body, quic=True) for body in bodies)

    def _tell(self, cookie: int) -> None:
        remember(self._told, cookie, None, MAX_TOLD)

    def _forget_stream(self, cookie: int) -> None:
        stream = self._streams.pop(cookie, None)
        if stream is not None:
            self._held_bytes -= stream.size

    def _forget_flow(self, key: tuple[int, Endpoint | None]) -> bool:
        """Whether a hello of it was not whole."""
        flow = self._flows.pop(key)
        self._held_bytes -= flow.size
        return flow.size > 0

    def _make_room(self) -> None:
        while len(self._streams) > MAX_STREAMS or (self._held_bytes > MAX_HELD_BYTES and self._streams):
            self._forget_stream(next(iter(self._streams)))
            self.counters.dropped["Evicted"] += 1
        while len(self._flows) > MAX_QUIC_FLOWS or (self._held_bytes > MAX_HELD_BYTES and self._flows):
            self.counters.dropped["Evicted"] += self._forget_flow(next(iter(self._flows)))

    def _expire(self, now_ns: int) -> None:
        """Forget what began too long ago; the oldest is first, so each look costs what it forgets."""
        while self._streams and now_ns - next(iter(self._streams.values())).began_ns > MAX_AGE_NS:
            self._forget_stream(next(iter(self._streams)))
            self.counters.dropped["Expired"] += 1
        while self._flows and now_ns - next(iter(self._flows.values())).began_ns > MAX_AGE_NS:
            self.counters.dropped["Expired"] += self._forget_flow(next(iter(self._flows)))


def _hello(payload: Payload, body: bytes, *, quic: bool) -> Hello:
    hello = client_hello.read(body)
    return Hello(
        origin=origin_of(payload),
        server_name=hello.server_name,
        name_state=hello.name_state,
        alpn=tuple(_protocol(name) for name in hello.alpn[:_MAX_PROTOCOLS]),
        supported_versions=tuple(number for number in hello.supported_versions if number not in client_hello.GREASE)[:_MAX_PROTOCOLS],
        ja4=ja4(hello, quic=quic),
        ech=hello.ech,
        quic=quic,
    )


def _protocol(name: bytes) -> str:
    """A protocol's name as it is registered; in hexadecimal where it is no visible ASCII (GREASE is none)."""
    return name.decode("ascii") if _PROTOCOL.fullmatch(name) else f"0x{name[:16].hex()}"
