"""Reading a manifest's fields one by one, collecting every mistake instead of stopping at the first.

A reader takes a `Field` and gives its value or raises `RefusedError`. `Fields` reads one mapping: it catches what its fields' readers
raise, notes it, goes on with a stand-in, and refuses, when closed, each key that nobody asked for. So whoever reads must throw the
result away when there is any mistake (`hopgate.resources.parse` is the one place that does).
Messages name fields and fixed texts; only readers of values that can't be secret show what came.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

Path = tuple[str | int, ...]
T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

# As much of a user's text as a message shows: longer than any name or host that is likely to be meant.
SHOWN_CHARACTERS = 80
# Deeper than any JSON Schema or request worth writing by hand, far from what Python's stack bears.
MAX_JSON_DEPTH = 48
# More hosts, tools or models than one record can sensibly have; looking for repeated ones takes the square of it.
MAX_ITEMS = 4096
# JSON numbers beyond this are not the same in every language, and Cedar's `long` is 64 bits.
MAX_INTEGER = 2**63 - 1


class Code(StrEnum):
    """What is wrong with a field: stable codes."""

    UNKNOWN_FIELD = "UnknownField"
    MISSING_FIELD = "MissingField"
    WRONG_TYPE = "WrongType"
    INVALID_VALUE = "InvalidValue"
    INVALID_NAME = "InvalidName"
    INVALID_HOST = "InvalidHost"
    INVALID_PORT = "InvalidPort"
    INVALID_ADDRESS = "InvalidAddress"
    INVALID_HEADER = "InvalidHeader"
    INVALID_CERTIFICATE = "InvalidCertificate"
    INVALID_BASE64 = "InvalidBase64"
    REPEATED = "Repeated"
    CONTRADICTION = "Contradiction"
    CLUSTER_SCOPED = "ClusterScoped"
    UNKNOWN_KIND = "UnknownKind"
    UNKNOWN_VERSION = "UnknownVersion"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One mistake in one manifest. `path` leads to the field: names, and positions (from 0) in lists."""

    path: Path
    code: str
    message: str

    def __str__(self) -> str:
        return f"{show(self.path)}: {self.message} ({self.code})"


def show(path: Path) -> str:
    """A path as people write it: `spec.hosts[0]`."""
    shown = ""
    for step in path:
        shown += f"[{step}]" if isinstance(step, int) else f".{clean(step)}"
    return shown.removeprefix(".")


def clean(text: str) -> str:
    """`text` cut to a readable length, with everything unprintable escaped."""
    cut = text[:SHOWN_CHARACTERS] + ("…" if len(text) > SHOWN_CHARACTERS else "")
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in cut)


def quote(text: str) -> str:
    """`text` between backticks, cut and cleaned, for a message."""
    return f"`{clean(text)}`"


def describe(value: object) -> str:
    """What kind of value this is, in a manifest's words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return "something else"


class RefusedError(ValueError):
    """A field's value was refused. It never leaves this package: `Fields` and `items` note its mistake."""

    def __init__(self, mistake: FieldError) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


class Field:
    """One value of a manifest, where it stands, and the list that its mistakes go to."""

    __slots__ = ("_mistakes", "path", "value")

    def __init__(self, value: object, path: Path, mistakes: list[FieldError]) -> None:
        self.value = value
        self.path = path
        self._mistakes = mistakes

    def child(self, step: str | int, value: object) -> Field:
        """The field below this one."""
        return Field(value, (*self.path, step), self._mistakes)

    def refusal(self, code: Code, message: str) -> RefusedError:
        """The error to raise for a value that is not what it must be."""
        return RefusedError(FieldError(path=self.path, code=code, message=message))

    def wrong_type(self, expected: str) -> RefusedError:
        """The error to raise for a value that is not of the kind `expected`."""
        remedy = ": put it in quotes" if expected == "a string" and isinstance(self.value, bool | int | float) else ""
        return self.refusal(Code.WRONG_TYPE, f"expected {expected}, got {describe(self.value)}{remedy}")

    def note(self, refused: RefusedError) -> None:
        """Keep a mistake and go on."""
        self._mistakes.append(refused.mistake)


Reader = Callable[[Field], T]


class Fields:
    """The fields of one mapping. Ask for each known one, then `close`. Raises RefusedError when it is no mapping."""

    def __init__(self, field: Field) -> None:
        if not isinstance(field.value, dict):
            raise field.wrong_type("a mapping")
        self._field = field
        self._known: list[str] = []
        self._values: Mapping[str, object] = {key: value for key, value in field.value.items() if isinstance(key, str)}
        if len(self._values) != len(field.value):
            field.note(field.refusal(Code.WRONG_TYPE, "expected every key to be a string"))

    def has(self, name: str) -> bool:
        """Whether the field is written at all."""
        return name in self._values

    def required(self, name: str, read: Reader[T], stand_in: T) -> T:
        """The field's value; its absence is a mistake. `stand_in` is given when there is none or it was refused."""
        if not self.has(name):
            self.refuse(name, Code.MISSING_FIELD, f"expected {quote(name)}, which is required")
        return self.optional(name, read, stand_in)

    def optional(self, name: str, read: Reader[T], default: T) -> T:
        """The field's value, or `default` when it is not written (or was refused)."""
        self._known.append(name)
        if not self.has(name):
            return default
        field = self._field.child(name, self._values[name])
        try:
            return read(field)
        except RefusedError as refused:
            field.note(refused)
            return default

    def ignored(self, *names: str) -> None:
        """Fields that may be written and mean nothing here."""
        self._known.extend(names)

    def refuse(self, name: str, code: Code, message: str) -> None:
        """Note a mistake at one of the fields."""
        field = self._field.child(name, self._values.get(name))
        field.note(field.refusal(code, message))

    def close(self) -> None:
        """Refuse each field that nobody asked for."""
        for name in self._values:
            if name not in self._known:
                near = difflib.get_close_matches(name[:SHOWN_CHARACTERS], self._known, n=1)
                known = ", ".join(quote(known) for known in sorted(self._known))
                hint = f"did you mean {quote(near[0])}?" if near else f"known here: {known}"
                self.refuse(name, Code.UNKNOWN_FIELD, f"unknown field {quote(name)}; {hint}")


def text(field: Field) -> str:
    """Any string."""
    if isinstance(field.value, str):
        return field.value
    raise field.wrong_type("a string")


def phrase(field: Field) -> str:
    """A string of one line that is not empty: a name of somebody else's, a description."""
    value = text(field)
    if not value.strip() or not value.isprintable():
        raise field.refusal(Code.INVALID_VALUE, "expected printable text on one line, not empty")
    return value


def boolean(field: Field) -> bool:
    """`true` or `false`."""
    if isinstance(field.value, bool):
        return field.value
    raise field.wrong_type("true or false")


def integer(low: int, high: int, code: Code = Code.INVALID_VALUE) -> Reader[int]:
    """A whole number from `low` to `high`, both included."""

    def read(field: Field) -> int:
        value = field.value
        if isinstance(value, bool) or not isinstance(value, int):
            raise field.wrong_type("a whole number")
        if not low <= value <= high:
            raise field.refusal(code, f"expected a whole number from {low} to {high}")
        return value

    return read


def choice(options: type[E]) -> Reader[E]:
    """One of an enumeration's values, in exactly its spelling."""

    def read(field: Field) -> E:
        value = text(field)
        for option in options:
            if value == option.value:
                return option
        expected = ", ".join(quote(option.value) for option in options)
        raise field.refusal(Code.INVALID_VALUE, f"expected one of {expected}, got {quote(value)}")

    return read


def items(read: Reader[T], *, at_least: int = 0) -> Reader[tuple[T, ...]]:
    """A list, each of its items read by `read`; two that are equal are a mistake."""

    def read_items(field: Field) -> tuple[T, ...]:
        if not isinstance(field.value, list | tuple):
            raise field.wrong_type("a list")
        if len(field.value) < at_least:
            raise field.refusal(Code.INVALID_VALUE, f"expected at least {at_least} in the list, got {len(field.value)}")
        if len(field.value) > MAX_ITEMS:
            raise field.refusal(Code.INVALID_VALUE, f"expected at most {MAX_ITEMS} in the list, got {len(field.value)}")
        found: list[T] = []
        for position, value in enumerate(field.value):
            item = field.child(position, value)
            try:
                result = read(item)
                if result in found:
                    raise item.refusal(Code.REPEATED, "expected each item once, got this one again: remove it")
                found.append(result)
            except RefusedError as refused:
                item.note(refused)
        return tuple(found)

    return read_items


def string_mapping(field: Field) -> Mapping[str, str]:
    """A mapping of strings to strings, as labels and annotations are."""
    if not isinstance(field.value, dict):
        raise field.wrong_type("a mapping")
    return {str(key): text(field.child(str(key), value)) for key, value in field.value.items()}


def json_mapping(field: Field) -> Mapping[str, Any]:
    """A mapping of free JSON, such as a JSON Schema: finite numbers, string keys, bounded depth."""
    return _free_mapping(field, _require_json)


def cedar_mapping(field: Field) -> Mapping[str, Any]:
    """A mapping of what Cedar has values for: true, false, 64-bit whole numbers, strings, lists and mappings."""
    return _free_mapping(field, _require_cedar)


def _free_mapping(field: Field, require_scalar: Callable[[Field], None]) -> Mapping[str, Any]:
    if not isinstance(field.value, dict):
        raise field.wrong_type("a mapping")
    pending = [field]
    while pending:
        found = pending.pop()
        if len(found.path) - len(field.path) > MAX_JSON_DEPTH:
            raise field.refusal(Code.INVALID_VALUE, f"expected at most {MAX_JSON_DEPTH} levels of nesting")
        if isinstance(found.value, dict):
            if not all(isinstance(key, str) for key in found.value):
                raise found.refusal(Code.WRONG_TYPE, "expected every key to be a string")
            pending.extend(found.child(key, value) for key, value in found.value.items())
        elif isinstance(found.value, list | tuple):
            pending.extend(found.child(position, value) for position, value in enumerate(found.value))
        else:
            require_scalar(found)
    return field.value


def _require_json(field: Field) -> None:
    if isinstance(field.value, float) and not math.isfinite(field.value):
        raise field.refusal(Code.INVALID_VALUE, "expected a finite number")
    if field.value is not None and not isinstance(field.value, bool | int | float | str):
        raise field.wrong_type("a JSON value")


def _require_cedar(field: Field) -> None:
    value = field.value
    if not isinstance(value, bool | int | str):
        raise field.wrong_type("true or false, a whole number, a string, a list or a mapping (what Cedar has values for)")
    if not isinstance(value, str) and not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
        raise field.refusal(Code.INVALID_VALUE, "expected a whole number of 64 bits")
