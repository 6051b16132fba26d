"""Secrets are read by name, when they are due, and never shown."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import pytest

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import secrets
from hopgate.kubernetes.api import ClientError, RefusedError, UnreachableError
from hopgate.kubernetes.secrets import REFRESH_SECONDS, RETRY_SECONDS, Secrets

ONE, TWO = ObjectName("demo", "one"), ObjectName("demo", "two")


@dataclass
class Server:
    """Secrets by name, what was asked for, and an error for everything."""

    values: dict[str, str] = field(default_factory=dict, repr=False)
    asked: list[str] = field(default_factory=list)
    error: ClientError | None = None

    def read_secret(self, namespace: str, name: str) -> dict[str, Any] | None:
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        if name not in self.values:
            return None
        data = {"apiKey": base64.b64encode(self.values[name].encode()).decode()}
        return {"metadata": {"name": name, "namespace": namespace, "managedFields": []}, "type": "Opaque", "data": data}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Server:
    return Server(values={"one": "sk-marker"})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(server: Server, clock: Clock) -> Secrets:
    return Secrets(server, clock, lambda: 1.0)


def value(known: Secrets, name: ObjectName = ONE) -> bytes | None:
    found = known.find()[name].secret
    return None if found is None else found.data["apiKey"].reveal()


def test_a_secret_is_read_when_it_is_first_wanted_and_again_when_due(server: Server, known: Secrets, clock: Clock) -> None:
    assert known.refresh([ONE])
    assert value(known) == b"sk-marker"
    server.values["one"] = "sk-rotated"
    clock.now = REFRESH_SECONDS - 0.1
    assert not known.refresh([ONE])
    assert server.asked == ["one"]
    clock.now = REFRESH_SECONDS
    assert known.refresh([ONE])
    assert value(known) == b"sk-rotated"


def test_a_secret_that_is_the_same_is_no_change(known: Secrets, clock: Clock) -> None:
    known.refresh([ONE])
    clock.now = REFRESH_SECONDS
    assert not known.refresh([ONE])


def test_a_new_reference_is_read_at_once_and_the_known_are_not(server: Server, known: Secrets) -> None:
    known.refresh([ONE])
    assert known.refresh([ONE, TWO])
    assert server.asked == ["one", "two"]
    assert known.find()[TWO].secret is None


def test_what_nobody_names_any_more_is_forgotten(known: Secrets) -> None:
    known.refresh([ONE])
    assert known.refresh([])
    assert known.find() == {}
    assert known.next_due() is None


def test_a_missing_secret_is_looked_for_sooner(server: Server, known: Secrets, clock: Clock) -> None:
    known.refresh([TWO])
    assert known.next_due() == RETRY_SECONDS
    server.values["two"] = "sk-late"
    clock.now = RETRY_SECONDS
    assert known.refresh([TWO])
    assert value(known, TWO) == b"sk-late"


def test_the_last_value_stays_while_the_server_is_away(server: Server, known: Secrets, clock: Clock) -> None:
    known.refresh([ONE])
    for error in (UnreachableError("away"), RefusedError(500, "broken")):
        server.error = error
        clock.now += REFRESH_SECONDS
        assert not known.refresh([ONE])
        assert value(known) == b"sk-marker"
        assert known.find()[ONE].error == str(error)


@pytest.mark.parametrize("status", [401, 403])
def test_what_may_no_longer_be_read_is_gone(server: Server, known: Secrets, clock: Clock, status: int) -> None:
    known.refresh([ONE])
    server.error = RefusedError(status, "forbidden")
    clock.now = REFRESH_SECONDS
    assert known.refresh([ONE])
    assert value(known) is None
    assert known.find()[ONE].denied


def test_what_was_deleted_is_gone(server: Server, known: Secrets, clock: Clock) -> None:
    known.refresh([ONE])
    server.values.clear()
    clock.now = REFRESH_SECONDS
    assert known.refresh([ONE])
    assert value(known) is None


def test_a_server_that_does_not_answer_is_not_asked_for_each(server: Server, known: Secrets) -> None:
    server.error = UnreachableError("away")
    known.refresh([ObjectName("demo", f"s{number}") for number in range(200)])
    assert len(server.asked) <= secrets._PARALLEL


def test_the_known_are_read_again_in_batches(server: Server, known: Secrets, clock: Clock) -> None:
    many = [ObjectName("demo", f"s{number}") for number in range(100)]
    known.refresh(many)
    assert len(server.asked) == 100
    server.asked.clear()
    clock.now = REFRESH_SECONDS
    known.refresh(many)
    assert len(server.asked) == secrets._BATCH
    while known.next_due() == RETRY_SECONDS:
        known.refresh(many)
    assert set(server.asked) == {name.name for name in many}


def test_nothing_shows_a_value(known: Secrets) -> None:
    known.refresh([ONE])
    assert "marker" not in repr(known) + repr(known.find()) + repr(vars(known))
