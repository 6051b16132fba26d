"""What two objects claim at one moment is held for one of them, until it is written or surely not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hopgate.kubernetes.api import Listing, Stream, WatchedKind
from hopgate.kubernetes.new_claims import HELD_SECONDS, NewClaims
from hopgate.resources.conflicts import Claim, ConflictCode
from hopgate.resources.reference import ObjectReference
from tests.hopgate.kubernetes.test_validation import manifest, tool

ONE = ObjectReference(kind="ToolServer", namespace="demo", name="one")
OTHER = ObjectReference(kind="ToolServer", namespace="other", name="other")
HOST = Claim(ConflictCode.DUPLICATE_HOST, ("weather.example.com",), (), "the host")
ACCOUNT = Claim(ConflictCode.DUPLICATE_SERVICE_ACCOUNT, ("demo", "planner"), (), "the account")


class Listed:
    """An API server of these objects, and the kinds that it was asked for."""

    def __init__(self, *manifests: Mapping[str, Any]) -> None:
        self.asked: list[WatchedKind] = []
        self._manifests = manifests

    def list(self, kind: WatchedKind) -> Listing:
        self.asked.append(kind)
        return Listing(items=tuple(each for each in self._manifests if each["kind"] == kind.kind), revision="1")

    def watch(self, kind: WatchedKind, revision: str) -> Stream:
        raise NotImplementedError


def held_by(now: list[float]) -> NewClaims:
    return NewClaims(Listed(), lambda: now[0])


def test_what_is_held_for_one_is_not_given_to_another() -> None:
    claims = held_by([0.0])
    assert claims.hold(ONE, [HOST]) is None
    assert claims.hold(OTHER, [ACCOUNT, HOST]) == HOST
    # Refused as a whole: the first of its claims is free for everybody.
    assert claims.hold(ONE, [HOST, ACCOUNT]) is None


def test_it_is_free_again_when_its_holder_changes_its_mind_and_after_a_while() -> None:
    now = [0.0]
    claims = held_by(now)
    assert claims.hold(ONE, [HOST]) is None
    assert claims.hold(ONE, []) is None
    assert claims.hold(OTHER, [HOST]) is None
    now[0] = HELD_SECONDS - 0.1
    assert claims.hold(ONE, [HOST]) == HOST
    now[0] = HELD_SECONDS
    assert claims.hold(ONE, [HOST]) is None


def test_the_list_says_who_claims_it_and_is_no_longer_than_it_must_be() -> None:
    source = Listed(manifest("ToolServer", "one", tool()), manifest("Agent", "planner", {}))
    claims = NewClaims(source, lambda: 0.0)
    assert claims.owners(OTHER, [HOST]) == {(HOST.code, HOST.wanted): ONE}
    assert claims.owners(ONE, [HOST]) == {}
    assert {(kind.kind, kind.namespace) for kind in source.asked} == {("ToolServer", None), ("ModelProvider", None)}
    source.asked.clear()
    agent = ObjectReference(kind="Agent", namespace="demo", name="second")
    assert claims.owners(agent, [ACCOUNT]) == {
        (ACCOUNT.code, ACCOUNT.wanted): ObjectReference(kind="Agent", namespace="demo", name="planner")
    }
    assert [(kind.kind, kind.namespace) for kind in source.asked] == [("Agent", "demo")]
