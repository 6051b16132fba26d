"""Who leads: decided by each process' own clock, whatever the times in the Lease are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hopgate.kubernetes import election
from hopgate.kubernetes.api import Body, Manifest, RefusedError, UnreachableError
from hopgate.kubernetes.election import LEASE_SECONDS, RENEW_SECONDS, Candidate

WALL = 1_800_000_000.0


class Leases:
    """One Lease as the API server keeps it: a write is of the version that was read, or refused."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.away = False
        self._version = 0

    def call(self, method: str, path: str, body: Body | None = None, *, content_type: str = "application/json") -> Manifest:
        if self.away:
            raise UnreachableError("nobody answers")
        if method == "GET":
            if self.lease is None:
                raise RefusedError(404, "not found")
            return self.lease
        assert isinstance(body, Mapping)
        if method == "POST" and self.lease is not None:
            raise RefusedError(409, "exists")
        if method == "PUT" and (self.lease is None or body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]):
            raise RefusedError(409, "conflict")
        self._version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        return self.lease


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def leases() -> Leases:
    return Leases()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def candidate(leases: Leases, clock: Clock, name: str, *, ahead: float = 0.0, offset: float = 0.0) -> Candidate:
    """One whose own clock counts from elsewhere, and whose wall clock is so far ahead."""
    return Candidate(
        leases,
        namespace="hopgate",
        name="hopgate-controller",
        identity=name,
        clock=lambda: clock.now + offset,
        wall=lambda: WALL + clock.now + ahead,
    )


@pytest.mark.parametrize("ahead", [-120.0, 0.0, 120.0])
def test_a_wall_clock_that_is_wrong_makes_no_second_leader(leases: Leases, clock: Clock, ahead: float) -> None:
    one, two = candidate(leases, clock, "one"), candidate(leases, clock, "two", ahead=ahead, offset=5e6)
    for _ in range(60):
        one.step()
        two.step()
        assert (one.leads(), two.leads()) == (True, False)
        clock.now += 2


@pytest.mark.parametrize("ahead", [-120.0, 0.0, 120.0])
def test_a_leader_that_is_silent_is_followed_once_it_has_stopped(leases: Leases, clock: Clock, ahead: float) -> None:
    one, two = candidate(leases, clock, "one"), candidate(leases, clock, "two", ahead=ahead)
    one.step()
    two.step()
    clock.now += RENEW_SECONDS - 0.1
    two.step()
    assert (one.leads(), two.leads()) == (True, False)
    clock.now += 0.1
    two.step()
    assert (one.leads(), two.leads()) == (False, False)
    clock.now += LEASE_SECONDS - RENEW_SECONDS
    two.step()
    assert (one.leads(), two.leads()) == (False, True)
    one.step()
    assert (one.leads(), two.leads()) == (False, True)
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 1


def test_a_leader_that_can_not_renew_stops_and_begins_another_term(leases: Leases, clock: Clock) -> None:
    one = candidate(leases, clock, "one")
    one.step()
    assert (one.leads(), one.term) == (True, 1)
    leases.away = True
    for _ in range(5):
        clock.now += 2
        with pytest.raises(UnreachableError):
            one.step()
    assert not one.leads()
    leases.away = False
    one.step()
    assert (one.leads(), one.term) == (True, 2)
    clock.now += 2
    one.step()
    assert one.term == 2


def test_of_two_that_take_one_lease_the_later_write_is_refused(leases: Leases, clock: Clock) -> None:
    one = candidate(leases, clock, "one")

    class Late(Leases):
        """Between the look and the write of the one, the other writes."""

        def call(self, method: str, path: str, body: Body | None = None, *, content_type: str = "application/json") -> Manifest:
            if method != "GET":
                one.step()
            return leases.call(method, path, body)

    two = candidate(Late(), clock, "two")
    two.step()
    assert (one.leads(), two.leads()) == (True, False)


def test_what_is_given_up_is_free_at_once_and_never_taken_back(leases: Leases, clock: Clock) -> None:
    one, two = candidate(leases, clock, "one"), candidate(leases, clock, "two")
    one.step()
    two.step()
    assert not two.leads()
    one.resign()
    assert not one.leads()
    two.step()
    assert two.leads()


def test_a_lease_of_nonsense_is_taken(leases: Leases, clock: Clock) -> None:
    leases.lease = {"metadata": {"name": "hopgate-controller", "resourceVersion": "0"}, "spec": {"leaseTransitions": "x"}}
    one = candidate(leases, clock, "one")
    one.step()
    assert one.leads()
    assert election.is_free(leases.lease, election.Sighting("1", clock.now), "one", clock.now)
