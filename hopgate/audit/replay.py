"""Recorded decisions, judged again by other policies: which verdicts would have been others.

What is asked again is exactly what the policies were asked: principal, action, resource and context as they stand in the record, the
time among them. Agents, their labels and the servers around them are those of the proposed resources. A hop that was denied before
the policies were asked, or after they had allowed it, stays denied whatever they say. `judge` and `question` are pure; `replay` reads
the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from hopgate.audit import records, segments
from hopgate.identity import names
from hopgate.policy import registered
from hopgate.policy.bundle import PolicyBundle
from hopgate.policy.question import Action, Entity, Question, parse_entity

# The reasons that the policies' own answer gives. A decision with any other was not theirs.
PERMITTED: Final = "Permitted"
REASONS: Final = frozenset({PERMITTED, "NoPermit", "Forbidden", "PolicyError"})


class Recorded(msgspec.Struct, frozen=True):
    """Of a recorded decision what its question needs."""

    id: str
    time: int
    reason: str
    caller: str
    action: str
    resource: str
    context: dict[str, Any]
    policies: tuple[str, ...]
    truncated: bool


class _Line(msgspec.Struct, frozen=True):
    record: Recorded


_decoder = msgspec.json.Decoder(_Line)


@dataclass(slots=True, kw_only=True)
class Change:
    """Decisions of one caller, action and resource whose verdict would be another, with the newest as an example.

    `policies` would determine the example; `were` did.
    """

    caller: str
    action: str
    resource: str
    before: str
    after: str
    count: int = 0
    example: str = ""
    example_time: int = -1
    were: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Replay:
    """What came of it. Every decision read is in exactly one of the first three counts.

    `judged`: by the proposed policies. `untouched`: no policy had decided them. `incomplete`: the record does not have everything that
    was judged (a text too long to keep, or no context), so nothing can be said of them. `unreadable` counts lines that are no records.
    """

    judged: int = 0
    untouched: int = 0
    incomplete: int = 0
    unreadable: int = 0
    changes: dict[tuple[str, str, str, str], Change] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """How many verdicts would be others."""
        return sum(change.count for change in self.changes.values())

    def sorted_changes(self) -> list[Change]:
        """The most frequent first."""
        return sorted(
            self.changes.values(), key=lambda change: (-change.count, change.caller, change.action, change.resource, change.before)
        )


def replay(spool: Path, policies: PolicyBundle, since: int = 0, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Replay:
    """Judge every recorded decision since then (Unix microseconds) by `policies`.

    `progress` is told how many of how many bytes are done. Raises QueryError when the records can't be read.
    """
    done, found = 0, segments.of(spool, "decisions")
    whole = sum(path.stat().st_size for path in found)
    result = Replay()
    for path in found:
        data = segments.read(path)
        judge(_recorded(data, result), policies, since, result)
        done += len(data)
        progress(done, whole)
    return result


def _recorded(data: bytes, result: Replay) -> Iterator[Recorded]:
    whole, _, _half = data.rpartition(b"\n")
    for line in whole.split(b"\n") if whole else ():
        try:
            yield _decoder.decode(line).record
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            result.unreadable += 1


def judge(decisions: Iterable[Recorded], policies: PolicyBundle, since: int, result: Replay) -> None:
    """Add to `result` what the policies say of each decision since then (Unix microseconds)."""
    for decision in decisions:
        if decision.time < since:
            continue
        if decision.reason not in REASONS:
            result.untouched += 1
            continue
        asked = question(decision)
        if asked is None:
            result.incomplete += 1
            continue
        result.judged += 1
        answer = policies.judge(asked)
        if answer.allowed is not (decision.reason == PERMITTED):
            _add(result, decision, answer.policies)


def question(decision: Recorded) -> Question | None:
    """What the policies were asked; None where the record does not have all of it."""
    if decision.truncated or records.is_shortened(decision.context):
        return None
    try:
        caller, resource, action = names.parse(decision.caller), parse_entity(decision.resource), Action(decision.action)
        destination = registered.object_name(resource)
    except ValueError:
        return None
    return Question(
        principal=Entity("Agent", str(caller)),
        action=action,
        resource=resource,
        server=registered.server(resource),
        context=decision.context,
        caller_namespace=caller.namespace,
        destination_namespace=destination.namespace,
    )


def _add(result: Replay, decision: Recorded, policies: tuple[str, ...]) -> None:
    before, after = ("Allow", "Deny") if decision.reason == PERMITTED else ("Deny", "Allow")
    key = (decision.caller, decision.action, decision.resource, before)
    change = result.changes.setdefault(
        key, Change(caller=decision.caller, action=decision.action, resource=decision.resource, before=before, after=after)
    )
    change.count += 1
    if decision.time >= change.example_time:
        change.example, change.example_time, change.were, change.policies = decision.id, decision.time, decision.policies, policies
