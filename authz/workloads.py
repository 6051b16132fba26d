"""Who is behind a check: from the credential that its gate presented to an agent, or to the reason why it is nobody's.

One small protocol, two ways: on one machine the credentials that the gate handed out (`HeldCredentials`, here), in a cluster the tokens
of service accounts (`authz.workloads_cluster`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from authz.state import State, credential_sha256
from hopgate.identity import names
from hopgate.identity.names import ObjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a credential is nobody's: a stable code, and a sentence that may be shown to the caller."""

    code: str
    message: str


class Workloads(Protocol):
    """Knows the workload behind a credential."""

    def identify(self, credential: str | None, now: int, /) -> ObjectName | Refusal:
        """The agent whose credential this is (None: none was presented). `now` is in Unix seconds. Does no I/O and raises nothing."""


NO_CREDENTIAL: Final = Refusal(code="CredentialMissing", message="the caller's gate presented no workload credential")
UNKNOWN_CREDENTIAL: Final = Refusal(code="CredentialUnknown", message="the caller presented no valid workload credential")


class HeldCredentials:
    """One machine: the agents by the hash of the credential that their gate holds."""

    def __init__(self, state: State) -> None:
        self._agents = {item.credential_sha256: names.parse(item.agent) for item in state.workloads}

    def identify(self, credential: str | None, _: int, /) -> ObjectName | Refusal:
        """The agent whose credential this is. Only hashes are compared, so timing tells nothing of use."""
        if credential is None:
            return NO_CREDENTIAL
        return self._agents.get(credential_sha256(credential), UNKNOWN_CREDENTIAL)
