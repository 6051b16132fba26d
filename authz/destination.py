"""Where a hop goes: the registry record that owns the address it was sent to, and nothing the app wrote.

Host and SNI do not select a destination; they must agree with the one that the address selected. A disagreement
is a Deny, never a second choice.
"""

from __future__ import annotations

from authz.mesh import Reach
from authz.request import CheckInput, HttpRequest
from authz.verdict import Reason
from hopgate.identity.names import DestinationKind, DestinationName
from hopgate.resources import conflicts
from hopgate.resources.kinds import Agent, DialAddress, Tls
from hopgate.resources.registry import Endpoint
from hopgate.snapshot import Snapshot

# A name resolved longer ago than this is not dialled: the address may have changed hands meanwhile.
MAX_RESOLUTION_AGE_SECONDS = 300


class DestinationError(Exception):
    """The hop has no destination that the registry vouches for."""

    def __init__(self, reason: Reason, message: str, destination: DestinationName | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.destination = destination


def find_outbound(check: CheckInput, snapshot: Snapshot) -> Endpoint:
    """The endpoint that owns the original destination, once port, SNI and Host agree with it. Raises DestinationError."""
    endpoint = snapshot.registry.by_address.get(check.destination.ip)
    if endpoint is None:
        raise DestinationError(
            Reason.UNKNOWN_DESTINATION,
            f"no registered destination has the address {check.destination.ip}: reach a destination by its registered name",
        )
    name = endpoint.destination.name
    if check.destination.port != endpoint.port:
        raise DestinationError(Reason.PORT_MISMATCH, f"{name} is reached at port {endpoint.port}, not {check.destination.port}", name)
    if check.sni is not None and check.sni.lower() not in endpoint.hosts:
        shown = f"`{check.sni[:80]}`" if check.sni else "no name"
        raise DestinationError(Reason.SNI_MISMATCH, f"TLS asked for {shown}, which is not a name of {name}", name)
    _require_shape(check, endpoint)
    if check.http is not None:
        require_authority(check.http.unverified_host, endpoint)
    return endpoint


def _require_shape(check: CheckInput, endpoint: Endpoint) -> None:
    """A sealed destination takes TLS that stays closed; every other takes HTTP that the gate can read."""
    name = endpoint.destination.name
    if endpoint.destination.tls is Tls.SEALED:
        if check.http is not None or check.sni is None:
            raise DestinationError(Reason.PROTOCOL_MISMATCH, f"{name} is sealed: it takes TLS only", name)
    elif check.http is None:
        raise DestinationError(Reason.PROTOCOL_MISMATCH, f"{name} speaks HTTP, and this connection does not", name)


def find_inbound(check: CheckInput, receiver: Agent, snapshot: Snapshot) -> Endpoint:
    """The endpoint of the agent behind this inbound gate. Raises DestinationError."""
    name = DestinationName(DestinationKind.AGENT, receiver.name)
    service = receiver.service
    names = () if service is None else conflicts.service_names(service.name, receiver.name.namespace)
    endpoint = snapshot.registry.by_host.get(names[0]) if names else None
    if endpoint is None:
        raise DestinationError(Reason.UNKNOWN_DESTINATION, f"{name} has no service that others may reach", name)
    if check.http is None:
        raise DestinationError(Reason.PROTOCOL_MISMATCH, f"{name} speaks HTTP, and this connection does not", name)
    require_authority(check.http.unverified_host, endpoint)
    return endpoint


def find_mesh(check: CheckInput, reach: Reach, snapshot: Snapshot) -> Endpoint:
    """The endpoint that an Envoy of a mesh stands before: the one that its configuration names, else the one that Host or SNI names.

    A mesh's Envoy routes by the Host or the SNI itself, so there is no address that owns the hop. Raises DestinationError.
    """
    asked = check.http.unverified_host if check.http is not None else check.sni or ""
    endpoint = snapshot.registry.by_host.get(asked.lower().partition(":")[0])
    if check.destination_name and (endpoint is None or str(endpoint.destination.name) != check.destination_name):
        named = [found for found in snapshot.registry.by_address.values() if str(found.destination.name) == check.destination_name]
        if not named:
            raise DestinationError(
                Reason.UNKNOWN_DESTINATION, "the Envoy's configuration names a destination that is not registered, or has no host"
            )
        endpoint = named[0]
    if endpoint is None:
        raise DestinationError(Reason.UNKNOWN_DESTINATION, f"no registered destination has the host `{asked[:80]!r}`")
    name = endpoint.destination.name
    if not reach.covers(name.name.namespace):
        raise DestinationError(
            Reason.DESTINATION_OUT_OF_REACH, f"the Envoy that asks stands before no destination of namespace {name.name.namespace}", name
        )
    _require_shape(check, endpoint)
    if check.http is not None:
        require_authority(asked, endpoint)
        _require_no_upgrade(check.http, name)
    elif asked.lower() not in endpoint.hosts:
        raise DestinationError(Reason.SNI_MISMATCH, f"TLS asked for `{asked[:80]!r}`, which is not a name of {name}", name)
    return endpoint


def _require_no_upgrade(http: HttpRequest, name: DestinationName) -> None:
    """What comes after an upgrade nobody judges. Envoys of ours take none; HTTP/2's extended CONNECT looks like HTTP/1's upgrade here."""
    if http.method == "CONNECT" or http.values("upgrade"):
        raise DestinationError(Reason.PROTOCOL_MISMATCH, f"a request to {name} may not turn its connection into another protocol", name)


def require_authority(authority: str, endpoint: Endpoint) -> None:
    """Refuse any authority that is not exactly a registered host with an optional right port.

    Envoy hands on two Host headers as one value with a comma, and user info as part of the authority; both fail here.
    """
    host, separator, port = authority.lower().partition(":")
    if host not in endpoint.hosts or (separator and port != str(endpoint.port)):
        name = endpoint.destination.name
        raise DestinationError(Reason.HOST_MISMATCH, f"the request names `{authority[:80]!r}`, which is not a host of {name}", name)


def find_dial(endpoint: Endpoint, authority: str, snapshot: Snapshot, now: int) -> DialAddress:
    """The address that the gate dials for this endpoint. Raises DestinationError when there is none now.

    `authority` picks among the names of one endpoint; they have been checked to be its own.
    """
    if endpoint.dial is not None:
        return endpoint.dial
    name = endpoint.destination.name
    if name.kind is DestinationKind.AGENT:
        gate = snapshot.upstreams.gates.get(name.name)
        if gate is None:
            raise DestinationError(Reason.DESTINATION_NOT_RUNNING, f"{name} is not running behind this gate", name)
        return gate
    resolved = snapshot.upstreams.hosts.get(authority.lower().partition(":")[0])
    if resolved is None or not resolved.addresses or now - resolved.resolved_at > MAX_RESOLUTION_AGE_SECONDS:
        raise DestinationError(Reason.DESTINATION_UNRESOLVED, f"the name of {name} has no usable address at the moment", name)
    return DialAddress(ip=resolved.addresses[0], port=endpoint.port)


def is_governed(endpoint: Endpoint) -> bool:
    """Whether a gate of ours stands before the destination, so that a hop token means something there."""
    return endpoint.destination.name.kind is DestinationKind.AGENT and endpoint.dial is None
