from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.events import Endpoint, Flag, Kind
from sensor.handshakes import first_bytes
from sensor.handshakes.client_hello import ALPN, SERVER_NAME, SUPPORTED_VERSIONS, Ech, NameState
from sensor.handshakes.first_bytes import MAX_AGE_NS, MAX_HELD_BYTES, MAX_STREAMS, FirstBytes
from sensor.handshakes.seen import Answer, Hello, Http2, Origin, Request
from tests.sensor.handshakes import hellos
from tests.sensor.handshakes.dns_messages import answer
from tests.sensor.handshakes.payloads import SERVER, payload
from tests.sensor.handshakes.quic_datagrams import crypto, initial

STREAM = hellos.records(hellos.message(hellos.browser_body()))
MESSAGE = hellos.message(hellos.browser_body())
ORIGIN = Origin(cookie=1, cgroup_id=7, process=0, remote=SERVER, time_ns=5)


def test_a_hello_over_tcp() -> None:
    assert FirstBytes().take(payload(Kind.TLS, STREAM, time_ns=5)) == (
        Hello(
            origin=ORIGIN,
            server_name="api.example.com",
            name_state=NameState.HOST_NAME,
            alpn=("h2", "http/1.1"),
            supported_versions=(0x0304, 0x0303),
            ja4=hellos.BROWSER_JA4,
            ech=Ech.ABSENT,
            quic=False,
        ),
    )


def test_a_hello_over_quic() -> None:
    [hello] = FirstBytes().take(payload(Kind.QUIC, initial(crypto(0, MESSAGE))))
    assert isinstance(hello, Hello)
    assert (hello.quic, hello.server_name, hello.ja4) == (True, "api.example.com", "q" + hellos.BROWSER_JA4[1:])


def test_a_request_and_a_proxy_and_http_2() -> None:
    taken = FirstBytes()
    [request] = taken.take(payload(Kind.HTTP, b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"))
    [proxied] = taken.take(payload(Kind.HTTP, b"CONNECT api.example.com:443 HTTP/1.1\r\n\r\n"))
    [http2] = taken.take(payload(Kind.HTTP, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", time_ns=5))
    assert isinstance(request, Request)
    assert request.head.host == "example.com"
    assert isinstance(proxied, Request)
    assert (proxied.head.method, proxied.head.host) == ("CONNECT", "api.example.com")
    assert http2 == Http2(origin=ORIGIN)


def test_an_answer_names_its_addresses_for_the_cgroup_that_asked() -> None:
    taken = FirstBytes()
    [found] = taken.take(payload(Kind.DNS, answer("api.example.com", ["api.example.com 60 A 192.0.2.9"]), cgroup_id=3))
    assert isinstance(found, Answer)
    assert found.answer.name == "api.example.com"
    assert taken.names.of(3, IPv4Address("192.0.2.9"), 0) == ("api.example.com",)
    assert taken.names.of(4, IPv4Address("192.0.2.9"), 0) == ()


def test_the_name_of_a_file_says_nothing_here() -> None:
    assert FirstBytes().take(payload(Kind.EXECUTED, b"/bin/true")) == ()


def test_streams_are_told_apart_and_each_is_told_once() -> None:
    taken = FirstBytes()
    halves = (STREAM[:100], STREAM[100:])
    for cookie in (1, 2):
        assert taken.take(payload(Kind.TLS, halves[0], cookie=cookie)) == ()
    found = [seen for _ in range(2) for cookie in (1, 2) for seen in taken.take(payload(Kind.TLS, halves[1], cookie=cookie, sequence=1100))]
    assert [seen.origin.cookie for seen in found] == [1, 2]
    assert (taken.unfinished, taken.held_bytes) == (0, 0)


def test_quic_of_one_socket_to_two_addresses_is_two_flows() -> None:
    taken = FirstBytes()
    other = Endpoint(IPv4Address("192.0.2.8"), 443)
    for remote in (SERVER, other):
        assert taken.take(payload(Kind.QUIC, initial(crypto(0, MESSAGE[:100])), remote=remote)) == ()
    for remote in (SERVER, other):
        assert len(taken.take(payload(Kind.QUIC, initial(crypto(100, MESSAGE[100:]), number=1), remote=remote))) == 1
    assert taken.held_bytes == 0


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        (Kind.TLS, b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "HelloMalformed"),
        (Kind.TLS, hellos.records(hellos.message(hellos.body(suites=()))), "HelloMalformed"),
        (Kind.TLS, b"\x16\x03\x01\x00\x05\x01\x01\x00\x00\x00", "HelloTooLong"),
        (Kind.QUIC, b"\x00" * 1200, "QuicMalformed"),
        (Kind.QUIC, b"\xc0\x0a\x0a\x0a\x0a" + bytes(1200), "QuicVersionUnknown"),
        (Kind.QUIC, initial(crypto(0, MESSAGE), keys_of=b"other"), "QuicNotAuthentic"),
        (Kind.QUIC, initial(crypto(17_000, b"x")), "PieceOutOfBounds"),
        (Kind.HTTP, b"GET", "RequestMalformed"),
        (Kind.DNS, b"", "AnswerMalformed"),
    ],
)
def test_what_cannot_be_read_is_counted_by_its_code(kind: Kind, data: bytes, code: str) -> None:
    taken = FirstBytes()
    assert taken.take(payload(kind, data)) == ()
    assert taken.counters.errors == {code: 1}
    assert taken.held_bytes == 0


def test_after_a_mistake_a_stream_is_not_read_on() -> None:
    taken = FirstBytes()
    taken.take(payload(Kind.TLS, b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00"))
    assert taken.take(payload(Kind.TLS, STREAM, sequence=1010)) == ()
    assert taken.counters.errors == {"HelloMalformed": 1}


def test_a_hello_that_was_cut_is_counted_and_forgotten() -> None:
    taken = FirstBytes()
    assert taken.take(payload(Kind.TLS, STREAM[:100], flags=Flag.CUT)) == ()
    assert (taken.unfinished, taken.held_bytes, taken.counters.dropped["Cut"]) == (0, 0, 1)
    assert len(taken.take(payload(Kind.TLS, STREAM, cookie=2, flags=Flag.CUT))) == 1


def test_what_is_not_finished_in_time_is_forgotten_and_counted() -> None:
    taken = FirstBytes()
    taken.take(payload(Kind.TLS, STREAM[:100], cookie=1))
    taken.take(payload(Kind.QUIC, initial(crypto(0, MESSAGE[:100])), cookie=2))
    taken.take(payload(Kind.QUIC, initial(crypto(0, MESSAGE)), cookie=3))
    assert taken.take(payload(Kind.EXECUTED, b"", time_ns=MAX_AGE_NS)) == ()
    assert taken.unfinished == 3
    taken.take(payload(Kind.EXECUTED, b"", time_ns=MAX_AGE_NS + 1))
    assert (taken.unfinished, taken.held_bytes, taken.counters.dropped["Expired"]) == (0, 0, 2)


def test_streams_are_bounded_in_number_and_what_gives_way_is_counted() -> None:
    taken = FirstBytes()
    for cookie in range(MAX_STREAMS + 5):
        taken.take(payload(Kind.TLS, STREAM[:100], cookie=cookie))
    assert (taken.unfinished, taken.counters.dropped["Evicted"]) == (MAX_STREAMS, 5)
    assert len(taken.take(payload(Kind.TLS, STREAM[100:], cookie=5, sequence=1100))) == 1


def test_streams_are_bounded_in_bytes_and_what_gives_way_is_counted() -> None:
    taken = FirstBytes()
    head = b"\x16\x03\x01\x40\x00\x01\x00\x3f\x00"
    for cookie in range(600):
        taken.take(payload(Kind.TLS, head + bytes(7000), cookie=cookie))
        assert taken.held_bytes <= MAX_HELD_BYTES
    assert taken.counters.dropped["Evicted"] > 0


def test_flows_of_quic_are_bounded() -> None:
    taken = FirstBytes()
    datagram = initial(crypto(0, MESSAGE[:100]))
    for cookie in range(first_bytes.MAX_QUIC_FLOWS + 3):
        taken.take(payload(Kind.QUIC, datagram, cookie=cookie))
    assert (taken.unfinished, taken.counters.dropped["Evicted"]) == (first_bytes.MAX_QUIC_FLOWS, 3)


def test_of_protocols_only_visible_text_is_handed_on_as_text() -> None:
    listed = [
        (SERVER_NAME, hellos.name_extension(b"evil\nname")),
        (ALPN, hellos.alpn_extension(b"\x0a\x0a", b"h2", b"x\n", *[b"p%d" % number for number in range(30)])),
        (SUPPORTED_VERSIONS, hellos.vector(hellos.numbers([0x1A1A, 0x0304]), 1)),
    ]
    [hello] = FirstBytes().take(payload(Kind.TLS, hellos.records(hellos.message(hellos.body(listed)))))
    assert isinstance(hello, Hello)
    assert (hello.server_name, hello.name_state) == ("", NameState.NOT_A_HOST_NAME)
    assert hello.alpn[:4] == ("0x0a0a", "h2", "0x780a", "p0")
    assert len(hello.alpn) == 16
    assert hello.supported_versions == (0x0304,)


KINDS = st.sampled_from(list(Kind))
DATA = st.one_of(
    st.binary(max_size=120),
    st.tuples(st.integers(0, len(STREAM)), st.integers(0, len(STREAM))).map(lambda cut: STREAM[cut[0] : cut[1]]),
    st.binary(max_size=60).map(initial),
)


@given(st.lists(st.tuples(KINDS, DATA, st.integers(0, 2), st.integers(0, (1 << 32) - 1), st.integers(0, 1 << 36)), max_size=20))
def test_any_payloads_in_any_order_never_raise_and_hold_what_they_say(found: list[tuple[Kind, bytes, int, int, int]]) -> None:
    taken = FirstBytes()
    told = 0
    for kind, data, cookie, sequence, time_ns in found:
        told += len(taken.take(payload(kind, data, cookie=cookie, sequence=sequence, time_ns=time_ns)))
    assert taken.counters.seen == told
    assert taken.held_bytes >= 0
    assert taken.unfinished or taken.held_bytes == 0
