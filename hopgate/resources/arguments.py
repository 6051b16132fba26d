"""A tool's declared input schema as a Cedar type, and a call's arguments as values of that type.

What a policy may read of a tool call is what the tool declares, typed; nothing else of a request's JSON reaches Cedar.
Exposed are properties of type `string`, `integer`, `boolean`, arrays of those (as sets) and objects of all of these,
where `type` is one word. Not exposed: `number`, `null`, unions, `$ref`, arrays of arrays or of objects, objects without an
exposed property, and names that Cedar's JSON form gives a meaning (`__entity` …). A call that leaves out a required
property, or whose exposed property is of another type, is refused, since the policy would judge something else than the tool sees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

# What Cedar can hold of JSON.
ArgumentValue = bool | int | str | list["ArgumentValue"] | dict[str, "ArgumentValue"]

# Cedar's Long.
_MIN_LONG: Final = -(2**63)
_MAX_LONG: Final = 2**63 - 1
# Deeper objects exist in no published tool that was looked at; the bound keeps the recursion shallow.
MAX_DEPTH: Final = 8
# Printable ASCII without `"` and `\`: the name goes between quotes in the schema's text.
_NAME = re.compile(r"(?!__)[ !#-\[\]-~]{1,100}")


class ArgumentError(ValueError):
    """Arguments that don't fit the type that the tool declares. The message names the property, never its value."""


class Scalar(Enum):
    """JSON Schema's word for a type, as Cedar's."""

    STRING = "String"
    INTEGER = "Long"
    BOOLEAN = "Bool"

    def cedar(self) -> str:
        """The type in Cedar's schema syntax."""
        return self.value

    def take(self, value: object, path: str) -> ArgumentValue:
        """The value as one of this type. Raises ArgumentError."""
        if self is Scalar.INTEGER:
            if isinstance(value, int) and not isinstance(value, bool):
                if _MIN_LONG <= value <= _MAX_LONG:
                    return value
                raise ArgumentError(f"argument `{path}` is outside of the 64-bit integers")
        elif self is Scalar.STRING:
            if isinstance(value, str):
                if value.isascii() or _is_unicode(value):
                    return value
                raise ArgumentError(f"argument `{path}` holds half of a surrogate pair")
        elif isinstance(value, bool):
            return value
        raise ArgumentError(f"argument `{path}` should be {_WORDS[self]}")


_WORDS: Final = {Scalar.STRING: "a string", Scalar.INTEGER: "an integer", Scalar.BOOLEAN: "true or false"}
_SCALARS: Final[Mapping[object, Scalar]] = {"string": Scalar.STRING, "integer": Scalar.INTEGER, "boolean": Scalar.BOOLEAN}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetType:
    """An array as a Cedar set: order and repetition are lost."""

    element: Scalar

    def cedar(self) -> str:
        """The type in Cedar's schema syntax."""
        return f"Set<{self.element.cedar()}>"

    def take(self, value: object, path: str) -> ArgumentValue:
        """The value as one of this type. Raises ArgumentError."""
        if not isinstance(value, list):
            raise ArgumentError(f"argument `{path}` should be an array")
        return [self.element.take(each, f"{path}[{position}]") for position, each in enumerate(value)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordType:
    """An object. `properties` are the exposed ones; `required` names every property that must be there, exposed or not."""

    properties: Mapping[str, Scalar | SetType | RecordType]
    required: frozenset[str]

    def cedar(self) -> str:
        """The type in Cedar's schema syntax."""
        attributes = (f'"{name}"{"" if name in self.required else "?"}: {kind.cedar()}' for name, kind in sorted(self.properties.items()))
        return f"{{{', '.join(attributes)}}}"

    def take(self, value: object, path: str = "") -> dict[str, ArgumentValue]:
        """The exposed properties of `value`, and no others. Raises ArgumentError."""
        if not isinstance(value, Mapping):
            raise ArgumentError(f"argument `{path}` should be an object" if path else "the arguments should be an object")
        prefix = f"{path}." if path else ""
        for name in self.required:
            if name not in value:
                raise ArgumentError(f"argument `{prefix}{name}` is required")
        return {name: kind.take(value[name], f"{prefix}{name}") for name, kind in self.properties.items() if name in value}


NO_ARGUMENTS: Final = RecordType(properties={}, required=frozenset())


def record_type(tool_schema: Mapping[str, Any] | None) -> RecordType:
    """The type that a tool's input schema (JSON Schema, None: not declared) gives its arguments. Raises nothing."""
    return NO_ARGUMENTS if tool_schema is None else _record(tool_schema, MAX_DEPTH)


def _record(schema: Mapping[str, Any], depth: int) -> RecordType:
    properties = schema.get("properties")
    required = schema.get("required")
    exposed = {}
    if isinstance(properties, Mapping):
        for name, each in properties.items():
            kind = _type(each, depth - 1) if isinstance(name, str) and _NAME.fullmatch(name) else None
            if kind is not None:
                exposed[name] = kind
    names = frozenset(name for name in required if isinstance(name, str)) if isinstance(required, list | tuple) else frozenset()
    return RecordType(properties=exposed, required=names)


def _type(schema: object, depth: int) -> Scalar | SetType | RecordType | None:
    """None: nothing that Cedar could hold."""
    if not isinstance(schema, Mapping) or depth == 0 or "$ref" in schema:
        return None
    word = schema.get("type")
    if not isinstance(word, str):
        return None
    if word == "array":
        items = schema.get("items")
        element = _type(items, depth - 1)
        return SetType(element=element) if isinstance(element, Scalar) else None
    if word == "object":
        record = _record(schema, depth)
        return record if record.properties else None
    return _SCALARS.get(word)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
