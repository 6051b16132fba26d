"""Names of objects: `namespace/name`, the form that Cedar entity ids, records and the command line share.

Parsing is the only way in, so a value of these types is well-formed everywhere else. What is refused: empty
segments, upper case, percent escapes, control and non-ASCII characters, over-length, more than one slash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from hopgate.identity.errors import InvalidNameError

# RFC 1123 label: 63 octets; a subdomain is labels joined by dots, 253 octets (Kubernetes object names).
LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
MAX_SUBDOMAIN_LENGTH = 253


def is_label(text: str) -> bool:
    """Whether `text` is an RFC 1123 label: a namespace or a service name."""
    return LABEL.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Whether `text` is an RFC 1123 subdomain: a Kubernetes object name, or a DNS host name in lower case."""
    return len(text) <= MAX_SUBDOMAIN_LENGTH and SUBDOMAIN.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class ObjectName:
    """A namespaced object's name. `str()` gives `namespace/name`.

    Raises InvalidNameError when constructed from anything Kubernetes would not accept.
    """

    namespace: str
    name: str

    def __post_init__(self) -> None:
        if not is_label(self.namespace):
            raise InvalidNameError(f"expected a namespace (a DNS label in lower case), got `{self.namespace[:80]!r}`")
        if not is_subdomain(self.name):
            raise InvalidNameError(f"expected a name (a DNS subdomain in lower case), got `{self.name[:80]!r}`")

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse(text: str) -> ObjectName:
    """`namespace/name` as a value. Raises InvalidNameError."""
    namespace, separator, name = text.partition("/")
    if not separator:
        raise InvalidNameError(f"expected NAMESPACE/NAME, got `{text[:80]!r}`")
    return ObjectName(namespace, name)


class DestinationKind(StrEnum):
    """The kinds of resource that a hop can go to; the values are the kinds' names and Cedar's entity types."""

    AGENT = "Agent"
    TOOL_SERVER = "ToolServer"
    MODEL_PROVIDER = "ModelProvider"


@dataclass(frozen=True, slots=True, order=True)
class DestinationName:
    """Which record a hop goes to. `str()` gives `Kind:namespace/name`, the audience form of a hop token."""

    kind: DestinationKind
    name: ObjectName

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person, as a verified token of a configured issuer named them (never as the agent wrote it)."""

    issuer: str
    subject: str
    groups: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.issuer}#{self.subject}"
