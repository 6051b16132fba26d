"""Envoy's external authorization messages to values of ours, and our answers back: the one module that knows both.

Nothing is decided here. What the bootstrap under `envoy/` never sends is refused, not guessed at: headers that were joined
into one value, a body as text, an address that is no socket's, a path that Envoy altered for its message. Whatever
the bytes are, `decode` gives a value or raises WireError. Source: envoy.service.auth.v3, as restated under `protos/`.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from authz.pb import ext_authz_pb2 as pb
from authz.request import CheckInput, Direction, HttpRequest, SocketAddress
from hopgate.resources.kinds import DialAddress

# The metadata keys of every answer; `envoy/agent.yaml` reads the first one, and only it, to know where to connect.
DIAL_KEY = "dial"
DECISION_KEY = "decision"

# Set in the configuration of an Envoy that stands before one destination (`hopgate envoy config --destination`).
DESTINATION_EXTENSION = "hopgate-destination"
# Envoy writes it into the check where it read a body: "true" when it stopped before the body's end.
_PARTIAL_BODY_HEADER = "x-envoy-auth-partial-body"
# google.rpc.Code: what Envoy allows on, and what it denies on.
_OK = 0
_PERMISSION_DENIED = 7


class WireError(Exception):
    """The message is not a check as this gate's Envoy sends it. The message text holds no value from the request."""

    code = "MalformedCheck"


def decode(request: bytes, direction: Direction) -> CheckInput:
    """A serialised CheckRequest as a value. Raises WireError.

    `direction` is Envoy's own word, from the metadata that its bootstrap adds to every check.
    """
    try:
        attributes = pb.CheckRequest.FromString(request).attributes
    except DecodeError as error:
        raise WireError("expected a CheckRequest, got bytes that are none") from error
    http = attributes.request.http if attributes.HasField("request") else None
    return CheckInput(
        request_id=http.id if http is not None else "",
        direction=direction,
        source=_socket_address(attributes.source, "source"),
        destination=_socket_address(attributes.destination, "destination"),
        sni=attributes.tls_session.sni if attributes.HasField("tls_session") else None,
        http=_http(http) if http is not None else None,
        principal=attributes.source.principal,
        destination_name=attributes.context_extensions.get(DESTINATION_EXTENSION, ""),
    )


def _socket_address(peer: pb.AttributeContext.Peer, which: str) -> SocketAddress:
    address = peer.address.socket_address
    if not address.address:
        raise WireError(f"expected an IP address and a port as the {which}, got none")
    return SocketAddress(ip=address.address, port=address.port_value)


def _http(http: pb.AttributeContext.HttpRequest) -> HttpRequest:
    if http.headers:
        raise WireError("expected raw headers, got headers joined by name: set `encode_raw_headers`")
    if http.body:
        raise WireError("expected the body as bytes, got text: set `pack_as_bytes`")
    method, host, path, body = http.method, http.host, http.path, http.raw_body
    seen = {":method": method, ":authority": host, ":path": path}
    headers: list[tuple[str, str]] = []
    # `size` is the content-length where Envoy knows it, else -1 or what it has read.
    complete = http.size <= len(body)
    try:
        # One pass and one decoding each: on the request path this loop is what decoding costs.
        for header in http.header_map.headers:
            name, value = header.key, header.raw_value.decode()
            if name == _PARTIAL_BODY_HEADER:
                complete = complete and value == "false"
            elif name.startswith(":"):
                # Envoy replaces what is not UTF-8 in its text fields; the upstream would see other bytes than those judged.
                if seen.get(name, value) != value:
                    raise WireError(f"expected `{name}` as the upstream will see it, got an altered one")
            else:
                headers.append((name, value))
    except UnicodeDecodeError as error:
        raise WireError("expected header values in UTF-8, got other bytes") from error
    return HttpRequest(
        method=method,
        scheme=http.scheme,
        unverified_host=host,
        path=path,
        headers=tuple(headers),
        body=body,
        body_complete=complete,
    )


def allow(*, dial: DialAddress | None, set_headers: Sequence[tuple[str, str]], remove_headers: Sequence[str], decision_id: str) -> bytes:
    """The answer that lets a request (or a connection: headers are ignored then) go on.

    `dial` is where Envoy connects; None only where the bootstrap fixes the upstream, as for the inbound gate: anywhere else
    Envoy then has no address to go to. `set_headers` replace what the request has under those names; Envoy removes
    `remove_headers` after that, so a name must not be in both.
    """
    response = pb.CheckResponse()
    response.status.code = _OK
    ok = response.ok_response
    ok.SetInParent()
    for name, value in set_headers:
        header = ok.headers.add().header
        header.key = name
        header.value = value
    ok.headers_to_remove.extend(remove_headers)
    fields = response.dynamic_metadata.fields
    if dial is not None:
        fields[DIAL_KEY].string_value = str(dial)
    fields[DECISION_KEY].string_value = decision_id
    return response.SerializeToString()


def deny(*, status: int, headers: Sequence[tuple[str, str]], body: bytes, decision_id: str) -> bytes:
    """The answer that ends a request with an HTTP response of ours. `body` is UTF-8 text."""
    response = pb.CheckResponse()
    response.status.code = _PERMISSION_DENIED
    denied = response.denied_response
    denied.status.code = status  # type: ignore[assignment]  # the enum is open, its stub is not
    for name, value in headers:
        header = denied.headers.add().header
        header.key = name
        header.value = value
    denied.body = body.decode()
    response.dynamic_metadata.fields[DECISION_KEY].string_value = decision_id
    return response.SerializeToString()


def deny_connection(*, decision_id: str) -> bytes:
    """The answer that closes a connection that is not HTTP."""
    response = pb.CheckResponse()
    response.status.code = _PERMISSION_DENIED
    response.dynamic_metadata.fields[DECISION_KEY].string_value = decision_id
    return response.SerializeToString()
