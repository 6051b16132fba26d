"""What a DNS message gets, whoever brought it: the answer from the registry, recorded before it is given."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from authz import dns_message
from authz.dns_message import Answer, DnsError
from hopgate.audit.errors import AuditError
from hopgate.identity.names import ObjectName
from hopgate.resources.registry import Registry

_log = logging.getLogger(__name__)
_COUNTED: Final = {
    Answer.ANSWERED: "answered",
    Answer.NO_DATA: "no_data",
    Answer.NX_DOMAIN: "nx_domain",
}


class Record(Protocol):
    """Writes one question down, or raises AuditError."""

    def __call__(self, agent: ObjectName, name: str, kind: str, answer: str, transport: str, /) -> None:
        """`answer` is one of `dns_message.Answer`; `transport` is `UDP` or `TCP`."""


class Questions:
    """Answers messages. `counters` is for a person to read; who brings the messages counts there what did not come this far."""

    def __init__(self, registry: Callable[[], Registry], record: Record) -> None:
        self._registry = registry
        self._record = record
        self.counters = {"answered": 0, "no_data": 0, "nx_domain": 0, "malformed": 0, "unrecorded": 0, "dropped": 0, "unknown": 0}

    def answer(self, agent: ObjectName, data: bytes, transport: str) -> bytes | None:
        """The reply to a message of `agent`, recorded; None for what gets none."""
        try:
            question = dns_message.parse(data)
        except DnsError as error:
            self.counters["malformed"] += 1
            return error.reply
        answer, address = dns_message.decide(question, self._registry())
        try:
            self._record(agent, question.name, question.type, answer.value, transport)
        except AuditError as error:
            self.counters["unrecorded"] += 1
            _log.error("a name could not be recorded and was not answered: %s", error)
            return dns_message.failure(question)
        self.counters[_COUNTED[answer]] += 1
        return dns_message.reply(question, answer, address)
