"""Which programs of this machine are known: the agents of the gates that run, and the gates themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from hopgate import kernel
from hopgate.local import control, folders
from hopgate.local.control import AgentStatus, Client, ControlError, Status, StatusRequest
from sensor.verdict import Governance, Governed

_ANSWER_SECONDS: Final = 1.0


def governance(data: Path, parents_of: Callable[[], Mapping[int, int]]) -> Governance:
    """All agents of the gates of a data folder; nobody where no gate runs, or it may not be asked. `parents_of` gives each process's."""
    found = statuses(data)
    if not found:
        return Governance()
    parents = parents_of()
    return Governance(
        agents=tuple(governed for status in found for agent in status.agents if (governed := _governed(agent)) is not None),
        gate_processes=frozenset(process for status in found for process in _family(status, parents)),
    )


def statuses(data: Path) -> list[Status]:
    """How each gate of a data folder is; those that don't answer are left out."""
    return [status for path in folders.live(data) if (status := _ask(path)) is not None]


def _ask(path: Path) -> Status | None:
    try:
        client = Client(path, _ANSWER_SECONDS)
    except ControlError:
        return None
    try:
        answer = client.ask(StatusRequest())
    except ControlError:
        return None
    finally:
        client.close()
    return answer if isinstance(answer, control.Status) else None


def _governed(agent: AgentStatus) -> Governed | None:
    try:
        namespace = kernel.within(Path(f"/proc/{agent.pid}/ns/net"), kernel.netns_cookie)
    except OSError:
        return None
    return Governed(agent=agent.agent, namespaces=frozenset({namespace}))


def _family(status: Status, parents: Mapping[int, int]) -> set[int]:
    """A gate's process and all that descend from it, but for the agents: a gate may be the child of an agent's run, or its parent."""
    family, agents = {status.pid}, {agent.pid for agent in status.agents}
    while more := {child for child, parent in parents.items() if parent in family} - family - agents:
        family |= more
    return family
