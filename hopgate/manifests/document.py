"""YAML and JSON text to plain values, with the place of each value.

The one module that knows YAML. It reads what Kubernetes manifests need and refuses the rest, so that a value is what it looks like:
`true` and `false` are the only booleans, `null`, `~` and nothing are null, numbers are written as in JSON, and everything else that is
not in quotes is text (`no`, `on`, `2026-01-31`, `0x10`, `12:30`). Refused: repeated keys, keys that are not text, merge keys, anchors and
aliases (so nothing expands), tags (so nothing is constructed), numbers that are not finite or need more than 64 bits, deep nesting,
large texts, and bytes that are not UTF-8. Never raises, whatever the bytes are; messages hold keys, never values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

import yaml

from hopgate.resources import fields
from hopgate.resources.fields import Path

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

# More than etcd takes for one object (1.5 MiB), so that what a cluster takes a folder takes too, several in one file.
MAX_BYTES: Final = 4 << 20
# Deeper than any JSON Schema of a tool, far from what Python's stack bears.
MAX_DEPTH: Final = 64
MAX_INTEGER: Final = 2**63 - 1

# RFC 8259 section 6.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?\.(?:inf|nan)", re.IGNORECASE)
# The digits of 2**63; longer ones are refused before they are converted.
_MAX_DIGITS: Final = 20


class SyntaxCode(StrEnum):
    """What is wrong with a text: stable codes."""

    INVALID_ENCODING = "InvalidEncoding"
    TOO_LARGE = "TooLarge"
    TOO_DEEP = "TooDeep"
    INVALID_SYNTAX = "InvalidSyntax"
    DUPLICATE_KEY = "DuplicateKey"
    INVALID_KEY = "InvalidKey"
    INVALID_NUMBER = "InvalidNumber"
    UNSUPPORTED_ANCHOR = "UnsupportedAnchor"
    UNSUPPORTED_TAG = "UnsupportedTag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in a text; both count from 1, columns in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntaxMistake:
    """What can't be read, where, and (as far as known) in which field."""

    position: Position
    path: Path
    code: SyntaxCode
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a document's fields stand: each field's key, each item of a list, and the first line of each `|` text."""

    positions: Mapping[Path, Position]
    blocks: Mapping[Path, int]

    def locate(self, path: Path, line_offset: int | None = None) -> Position:
        """Where `path` stands, or the nearest field above it that is written.

        `line_offset` counts lines from 0 within a text. Only a text in `|` form keeps its lines; for others the field's own place is given.
        """
        block = self.blocks.get(path)
        if block is not None and line_offset is not None:
            return Position(line=block + line_offset, column=1)
        while path not in self.positions and path:
            path = path[:-1]
        return self.positions[path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document. Its value may be a Secret's, so it is not printed; who only needs places keeps the layout."""

    value: Value = field(repr=False)
    layout: Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All documents of one text that could be read whole, and every mistake of the others."""

    documents: tuple[Document, ...]
    mistakes: tuple[SyntaxMistake, ...]


def read(data: bytes) -> Reading:
    """Every document of a file's bytes; empty ones are left out. Never raises."""
    start = Position(line=1, column=1)
    if len(data) > MAX_BYTES:
        return _unreadable(start, SyntaxCode.TOO_LARGE, f"expected at most {MAX_BYTES} bytes, got {len(data)}: split the file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _unreadable(Position(line=line, column=1), SyntaxCode.INVALID_ENCODING, "expected UTF-8 text, got other bytes")
    return _read_text(text)


def _unreadable(position: Position, code: SyntaxCode, message: str) -> Reading:
    return Reading(documents=(), mistakes=(SyntaxMistake(position=position, path=(), code=code, message=message),))


def _read_text(text: str) -> Reading:
    documents: list[Document] = []
    mistakes: list[SyntaxMistake] = []
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                composer = _Composer()
            elif isinstance(event, yaml.DocumentEndEvent):
                mistakes.extend(composer.mistakes)
                if not composer.mistakes and composer.value is not None:
                    documents.append(Document(value=composer.value, layout=Layout(positions=composer.positions, blocks=composer.blocks)))
            else:
                composer.take(event)
    except yaml.MarkedYAMLError as error:
        position = _position(error.problem_mark or error.context_mark)
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        mistakes.extend([*composer.mistakes, composer.mistake(position, SyntaxCode.INVALID_SYNTAX, f"expected YAML or JSON: {problem}")])
    except yaml.reader.ReaderError as error:
        position = _position_of(text, error.position)
        mistakes.append(composer.mistake(position, SyntaxCode.INVALID_SYNTAX, "expected text, got a control character"))
    except _StopError:
        mistakes.extend(composer.mistakes)
    return Reading(documents=tuple(documents), mistakes=tuple(mistakes))


class _Mark(Protocol):
    """A place as the parser counts, both from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


def _position(mark: _Mark | None) -> Position:
    return Position(line=mark.line + 1, column=mark.column + 1) if mark is not None else Position(line=1, column=1)


def _position_of(text: str, byte: int) -> Position:
    """The position of a byte of the text's UTF-8 form, as the reader counts."""
    before = text.encode()[:byte].decode(errors="ignore")
    return Position(line=before.count("\n") + 1, column=len(before) - before.rfind("\n"))


class _StopError(Exception):
    """The document can't be read any further; why is among its mistakes."""


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet. `key` is the key whose value comes next."""

    path: Path
    entries: dict[str, Value] | None
    entered: list[Value]
    key: str | None = None
    lines: dict[str, int] = field(default_factory=dict)


class _Composer:
    """Puts one document together from the parser's events, without recursion."""

    def __init__(self) -> None:
        self.value: Value = None
        self.positions: dict[Path, Position] = {(): Position(line=1, column=1)}
        self.blocks: dict[Path, int] = {}
        self.mistakes: list[SyntaxMistake] = []
        self._open: list[_Open] = []

    def take(self, event: yaml.Event) -> None:
        """One more event of this document."""
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._refuse_extras(event)
            self._node(event)

    def mistake(self, position: Position, code: SyntaxCode, message: str) -> SyntaxMistake:
        """A mistake where the document is being read."""
        path = () if not self._open else self._next_path(self._open[-1])
        return SyntaxMistake(position=position, path=path, code=code, message=message)

    def _refuse(self, event: yaml.Event, code: SyntaxCode, message: str) -> None:
        self.mistakes.append(self.mistake(_position(event.start_mark), code, message))

    def _refuse_extras(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:  # an alias has the name of what it points to here
            self._refuse(event, SyntaxCode.UNSUPPORTED_ANCHOR, "expected no anchor or alias: write the value out, or quote the text")
        if getattr(event, "tag", None) is not None:
            self._refuse(event, SyntaxCode.UNSUPPORTED_TAG, "expected no tag: write a plain value, or quote the text")

    def _node(self, event: yaml.NodeEvent) -> None:
        parent = self._open[-1] if self._open else None
        if parent is not None and parent.entries is not None and parent.key is None:
            self._key(parent, event)
            return
        path = () if parent is None else self._next_path(parent)
        if parent is None or parent.entries is None:
            self.positions[path] = _position(event.start_mark)
        value = self._value(event, path)
        if parent is None:
            self.value = value
        elif parent.entries is None:
            parent.entered.append(value)
        elif parent.key is not None:
            parent.entries[parent.key] = value
            parent.key = None
        self._enter(event, value, path)

    def _enter(self, event: yaml.NodeEvent, value: Value, path: Path) -> None:
        """Go into a mapping or list that begins here."""
        if not isinstance(event, yaml.CollectionStartEvent):
            return
        if len(self._open) >= MAX_DEPTH:
            self._refuse(event, SyntaxCode.TOO_DEEP, f"expected at most {MAX_DEPTH} levels of nesting")
            raise _StopError
        entries = value if isinstance(value, dict) else None
        self._open.append(_Open(path, entries, value if isinstance(value, list) else []))

    @staticmethod
    def _next_path(parent: _Open) -> Path:
        if parent.entries is None:
            return (*parent.path, len(parent.entered))
        return parent.path if parent.key is None else (*parent.path, parent.key)

    def _key(self, parent: _Open, event: yaml.NodeEvent) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, SyntaxCode.INVALID_KEY, "expected a text as key, got a list, a mapping or an alias")
            raise _StopError
        key = event.value
        if event.implicit[0] and (key == "<<" or not isinstance(_plain(key), str)):
            self._refuse(event, SyntaxCode.INVALID_KEY, f"expected a text as key, got {fields.quote(key)}: put it in quotes")
        elif key in parent.lines:
            self._refuse(
                event,
                SyntaxCode.DUPLICATE_KEY,
                f"expected each key once, got {fields.quote(key)} again: it stands in line {parent.lines[key]} already",
            )
        parent.key = key
        parent.lines[key] = _position(event.start_mark).line
        self.positions[(*parent.path, key)] = _position(event.start_mark)

    def _value(self, event: yaml.NodeEvent, path: Path) -> Value:
        if isinstance(event, yaml.MappingStartEvent):
            return {}
        if isinstance(event, yaml.SequenceStartEvent):
            return []
        if not isinstance(event, yaml.ScalarEvent):
            return None
        if event.style == "|":
            self.blocks[path] = _position(event.start_mark).line + 1
        if not event.implicit[0]:
            return str(event.value)
        value = _plain(event.value)
        if value is None and event.value not in _NULLS:
            self._refuse(
                event, SyntaxCode.INVALID_NUMBER, "expected a finite number of at most 64 bits: put it in quotes if it is meant as text"
            )
        return value


def write(value: Value) -> str:
    """A value as YAML for people: in the order given, nothing in one line that is not short."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))


_NULLS: Final = ("", "~", "null")


def _plain(text: str) -> Value:
    """What a scalar without quotes stands for; None also for a number that no value can hold."""
    if text in _NULLS:
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        number = int(text) if len(text) <= _MAX_DIGITS else MAX_INTEGER + 1
        return number if -MAX_INTEGER - 1 <= number <= MAX_INTEGER else None
    if _FLOAT.fullmatch(text):
        real = float(text)
        return real if math.isfinite(real) else None
    return None if _NOT_FINITE.fullmatch(text) else text
