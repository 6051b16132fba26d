"""The tables of the record, defined once: field, type and meaning. Columns, JSON and the documentation follow from here.

A record holds values only, nothing secret: a credential is named, never shown. Text that people or programs chose is cut at a
stated length, and what was cut says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

import msgspec

# A tool's argument beyond this is kept as its length and digest: enough to recognise it, too little to leak it.
MAX_TEXT: Final = 1024
# What is larger loses its context, which is the one field without a bound of its own.
MAX_RECORD_BYTES: Final = 64 * 1024
# Of a record that is too large without its context. All fields together fit then, were each character one of six bytes (`\\u0000`).
_CUT_TEXT: Final = 200
_CUT_ITEMS: Final = 8
_CUT_ITEM: Final = 100
# What stands for a text that was too long to keep.
_SHORTENED: Final = frozenset({"length", "sha256"})


def _column(column: str, meaning: str) -> Any:
    return field(metadata={"column": column, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One Check and its answer."""

    id: str = _column("String", "the decision's id, 32 hexadecimal digits; a denial tells it to the caller")
    time: int = _column("Int64", "when, in microseconds since 1970 (UTC)")
    direction: str = _column("LowCardinality(String)", "`Outbound`, `Inbound` or `Mesh`, as the gate's own configuration says")
    verdict: str = _column("LowCardinality(String)", "what was enforced: `Allow` or `Deny`")
    reason: str = _column("LowCardinality(String)", "the reason code; `Permitted` is the only one that allows")
    message: str = _column("String", "the sentence that the caller was told")
    caller: str = _column("String", "the calling agent, `NAMESPACE/NAME`; empty when unknown")
    user: str = _column("String", "on whose behalf: the user's id; empty when there is nobody")
    user_issuer: str = _column("String", "who vouched for the user")
    user_groups: tuple[str, ...] = _column("Array(String)", "the user's groups")
    chain: tuple[str, ...] = _column("Array(String)", "every agent of the hop so far, the calling one first")
    transaction: str = _column("String", "the same along a whole chain of hops")
    destination: str = _column("String", "`KIND:NAMESPACE/NAME` of the record that owns the address; empty when none does")
    protocol: str = _column("LowCardinality(String)", "what is spoken there")
    action: str = _column("LowCardinality(String)", "Cedar's action")
    resource: str = _column("String", 'Cedar\'s resource, `Type::"id"`')
    context: Mapping[str, Any] = _column("String", "Cedar's context as it was judged (JSON)")
    policies: tuple[str, ...] = _column("Array(String)", "the determining policies' ids")
    policy_digest: str = _column("String", "which set of policies was in force (SHA-256)")
    snapshot_digest: str = _column("String", "which set of resources was in force (SHA-256)")
    errors: tuple[str, ...] = _column("Array(String)", "policies that could not be evaluated, `ID: MESSAGE`")
    observed_verdict: str = _column("LowCardinality(String)", "what it would be with the Observe policies in force; empty where none spoke")
    observed_policies: tuple[str, ...] = _column("Array(String)", "the policies that would have determined that")
    observed_errors: tuple[str, ...] = _column(
        "Array(String)", "policies that could not be evaluated with the Observe policies in force, `ID: MESSAGE`"
    )
    latency_us: int = _column("UInt32", "from the check's arrival to this record, in microseconds")
    request_id: str = _column("String", "Envoy's id of the request")
    trace_id: str = _column("String", "from the request's `traceparent` (W3C), unverified")
    span_id: str = _column("String", "the span that the request was sent from: `traceparent`'s parent id, unverified")
    presented_token_id: str = _column("String", "the hop token that came with an inbound request")
    minted_token_id: str = _column("String", "the hop token that the request went on with")
    credential: str = _column("String", "the Secret, `NAMESPACE/NAME:KEY`, whose value the request went on with")
    source: str = _column("String", "where the connection came from, as Envoy saw it")
    address: str = _column("String", "where the program sent it: the original destination")
    dial: str = _column("String", "the address that the gate dialled")
    sni: str = _column("String", "the name that TLS asked for")
    method: str = _column("LowCardinality(String)", "the HTTP method")
    host: str = _column("String", "the HTTP authority, as the program wrote it")
    path: str = _column("String", "the HTTP path without its query, which may hold secrets")
    body_bytes: int = _column("UInt64", "how much of the body the gate read")
    truncated: bool = _column("Bool", "the context was too large, or nested too deep, and left out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """One question that an agent asked its resolver."""

    id: str = _column("String", "the question's id")
    time: int = _column("Int64", "when, in microseconds since 1970 (UTC)")
    agent: str = _column("String", "who asked, `NAMESPACE/NAME`")
    name: str = _column("String", "the name asked for, in lower case, without the last dot")
    type: str = _column("LowCardinality(String)", "the type asked for: `A`, `AAAA`, …")
    answer: str = _column("LowCardinality(String)", "`Answered`, `NoData` or `NxDomain`")
    transport: str = _column("LowCardinality(String)", "`UDP` or `TCP`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change in what an agent may reach: on one machine a run and what was opened for it, in a cluster a resource, or a pod's opt-out."""

    id: str = _column("String", "the change's id")
    time: int = _column("Int64", "when, in microseconds since 1970 (UTC)")
    who: str = _column("String", "the user id that did it; in a cluster user and groups, `NAME (GROUP, GROUP)`")
    operation: str = _column(
        "LowCardinality(String)", "`Start` or `Stop` of a run; `Create`, `Update` or `Delete` of a resource; `OptOut` of a pod"
    )
    kind: str = _column("LowCardinality(String)", "`Run`, the resource's kind, or `Pod`")
    name: str = _column("String", "the agent or resource, `NAMESPACE/NAME`; of a resource of the whole cluster its name")
    before: Mapping[str, Any] = _column("String", "how it was (JSON)")
    after: Mapping[str, Any] = _column(
        "String", "how it is (JSON): of a run program, opened paths and sockets, kept variables; of a resource labels and spec"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The kernel's view of one connection of a governed agent, or of one datagram socket and one destination."""

    id: str = _column("String", "the connection's id, the same in each row of it, from whichever sensor")
    time: int = _column("Int64", "when it began, in microseconds since 1970 (UTC)")
    phase: str = _column("LowCardinality(String)", "`Begun`: it is open; `Ended`: it is over, at most one row of a connection")
    agent: str = _column("String", "whose it is, `NAMESPACE/NAME`")
    attribution: str = _column("LowCardinality(String)", "by what it is that agent's: `Cgroup`, or `Namespace` where none could be made")
    verdict: str = _column("LowCardinality(String)", "`ThroughGate`, `Bypass`, `Local` or `Unattributable`")
    reason: str = _column("LowCardinality(String)", "the reason code")
    message: str = _column("String", "the reason as a sentence")
    protocol: str = _column("LowCardinality(String)", "`TCP`, `UDP`, `Raw`, `Packet`, or the IP protocol's number")
    source: str = _column("String", "where from; empty when the kernel did not say")
    destination: str = _column("String", "where the program asked it to go; empty when the kernel did not say")
    went: str = _column("String", "where its first packet went, after the rules; empty when there was none")
    name: str = _column("String", "the destination's name: as the handshake asked for it, else as DNS had answered")
    program: str = _column("String", "the command name of the program that asked, which it may choose itself")
    pid: int = _column("UInt32", "its process id on this machine; 0 when no process is known")
    user: int = _column("UInt32", "its user id; says nothing of who it is")
    cgroup: int = _column("UInt64", "the id of its cgroup")
    namespace: int = _column("UInt64", "the cookie of its network namespace; 0 when the kernel did not say")
    from_start: bool = _column("Bool", "false: it was open when the sensor began")
    duration_us: int = _column("UInt64", "from its begin to this row, in microseconds")
    sent_bytes: int = _column("UInt64", "of an ended TCP connection: what the program sent")
    received_bytes: int = _column("UInt64", "of an ended TCP connection: what it got")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A program that looks like an agent and is not registered."""

    id: str = _column("String", "the program's id: the same in each row of it, and for the same program in the same place after a restart")
    time: int = _column("Int64", "when this row was written, in microseconds since 1970 (UTC)")
    name: str = _column("String", "the program's name")
    kind: str = _column("LowCardinality(String)", "`Shadow`, or `Unattributable` when neither program nor place is known")
    weight: int = _column("UInt8", "how much speaks for an agent, 0 to 100")
    program: str = _column("String", "the file that it executes")
    command: str = _column("String", "its command line, as far as it may be shown")
    pid: int = _column("UInt32", "the process seen last")
    user: int = _column("UInt32", "its user id")
    cgroup: str = _column("String", "its cgroup's path; empty when it was gone")
    place: str = _column("String", "its container, pod or unit; empty when it has none")
    evidence: tuple[str, ...] = _column("Array(String)", "why it is thought an agent, a sentence each")
    reached: tuple[str, ...] = _column("Array(String)", "what it reached: names, else addresses; models first")
    connections: int = _column("UInt64", "how many connections it made")
    first_seen: int = _column("Int64", "in microseconds since 1970 (UTC)")
    last_seen: int = _column("Int64", "in microseconds since 1970 (UTC)")


Record = Decision | Name | Change | Flow | Sighting
TABLES: Final[Mapping[str, type[Record]]] = {"decisions": Decision, "names": Name, "changes": Change, "flows": Flow, "sightings": Sighting}
# Columns whose text is JSON by itself.
JSON_COLUMNS: Final = frozenset({"context", "before", "after"})
_TABLE_OF: Final = {kind: table for table, kind in TABLES.items()}
_encoder = msgspec.json.Encoder()


def table_of(record: Record) -> str:
    """The table that a record belongs to."""
    return _TABLE_OF[type(record)]


def columns(table: str) -> dict[str, str]:
    """Column name → ClickHouse type. Raises KeyError for no table."""
    return {item.name: item.metadata["column"] for item in fields(TABLES[table])}


def meanings(table: str) -> dict[str, str]:
    """Column name → what it says. Raises KeyError for no table."""
    return {item.name: item.metadata["meaning"] for item in fields(TABLES[table])}


def render(record: Record) -> bytes:
    """A record as JSON, in the order of its fields, within the size bound.

    One that is too large, or nests too deep, loses its context; if that is not enough, every text in it is shortened and every list
    cut. Raises RecursionError for a change that nests too deep.
    """
    rendered = _bounded(record)
    if rendered is None and isinstance(record, Decision):
        record = dataclasses.replace(record, context={}, truncated=True)
        rendered = _bounded(record)
    return _encode(_each(_each(record, _spelt), _cut)) if rendered is None else rendered


def _bounded(record: Record) -> bytes | None:
    """A record as JSON; None when it is beyond the bound, or nests deeper than the encoder goes."""
    try:
        rendered = _encode(record)
    except RecursionError:
        return None
    return rendered if len(rendered) <= MAX_RECORD_BYTES else None


def _encode(record: Record) -> bytes:
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError:
        return _encoder.encode(_each(record, _spelt))


def _each(record: Record, change: Callable[[Any], Any]) -> Record:
    return dataclasses.replace(record, **{item.name: change(getattr(record, item.name)) for item in fields(record)})


def _spelt(value: Any) -> Any:
    """Text without UTF-8 (a path's bytes as `os.fsdecode` gives them, half a surrogate pair) with its code instead: `\\udcff`."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_spelt(key): _spelt(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_spelt(item) for item in value)
    return [_spelt(item) for item in value] if isinstance(value, list) else value


def _cut(value: Any) -> Any:
    """A field of a record that is too large: a text that was cut ends in an ellipsis, a large mapping becomes its size and digest."""
    if isinstance(value, str):
        return _ellipsis(value, _CUT_TEXT)
    if isinstance(value, tuple):
        return tuple(_ellipsis(item, _CUT_ITEM) for item in value[:_CUT_ITEMS])
    if isinstance(value, Mapping):
        shortened = shorten(value)
        rendered = _encoder.encode(shortened)
        if len(rendered) <= MAX_RECORD_BYTES // 4:
            return shortened
        return {"length": len(rendered), "sha256": hashlib.sha256(rendered).hexdigest()}
    return value


def _ellipsis(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def shorten(value: Any) -> Any:
    """A value of a context for the record: long text becomes its length and SHA-256."""
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return {"length": len(value), "sha256": hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()}
    if isinstance(value, Mapping):
        return {key: shorten(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shorten(item) for item in value]
    return value


def is_shortened(value: Any) -> bool:
    """Whether a text in it was too long to keep. A program's own mapping of that form counts as one too: nothing is guessed."""
    if isinstance(value, Mapping):
        return value.keys() == _SHORTENED or any(is_shortened(item) for item in value.values())
    return isinstance(value, list) and any(is_shortened(item) for item in value)
