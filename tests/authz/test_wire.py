"""The wire: what Envoy sends becomes a value or a WireError, our answers are Envoy's messages to the byte."""

from __future__ import annotations

import base64
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from authz import certificates, server, wire
from authz.pb import discovery_pb2, ext_authz_pb2, secret_discovery_pb2, tls_secret_pb2
from authz.request import CheckInput, Direction, HttpRequest, SocketAddress
from authz.wire import WireError
from hopgate.resources.kinds import DialAddress
from tests import xds_protos

HEADERS = ((":method", b"POST"), (":path", b"/mcp?x=1"), (":authority", b"tools.demo.svc"), (":scheme", b"http"), ("accept", b"a"))


def http_request(
    *, headers: tuple[tuple[str, bytes], ...] = (), body: bytes = b"", size: int | None = None, change: Callable[[Any], None] | None = None
) -> bytes:
    """A check as this gate's Envoy sends it, with further headers, a body and one difference."""
    request = ext_authz_pb2.CheckRequest()
    attributes = request.attributes
    attributes.source.address.socket_address.address = "192.0.2.2"
    attributes.source.address.socket_address.port_value = 40000
    attributes.destination.address.socket_address.address = "198.19.0.5"
    attributes.destination.address.socket_address.port_value = 80
    http = attributes.request.http
    http.id, http.method, http.path, http.host, http.scheme = "7", "POST", "/mcp?x=1", "tools.demo.svc", "http"
    http.raw_body = body
    http.size = len(body) if size is None else size
    for name, value in (*HEADERS, *headers):
        header = http.header_map.headers.add()
        header.key, header.raw_value = name, value
    if change is not None:
        change(request)
    return request.SerializeToString()


def decoded_http(message: bytes) -> HttpRequest:
    http = wire.decode(message, Direction.OUTBOUND).http
    assert http is not None
    return http


def test_an_http_check_becomes_the_value_that_envoy_described() -> None:
    partial = (("x-a", b"1"), ("x-a", b"2"), ("x-envoy-auth-partial-body", b"false"))
    assert wire.decode(http_request(headers=partial, body=b"\xff\x00"), Direction.OUTBOUND) == CheckInput(
        request_id="7",
        direction=Direction.OUTBOUND,
        source=SocketAddress(ip="192.0.2.2", port=40000),
        destination=SocketAddress(ip="198.19.0.5", port=80),
        sni=None,
        http=HttpRequest(
            method="POST",
            scheme="http",
            unverified_host="tools.demo.svc",
            path="/mcp?x=1",
            headers=(("accept", "a"), ("x-a", "1"), ("x-a", "2")),
            body=b"\xff\x00",
            body_complete=True,
        ),
    )


def test_a_network_check_has_no_http_part() -> None:
    def no_request(request: Any) -> None:
        request.attributes.ClearField("request")

    check = wire.decode(http_request(change=no_request), Direction.OUTBOUND)
    assert (check.http, check.request_id, check.destination.ip) == (None, "", "198.19.0.5")


@pytest.mark.parametrize(("sni", "expected"), [(None, None), ("", ""), ("api.test", "api.test")], ids=["no TLS", "no name", "a name"])
def test_a_session_without_a_name_is_told_from_no_session(sni: str | None, expected: str | None) -> None:
    def tls(request: Any) -> None:
        if sni is not None:
            request.attributes.tls_session.SetInParent()
            request.attributes.tls_session.sni = sni

    assert wire.decode(http_request(change=tls), Direction.OUTBOUND).sni == expected


@pytest.mark.parametrize(
    ("headers", "size", "complete"),
    [
        ((), 0, True),
        ((), -1, True),
        ((("x-envoy-auth-partial-body", b"false"),), 3, True),
        ((("x-envoy-auth-partial-body", b"true"),), 3, False),
        ((("x-envoy-auth-partial-body", b"false"),), 4, False),
        ((("x-envoy-auth-partial-body", b"false"), ("x-envoy-auth-partial-body", b"true")), 3, False),
        ((("x-envoy-auth-partial-body", b"true"), ("x-envoy-auth-partial-body", b"false")), 3, False),
        ((("x-envoy-auth-partial-body", b"maybe"),), 3, False),
    ],
    ids=["no body", "size unknown", "whole", "cut", "shorter than announced", "whole, cut", "cut, whole", "another value"],
)
def test_a_body_is_complete_only_when_nothing_says_otherwise(headers: tuple[tuple[str, bytes], ...], size: int, complete: bool) -> None:
    body = b"abc" if headers else b""
    assert decoded_http(http_request(headers=headers, body=body, size=size)).body_complete is complete


def test_envoys_own_mark_of_a_cut_body_is_no_header_of_the_request() -> None:
    assert decoded_http(http_request(headers=(("x-envoy-auth-partial-body", b"true"),))).values("x-envoy-auth-partial-body") == ()


def _text_body(request: Any) -> None:
    request.attributes.request.http.body = "text"


def _joined_headers(request: Any) -> None:
    request.attributes.request.http.headers["accept"] = "a,b"


def _other_path(request: Any) -> None:
    request.attributes.request.http.path = "/!"


def _other_host(request: Any) -> None:
    request.attributes.request.http.host = "!"


def _other_method(request: Any) -> None:
    request.attributes.request.http.method = "!"


def _no_source(request: Any) -> None:
    request.attributes.ClearField("source")


def _no_destination(request: Any) -> None:
    request.attributes.ClearField("destination")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"\xff\xff", "bytes that are none"),
        (b"", "as the source"),
        (http_request(change=_no_source), "as the source"),
        (http_request(change=_no_destination), "as the destination"),
        (http_request(change=_text_body), "pack_as_bytes"),
        (http_request(change=_joined_headers), "encode_raw_headers"),
        (http_request(change=_other_path), ":path"),
        (http_request(change=_other_host), ":authority"),
        (http_request(change=_other_method), ":method"),
        (http_request(headers=(("x-a", b"\xff\xfe"),)), "UTF-8"),
    ],
    ids=[
        "no message",
        "nothing",
        "no source",
        "no destination",
        "body as text",
        "joined headers",
        "path altered",
        "host altered",
        "method altered",
        "bytes",
    ],
)
def test_what_this_gates_envoy_never_sends_is_refused(message: bytes, says: str) -> None:
    with pytest.raises(WireError, match=says) as caught:
        wire.decode(message, Direction.OUTBOUND)
    assert caught.value.code == "MalformedCheck"


def test_a_header_in_utf8_is_taken() -> None:
    assert decoded_http(http_request(headers=(("x-a", "é".encode()),))).single("x-a") == "é"


def test_any_bytes_are_a_value_or_a_wire_error() -> None:
    generator = random.Random(20)
    good = http_request(headers=(("x-a", b"1"), ("x-envoy-auth-partial-body", b"true")), body=b"body")
    outcomes = {CheckInput: 0, WireError: 0}
    for _ in range(20_000):
        message = bytearray(good)
        for _ in range(generator.randint(1, 2)):
            message[generator.randrange(len(message))] = generator.randrange(256)
        del message[generator.choice((len(message), len(message), generator.randrange(len(message)))) :]
        try:
            outcomes[type(wire.decode(bytes(message), Direction.OUTBOUND))] += 1
        except WireError:
            outcomes[WireError] += 1
    assert min(outcomes.values()) > 500, "the mutations must reach both outcomes"


def test_an_error_shows_nothing_of_the_request() -> None:
    secret = b"s3cr3t-value\xff"
    with pytest.raises(WireError) as caught:
        wire.decode(http_request(headers=(("authorization", secret),)), Direction.OUTBOUND)
    assert "s3cr3t" not in str(caught.value)


def answered(message: bytes) -> Any:
    return ext_authz_pb2.CheckResponse.FromString(message)


@pytest.mark.parametrize(
    ("dial", "text"),
    [(DialAddress(ip="10.0.0.7", port=8443), "10.0.0.7:8443"), (DialAddress(ip="2001:db8::7", port=80), "[2001:db8::7]:80")],
    ids=["IPv4", "IPv6"],
)
def test_allow_names_the_address_to_dial(dial: DialAddress, text: str) -> None:
    response = answered(wire.allow(dial=dial, set_headers=(("a", "1"),), remove_headers=("b",), decision_id="d"))
    assert (response.status.code, response.WhichOneof("http_response")) == (0, "ok_response")
    assert dict(response.dynamic_metadata) == {"dial": text, "decision": "d"}
    assert [(option.header.key, option.header.value) for option in response.ok_response.headers] == [("a", "1")]
    assert list(response.ok_response.headers_to_remove) == ["b"]


def test_allow_without_an_address_names_none() -> None:
    response = answered(wire.allow(dial=None, set_headers=(), remove_headers=(), decision_id="d"))
    assert (response.WhichOneof("http_response"), dict(response.dynamic_metadata)) == ("ok_response", {"decision": "d"})


def test_deny_carries_a_response_and_no_address() -> None:
    response = answered(wire.deny(status=403, headers=(("content-type", "text/plain"),), body="nein § no".encode(), decision_id="d"))
    denied = response.denied_response
    assert (response.status.code, denied.status.code, denied.body) == (7, 403, "nein § no")
    assert dict(response.dynamic_metadata) == {"decision": "d"}


def test_deny_connection_is_a_status_alone() -> None:
    response = answered(wire.deny_connection(decision_id="d"))
    assert (response.status.code, response.WhichOneof("http_response")) == (7, None)
    assert dict(response.dynamic_metadata) == {"decision": "d"}


OURS: dict[str, type[Message]] = {
    cls.DESCRIPTOR.full_name: cls
    for cls in (
        ext_authz_pb2.CheckRequest,
        ext_authz_pb2.CheckResponse,
        discovery_pb2.DeltaDiscoveryRequest,
        discovery_pb2.DeltaDiscoveryResponse,
        tls_secret_pb2.Secret,
    )
}


def fill(message: Message, chosen: int) -> Message:
    """Give every field a value; of a oneof, the member that `chosen` picks."""
    descriptor: Any = message.DESCRIPTOR
    if descriptor.full_name == "google.protobuf.Any":
        message.Pack(fill(tls_secret_pb2.Secret(), chosen))  # type: ignore[attr-defined]  # only Any has Pack
        return message
    if descriptor.full_name == "google.protobuf.Struct":
        message.update({"text": "a", "number": 1.5, "list": [True, None], "inner": {"b": "c"}})  # type: ignore[attr-defined]  # only Struct has update
        return message
    for number, field in enumerate(descriptor.fields):
        oneof = field.containing_oneof
        if oneof is None or oneof.fields[chosen % len(oneof.fields)] is field:
            _fill_field(message, field, number, chosen)
    return message


def _fill_field(message: Message, field: FieldDescriptor, number: int, chosen: int) -> None:
    value = getattr(message, field.name)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        if entry.fields_by_name["value"].message_type is None:
            value[f"key-{number}"] = f"value-{number}"
        else:
            fill(value[f"key-{number}"], chosen)
    elif entry is not None:
        for _ in range(2 if field.is_repeated else 1):
            fill(value.add() if field.is_repeated else value, chosen)
            if not field.is_repeated:
                value.SetInParent()
    elif field.is_repeated:
        value.extend([f"item-{number}", "é"])
    else:
        setattr(message, field.name, _scalar(field, number))


def _scalar(field: FieldDescriptor, number: int) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return f"text-{number}-é"
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes((0, 255, number))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return 403
    return 40_000 + number


def _fields(message: Message) -> Any:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


@pytest.mark.parametrize("chosen", [0, 1], ids=["first of each choice", "second of each choice"])
def test_what_we_write_is_read_upstream_field_for_field_and_byte_for_byte(chosen: int) -> None:
    ours = {name: fill(cls(), chosen) for name, cls in OURS.items()}
    written = {name: message.SerializeToString(deterministic=True) for name, message in ours.items()}
    answer = xds_protos.ask({"read": {name: base64.b64encode(data).decode() for name, data in written.items()}})
    for name, message in ours.items():
        assert answer[name]["fields"] == _fields(message), name
        assert base64.b64decode(answer[name]["bytes"]) == written[name], name
        assert base64.b64decode(answer[name]["known"]) == written[name], f"{name} has fields that upstream does not know"


@pytest.mark.parametrize("chosen", [0, 1], ids=["first of each choice", "second of each choice"])
def test_what_upstream_writes_is_read_here_field_for_field_and_byte_for_byte(chosen: int) -> None:
    ours = {name: fill(cls(), chosen) for name, cls in OURS.items()}
    answer = xds_protos.ask({"write": {name: _fields(message) for name, message in ours.items()}})
    for name, message in ours.items():
        read = type(message).FromString(base64.b64decode(answer[name]))
        assert read == message, name
        assert read.SerializeToString(deterministic=True) == base64.b64decode(answer[name]), name


def test_the_services_are_upstreams_with_their_messages_and_streams() -> None:
    upstream = xds_protos.ask({"services": True})
    for module in (ext_authz_pb2, secret_discovery_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                signature = [method.input_type.full_name, method.output_type.full_name, method.client_streaming, method.server_streaming]
                assert upstream[f"/{service.full_name}/{method.name}"] == signature
    assert {server.METHOD, certificates.METHOD} <= set(upstream)


def test_the_generated_code_is_what_the_definitions_generate(repository: Path, tmp_path: Path) -> None:
    subprocess.run(("sh", str(repository / "protos" / "generate.sh"), sys.executable, str(tmp_path)), check=True)
    generated = {path.name: path.read_bytes() for path in (tmp_path / "authz" / "pb").iterdir()}
    kept = {path.name: path.read_bytes() for path in (repository / "authz" / "pb").glob("*_pb2.py*")}
    assert generated == kept, "run `make gen`"
    assert {f"{path.stem}_pb2.py" for path in (repository / "protos" / "authz" / "pb").iterdir()} <= set(generated)
