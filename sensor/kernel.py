"""What the sensor asks of the kernel, whichever way its programs were loaded.

One set of C sources, two ways in: objects built beforehand and loaded by libbpf (`CO-RE`), or compiled on the node by bcc. Both give
the same events, maps and counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sensor.events import Event, Payload, Wanted


class Loader(StrEnum):
    """How the programs came into the kernel."""

    CO_RE = "CO-RE"
    BCC = "bcc"


class KernelError(Exception):
    """The programs can't be loaded or attached. `code` is stable; `remedy` says what to do."""

    code = "KernelUnusable"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """Of one ring: how often something was to be told, and how often there was no room for it."""

    attempts: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One program: whether it is in force, and if not, what the kernel said."""

    name: str
    attached: bool
    reason: str = ""


class Kernel(Protocol):
    """The loaded programs."""

    @property
    def loader(self) -> Loader:
        """How they were loaded."""

    @property
    def why(self) -> str:
        """Why this way and not the other, in a sentence for people."""

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Every program there is, attached or not."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What becomes readable when there is something to read."""

    def events(self, wanted: Wanted | None = None) -> list[Event]:
        """All small events since the last call, in their order; of those that are `wanted`, where it is said. Never waits."""

    def payloads(self) -> list[Payload]:
        """All payloads since the last call, in their order. Never waits."""

    def counters(self) -> Mapping[str, Counter]:
        """Attempts and losses by ring: `events`, `payloads`."""

    def close(self) -> None:
        """Detach what does not outlive this process on purpose."""
