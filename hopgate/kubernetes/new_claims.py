"""Who claims what at this very moment: what the watch has not brought yet, and what was accepted a moment ago and is not written yet.

The watch is a fraction of a second behind. In that time somebody could claim what another object was just given, and be the older of
the two. So for each claim that an object did not have before, two more things are looked at: a list that is made just then, and the claims
that this process accepted and that may be on their way to the API server's storage. What two processes of the webhook accept in the same
milliseconds, neither sees: `claims.choose` says who has it then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hopgate.kubernetes import api, objects
from hopgate.kubernetes.api import Source, WatchedKind
from hopgate.resources.conflicts import Claim, ConflictCode
from hopgate.resources.reference import ObjectReference

# What the API server does between asking and writing: other webhooks, 30 s each at most, one after another by their kind alone.
HELD_SECONDS: Final = 30.0

Wanted = tuple[ConflictCode, tuple[str, ...]]

# Which kinds can claim it, and whether only those of the claiming object's namespace can.
_CLAIMANTS: Final[Mapping[ConflictCode, tuple[tuple[WatchedKind, ...], bool]]] = {
    ConflictCode.DUPLICATE_SERVICE_ACCOUNT: ((api.AGENTS,), True),
    ConflictCode.DUPLICATE_SERVICE: ((api.AGENTS, api.TOOL_SERVERS), True),
    ConflictCode.DUPLICATE_HOST: ((api.TOOL_SERVERS, api.MODEL_PROVIDERS), False),
    ConflictCode.DUPLICATE_ADDRESS: ((api.TOOL_SERVERS, api.MODEL_PROVIDERS), False),
    ConflictCode.DUPLICATE_ISSUER: ((api.IDENTITY_PROVIDERS,), False),
}


@dataclass(frozen=True, slots=True)
class _Held:
    owner: ObjectReference
    until: float


class NewClaims:
    """Used by many threads at a time. `clock` is monotonic, in seconds."""

    def __init__(self, source: Source, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[Wanted, _Held] = {}

    def hold(self, own: ObjectReference, claims: Iterable[Claim]) -> Claim | None:
        """Hold these for `own`, and nothing else; or the first that another object holds, and then nothing is held."""
        now = self._clock()
        claims = tuple(claims)
        with self._lock:
            self._held = {wanted: held for wanted, held in self._held.items() if held.owner != own and held.until > now}
            for claim in claims:
                if (claim.code, claim.wanted) in self._held:
                    return claim
            self._held.update({(claim.code, claim.wanted): _Held(own, now + HELD_SECONDS) for claim in claims})
        return None

    def owners(self, own: ObjectReference, claims: Sequence[Claim]) -> Mapping[Wanted, ObjectReference]:
        """Which other objects claim these by the API server's own account, asked now. Raises ClientError."""
        wanted = {(claim.code, claim.wanted) for claim in claims}
        found: dict[Wanted, ObjectReference] = {}
        for kind in {
            _within(kind, own) if inside else kind for code, _ in wanted for kinds, inside in [_CLAIMANTS[code]] for kind in kinds
        }:
            for manifest in self._source.list(kind).items:
                each = objects.read(manifest)
                if each is not None and each.reference != own:
                    found.update(
                        {(claim.code, claim.wanted): each.reference for claim in each.claims if (claim.code, claim.wanted) in wanted}
                    )
        return found


def _within(kind: WatchedKind, own: ObjectReference) -> WatchedKind:
    return replace(kind, namespace=own.namespace)
