"""The Cedar schema: the package's own text, and its variants in which one tool's arguments are typed."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

from hopgate.resources.arguments import RecordType

_UNTYPED: Final = "type Arguments = {};"


@cache
def text() -> str:
    """The schema in Cedar's schema syntax. `context.arguments` of a tool call is an empty record."""
    return resources.files("hopgate.policy").joinpath("hopgate.cedarschema").read_text(encoding="utf-8")


def for_tool(arguments: RecordType) -> str:
    """The schema in which `context.arguments` of a tool call is of the type `arguments`: for policies that name that tool."""
    before, _, after = text().partition(_UNTYPED)
    return f"{before}type Arguments = {arguments.cedar()};{after}"
