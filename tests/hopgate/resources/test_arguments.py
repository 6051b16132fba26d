"""Arguments: what of a tool's input schema a policy can read, and what of a call's arguments reaches Cedar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.policy.question import Action
from hopgate.resources import arguments
from hopgate.resources.arguments import ArgumentError
from hopgate.resources.kinds import Tool
from tests.hopgate.policy import world


def _object(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


NESTED = _object({"page": _object({"size": {"type": "integer"}, "rate": {"type": "number"}}, "size")})
DEEP: dict[str, Any] = {"type": "integer"}
for _ in range(arguments.MAX_DEPTH):
    DEEP = _object({"in": DEEP})


@pytest.mark.parametrize(
    ("schema", "cedar"),
    [
        pytest.param(_object({"a": {"type": "string"}}), '{"a"?: String}', id="string"),
        pytest.param(_object({"a": {"type": "integer"}}, "a"), '{"a": Long}', id="required integer"),
        pytest.param(_object({"a": {"type": "boolean"}}), '{"a"?: Bool}', id="boolean"),
        pytest.param(_object({"a": {"type": "array", "items": {"type": "string"}}}), '{"a"?: Set<String>}', id="array of strings"),
        pytest.param(NESTED, '{"page"?: {"size": Long}}', id="nested object, without its number"),
        pytest.param(_object({"a": {"type": "string", "enum": ["x"]}}), '{"a"?: String}', id="string with an enum"),
        pytest.param(_object({"a-b c": {"type": "string"}}), '{"a-b c"?: String}', id="a name that is no identifier"),
        pytest.param({"properties": {"a": {"type": "string"}}}, '{"a"?: String}', id="properties without a type beside them"),
        pytest.param(_object({"a": {"type": "number"}}), "{}", id="number"),
        pytest.param(_object({"a": {"type": "null"}}), "{}", id="null"),
        pytest.param(_object({"a": {"type": ["string", "null"]}}), "{}", id="union of types"),
        pytest.param(_object({"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}), "{}", id="anyOf"),
        pytest.param(_object({"a": {"$ref": "#/$defs/a", "type": "string"}}), "{}", id="reference"),
        pytest.param(_object({"a": {"enum": ["x"]}}), "{}", id="enum without a type"),
        pytest.param(_object({"a": True}), "{}", id="schema that is a boolean"),
        pytest.param(_object({"a": {"type": "array", "items": _object({"b": {"type": "string"}})}}), "{}", id="array of objects"),
        pytest.param(
            _object({"a": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}}), "{}", id="array of arrays"
        ),
        pytest.param(_object({"a": {"type": "array"}}), "{}", id="array of anything"),
        pytest.param(_object({"a": {"type": "object"}}), "{}", id="object of anything"),
        pytest.param(_object({"__entity": {"type": "string"}, "__x": {"type": "string"}}), "{}", id="names with a meaning in Cedar's JSON"),
        pytest.param(
            _object({'a"b': {"type": "string"}, "a\\b": {"type": "string"}, "": {"type": "string"}}), "{}", id="names that break out"
        ),
        pytest.param(_object({"a\nb": {"type": "string"}, "ä": {"type": "string"}}), "{}", id="names beyond printable ASCII"),
        pytest.param(DEEP, "{}", id="an object that is too deep"),
        pytest.param({}, "{}", id="empty schema"),
        pytest.param(None, "{}", id="no schema"),
        pytest.param({"properties": [], "required": "a"}, "{}", id="a schema that is none"),
    ],
)
def test_a_tools_schema_becomes_a_cedar_type(schema: Mapping[str, Any] | None, cedar: str) -> None:
    assert arguments.record_type(schema).cedar() == cedar


SCHEMA = _object(
    {
        "limit": {"type": "integer"},
        "text": {"type": "string"},
        "force": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "page": _object({"size": {"type": "integer"}}, "size"),
        "rate": {"type": "number"},
        "filter": {"type": "object"},
    },
    "limit",
)


@pytest.mark.parametrize(
    ("given_arguments", "taken"),
    [
        pytest.param({"limit": 1}, {"limit": 1}, id="only what is required"),
        pytest.param({"limit": 1, "text": "ä", "force": True}, {"limit": 1, "text": "ä", "force": True}, id="scalars"),
        pytest.param({"limit": 1, "tags": ["a", "b"]}, {"limit": 1, "tags": ["a", "b"]}, id="array"),
        pytest.param({"limit": 1, "page": {"size": 5}}, {"limit": 1, "page": {"size": 5}}, id="nested object"),
        pytest.param({"limit": 2**63 - 1}, {"limit": 2**63 - 1}, id="largest integer"),
        pytest.param({"limit": -(2**63)}, {"limit": -(2**63)}, id="smallest integer"),
        pytest.param({"limit": 1, "rate": 1.5, "filter": {"a": None}}, {"limit": 1}, id="what is not exposed stays behind"),
        pytest.param(
            {"limit": 1, "more": "x", "page": {"size": 5, "more": 1}},
            {"limit": 1, "page": {"size": 5}},
            id="what is not declared stays behind",
        ),
    ],
)
def test_a_call_gives_its_declared_arguments(given_arguments: dict[str, Any], taken: dict[str, Any]) -> None:
    assert arguments.record_type(SCHEMA).take(given_arguments) == taken


@pytest.mark.parametrize(
    ("given_arguments", "message"),
    [
        pytest.param({}, "argument `limit` is required", id="required argument missing"),
        pytest.param({"limit": "1"}, "argument `limit` should be an integer", id="string for an integer"),
        pytest.param({"limit": True}, "argument `limit` should be an integer", id="boolean for an integer"),
        pytest.param({"limit": 1.0}, "argument `limit` should be an integer", id="float for an integer"),
        pytest.param({"limit": None}, "argument `limit` should be an integer", id="null for an integer"),
        pytest.param({"limit": 2**63}, "argument `limit` is outside of the 64-bit integers", id="integer too large"),
        pytest.param({"limit": -(2**63) - 1}, "argument `limit` is outside of the 64-bit integers", id="integer too small"),
        pytest.param({"limit": 1, "text": 5}, "argument `text` should be a string", id="integer for a string"),
        pytest.param({"limit": 1, "text": "\ud800"}, "argument `text` holds half of a surrogate pair", id="half of a surrogate pair"),
        pytest.param({"limit": 1, "force": 1}, "argument `force` should be true or false", id="integer for a boolean"),
        pytest.param({"limit": 1, "tags": "a"}, "argument `tags` should be an array", id="string for an array"),
        pytest.param({"limit": 1, "tags": ["a", 1]}, "argument `tags[1]` should be a string", id="wrong member of an array"),
        pytest.param({"limit": 1, "page": []}, "argument `page` should be an object", id="array for an object"),
        pytest.param({"limit": 1, "page": {}}, "argument `page.size` is required", id="required argument missing in an object"),
        pytest.param(
            {"limit": {"__entity": {"type": "A", "id": "b"}}}, "argument `limit` should be an integer", id="entity for an integer"
        ),
        pytest.param({"limit": 1, "text": {"__extn": {}}}, "argument `text` should be a string", id="extension value for a string"),
        pytest.param({"limit": 1, "tags": [{"__expr": "1"}]}, "argument `tags[0]` should be a string", id="expression in an array"),
        pytest.param(
            {"limit": 1, "page": {"size": {"__entity": {}}}}, "argument `page.size` should be an integer", id="entity in an object"
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused_without_their_value(given_arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        arguments.record_type(SCHEMA).take(given_arguments)
    assert str(refused.value) == message


def test_arguments_that_are_no_object_are_refused() -> None:
    with pytest.raises(ArgumentError, match="the arguments should be an object"):
        arguments.record_type(SCHEMA).take([])


def test_a_required_argument_that_no_policy_can_read_is_still_required() -> None:
    schema = _object({"rate": {"type": "number"}}, "rate")
    assert arguments.record_type(schema).take({"rate": 1.5}) == {}
    with pytest.raises(ArgumentError, match="`rate` is required"):
        arguments.record_type(schema).take({})


def test_a_tool_without_a_schema_passes_nothing_on() -> None:
    assert arguments.record_type(None).take({"limit": 1, "__entity": {"type": "Hopgate::Agent", "id": "x"}}) == {}


ESCAPES = st.sampled_from(["__entity", "__extn", "__expr"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(ESCAPES | st.sampled_from(["limit", "text", "tags", "page", "size"]), inner, max_size=4)
    ),
    max_leaves=12,
)
SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "boolean", "number", "null", "array", "object", ["string", "null"]])}
    ),
    lambda inner: (
        st.builds(lambda items: {"type": "array", "items": items}, inner)
        | st.builds(
            lambda properties, required: {"type": "object", "properties": properties, "required": required},
            st.dictionaries(ESCAPES | st.sampled_from(["limit", "text", "tags", "page", "size"]), inner, max_size=4),
            st.lists(st.sampled_from(["limit", "text"]), max_size=2),
        )
    ),
    max_leaves=8,
)


def _keys(value: object) -> set[str]:
    if isinstance(value, Mapping):
        return {str(key) for key in value} | {key for each in value.values() for key in _keys(each)}
    return {key for each in value for key in _keys(each)} if isinstance(value, list) else set()


@given(schema=SCHEMAS, value=st.dictionaries(ESCAPES | st.sampled_from(["limit", "text", "tags", "page"]), JSON, max_size=5))
def test_no_key_that_cedar_gives_a_meaning_ever_comes_through(schema: dict[str, Any], value: dict[str, Any]) -> None:
    """Any declared schema and any JSON: an ArgumentError, or values without `__entity`, `__extn` and `__expr` at any depth."""
    try:
        taken = arguments.record_type(schema).take(value)
    except ArgumentError:
        return
    assert not {key for key in _keys(taken) if key.startswith("__")}


@given(schema=SCHEMAS, value=st.dictionaries(st.sampled_from(["limit", "text", "tags", "page"]), JSON, max_size=5))
def test_what_comes_through_is_of_the_type_that_policies_were_validated_with(schema: dict[str, Any], value: dict[str, Any]) -> None:
    """Cedar accepts every taken value as a request's context under the schema made from the same declaration."""
    try:
        taken = arguments.record_type(schema).take(value)
    except ArgumentError:
        return
    assert (
        world.misfit(
            world.question(Action.CALL_TOOL, world.SEARCH_TOOL, context={"arguments": taken}), Tool(name="search", input_schema=schema)
        )
        is None
    )
