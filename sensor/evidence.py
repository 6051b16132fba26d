"""What speaks for a program being an agent, and how much: each kind with a weight, a sentence for people, and the reason for its weight.

Weights are points; what they add up to is judged in `sensor.classify`. Kinds of one aspect are views of the same fact: the one with the
most points counts, once, however often it was seen. No kind proves an agent by itself: a connection to a model API says what was called,
not who decided to call. Kinds with a negative weight speak against: a browser and a command-line client mostly do what a person at the
keyboard just asked for.

`docs/reference/evidence.md` is made of this table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class EvidenceKind(StrEnum):
    """What was found. The values are stable: records hold them."""

    MODEL_HANDSHAKE = "ModelHandshake"
    MODEL_BY_PROXY = "ModelByProxy"
    MODEL_REQUEST = "ModelRequest"
    MODEL_ADDRESS = "ModelAddress"
    MODEL_NAME = "ModelName"
    LOCAL_MODEL = "LocalModel"
    MCP_REQUEST = "McpRequest"
    A2A_REQUEST = "A2aRequest"
    A2A_CARD = "A2aCard"
    AGENT_PROGRAM = "AgentProgram"
    SDK_IN_USE = "SdkInUse"
    PROVIDER_KEY = "ProviderKey"
    REPEATED = "Repeated"
    UNATTENDED = "Unattended"
    BORROWED_HELLO = "BorrowedHello"
    BROWSER = "Browser"
    COMMAND_LINE_CLIENT = "CommandLineClient"


class Aspect(StrEnum):
    """What a kind is a view of."""

    MODEL = "model API"
    LOCAL_MODEL = "model server"
    MCP = "MCP"
    A2A = "A2A"
    FILES = "files"
    KEY = "key"
    REPETITION = "repetition"
    PLACE = "place"
    HELLO = "hello"
    PROGRAM = "program"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One kind. `sentence` has `{}` where the evidence's subject stands; `why` gives the reason for the weight."""

    aspect: Aspect
    weight: int
    sentence: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Evidence:
    """One piece: its kind, and whom or what it concerns (a host, a variable's name, a package)."""

    kind: EvidenceKind
    subject: str = ""

    @property
    def weight(self) -> int:
        """The points of its kind."""
        return DEFINITIONS[self.kind].weight

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        return DEFINITIONS[self.kind].sentence.format(self.subject)


# From so many connections to model APIs on, somebody at the keyboard is not the likely cause.
REPEATED_CONNECTIONS: Final = 5

DEFINITIONS: Final[Mapping[EvidenceKind, Definition]] = {
    EvidenceKind.MODEL_HANDSHAKE: Definition(
        aspect=Aspect.MODEL,
        weight=60,
        sentence="opened TLS for {}",
        why="the name stands in the handshake that the program itself sent; what was asked for is sealed, so it may be a list of prices",
    ),
    EvidenceKind.MODEL_BY_PROXY: Definition(
        aspect=Aspect.MODEL,
        weight=60,
        sentence="asked a proxy for a tunnel to {}",
        why="as a handshake: the program named the API itself",
    ),
    EvidenceKind.MODEL_REQUEST: Definition(
        aspect=Aspect.MODEL,
        weight=60,
        sentence="sent a request in clear for {}",
        why="as a handshake: the program named the API itself",
    ),
    EvidenceKind.MODEL_ADDRESS: Definition(
        aspect=Aspect.MODEL,
        weight=30,
        sentence="connected to an address that DNS gave for {}",
        why="large providers stand behind addresses that many names share; it counts only where no handshake named another host",
    ),
    EvidenceKind.MODEL_NAME: Definition(
        aspect=Aspect.MODEL,
        weight=20,
        sentence="looked up {}",
        why="a name is also looked up to prefetch, to filter or to monitor",
    ),
    EvidenceKind.LOCAL_MODEL: Definition(
        aspect=Aspect.LOCAL_MODEL,
        weight=50,
        sentence="called a model in clear: {}",
        why="the path is a model server's own; the caller may be a chat window as well as an agent",
    ),
    EvidenceKind.MCP_REQUEST: Definition(
        aspect=Aspect.MCP,
        weight=50,
        sentence="spoke MCP: {}",
        why="MCP is how agents reach tools; editors and test clients speak it too",
    ),
    EvidenceKind.A2A_REQUEST: Definition(
        aspect=Aspect.A2A,
        weight=50,
        sentence="spoke A2A: {}",
        why="A2A is how agents reach agents; so do gateways and test clients",
    ),
    EvidenceKind.A2A_CARD: Definition(
        aspect=Aspect.A2A,
        weight=30,
        sentence="fetched an agent card: {}",
        why="cards are public and are read by directories and crawlers",
    ),
    EvidenceKind.AGENT_PROGRAM: Definition(
        aspect=Aspect.FILES,
        weight=60,
        sentence="is {}, by the path of its files",
        why="the files are those of a known agent; a path can be anybody's choice",
    ),
    EvidenceKind.SDK_IN_USE: Definition(
        aspect=Aspect.FILES,
        weight=25,
        sentence="runs files of {}",
        why="a program may load an SDK and never use it",
    ),
    EvidenceKind.PROVIDER_KEY: Definition(
        aspect=Aspect.KEY,
        weight=25,
        sentence="was started with {} in its environment",
        why="a key is made for calling, but every program of a shell inherits what the shell exports",
    ),
    EvidenceKind.REPEATED: Definition(
        aspect=Aspect.REPETITION,
        weight=20,
        sentence=f"opened {REPEATED_CONNECTIONS} connections or more to model APIs",
        why="a loop calls again and again, a person's try does not",
    ),
    EvidenceKind.UNATTENDED: Definition(
        aspect=Aspect.PLACE,
        weight=15,
        sentence="runs as {}, where nobody sits at a keyboard",
        why="containers and services act by themselves; most of them are no agents",
    ),
    EvidenceKind.BORROWED_HELLO: Definition(
        aspect=Aspect.HELLO,
        weight=10,
        sentence="greets as a browser does and is none ({})",
        why="some clients imitate a browser's handshake; a fingerprint names a TLS library, never a vendor, so it only supports the rest",
    ),
    EvidenceKind.BROWSER: Definition(
        aspect=Aspect.PROGRAM,
        weight=-50,
        sentence="is a browser ({})",
        why="a page calls model hosts for the person who looks at it",
    ),
    EvidenceKind.COMMAND_LINE_CLIENT: Definition(
        aspect=Aspect.PROGRAM,
        weight=-25,
        sentence="is a command-line client ({})",
        why="one call with it is mostly a person's try; a script that goes on calling gathers other evidence",
    ),
}

# What a program did over the network.
OF_CALLS: Final = frozenset(
    kind for kind, definition in DEFINITIONS.items() if definition.aspect in {Aspect.MODEL, Aspect.LOCAL_MODEL, Aspect.MCP, Aspect.A2A}
)


def weigh(evidence: Iterable[Evidence]) -> int:
    """The points of all aspects, each by its kind with the most, from 0 to 100."""
    counted: dict[Aspect, int] = {}
    for kind in {piece.kind for piece in evidence}:
        definition = DEFINITIONS[kind]
        held = counted.get(definition.aspect, definition.weight)
        counted[definition.aspect] = max(held, definition.weight, key=abs)
    return max(0, min(100, sum(counted.values())))
