"""A name is what Kubernetes would accept, and nothing that looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.identity import names
from hopgate.identity.errors import IdentityError, InvalidNameError
from hopgate.identity.names import DestinationKind, DestinationName, ObjectName, User

LABEL_63 = "a" * 63
SUBDOMAIN_253 = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 61))

ACCEPTED = {
    "a name": "demo/planner",
    "of one character": "a/b",
    "of digits": "1/2",
    "with a hyphen": "my-team/a-b-c",
    "with dots": "demo/a.b.c",
    "the longest": f"{LABEL_63}/{SUBDOMAIN_253}",
}
# Each is an accepted one that differs in one fact.
REJECTED = {
    "nothing": "",
    "no slash": "planner",
    "no namespace": "/planner",
    "no name": "demo/",
    "a slash alone": "/",
    "two slashes": "demo/team/planner",
    "a doubled slash": "demo//planner",
    "a slash at the end": "demo/planner/",
    "a newline behind": "demo/planner\n",
    "a newline before": "\ndemo/planner",
    "a newline behind the namespace": "demo\n/planner",
    "a carriage return": "demo/planner\r",
    "a NUL": "demo/planner\x00",
    "a space": "demo/plan ner",
    "a space behind": "demo/planner ",
    "a tab": "demo/\tplanner",
    "dots": "../planner",
    "dots as the name": "demo/..",
    "one dot": "demo/.",
    "a dot first": "demo/.planner",
    "a dot last": "demo/planner.",
    "an empty label": "demo/a..b",
    "a dot in the namespace": "de.mo/planner",
    "a percent escape": "demo/plan%2fner",
    "a percent escape of a letter": "demo/%70lanner",
    "a percent sign": "demo/planner%",
    "upper case": "demo/Planner",
    "upper case in the namespace": "Demo/planner",
    "a bidi override": "demo/\u202eplanner",
    "a bidi isolate": "demo/plan\u2066ner",
    "a zero-width joiner": "demo/plan\u200dner",
    "a letter of another script": "demo/pl\u0430nner",
    "a full-width letter": "demo/\uff50lanner",
    "a digit of another script": "demo/planner\u0661",
    "the Kelvin sign, a k in lower case": "demo/\u212a",
    "a long s": "demo/\u017f",
    "an underscore": "demo/plan_ner",
    "a colon": "demo/planner:1",
    "a hyphen first": "demo/-planner",
    "a hyphen last": "demo/planner-",
    "a hyphen last in a label": "demo/a-.b",
    "a quote": 'demo/planner"',
    "a backslash": "demo\\planner",
    "a namespace of 64": f"{LABEL_63}a/planner",
    "a label of 64": f"demo/{LABEL_63}a",
    "a name of 254": f"demo/{SUBDOMAIN_253}e",
}


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(text: str) -> None:
    assert str(names.parse(text)) == text


@pytest.mark.parametrize("text", REJECTED.values(), ids=REJECTED)
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidNameError) as refused:
        names.parse(text)
    assert (refused.value.code, isinstance(refused.value, IdentityError)) == ("InvalidName", True)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("text", REJECTED.values(), ids=REJECTED)
def test_no_name_can_be_made_past_the_parser(text: str) -> None:
    namespace, _, name = text.partition("/")
    with pytest.raises(InvalidNameError):
        ObjectName(namespace, name)


@given(st.text(max_size=300))
def test_what_is_accepted_is_written_as_it_was(text: str) -> None:
    try:
        found = names.parse(text)
    except InvalidNameError:
        return
    assert str(found) == text
    assert text.isascii()
    assert text == text.lower()


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?/[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]{1,9}){0,3}", fullmatch=True))
def test_every_name_makes_the_way_through_its_text(text: str) -> None:
    assert names.parse(str(names.parse(text))) == names.parse(text)


@pytest.mark.parametrize("text", ["a", "a-b", "0", LABEL_63])
def test_labels(text: str) -> None:
    assert names.is_label(text)


@pytest.mark.parametrize("text", ["", "a.b", "A", "-a", "a-", "a\n", LABEL_63 + "a", "a_b", "ä"], ids=repr)
def test_no_labels(text: str) -> None:
    assert not names.is_label(text)


@pytest.mark.parametrize("text", ["a", "a.b", SUBDOMAIN_253])
def test_subdomains(text: str) -> None:
    assert names.is_subdomain(text)


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a.B", "a.b\n", SUBDOMAIN_253 + "e"], ids=repr)
def test_no_subdomains(text: str) -> None:
    assert not names.is_subdomain(text)


def test_a_destination_is_written_with_its_kind() -> None:
    name = ObjectName("demo", "tickets")
    assert str(DestinationName(DestinationKind.TOOL_SERVER, name)) == "ToolServer:demo/tickets"
    assert DestinationName(DestinationKind.AGENT, name) != DestinationName(DestinationKind.TOOL_SERVER, name)


def test_a_name_is_never_equal_to_its_text() -> None:
    name = ObjectName("demo", "a")
    assert name != "demo/a"  # type: ignore[comparison-overlap]  # as the type checker says, too
    assert name == ObjectName("demo", "a")
    assert len({name, ObjectName("demo", "a"), ObjectName("demo", "b")}) == 2


def test_people_of_two_issuers_are_two_people() -> None:
    one, other = User(issuer="https://a.example", subject="ada"), User(issuer="https://b.example", subject="ada")
    assert one != other
    assert str(one) == "https://a.example#ada"
