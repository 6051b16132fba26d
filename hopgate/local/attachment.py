"""One governed agent at a gate: its workload credential, its Envoy, its namespace's rules, its resolver.

The namespace is known by a descriptor, never by a process id, so that what is plugged can't become another process's
namespace. The descriptor is this object's to close.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from authz import state as states
from authz.resolver import Resolver
from authz.state import Workload
from hopgate.identity.names import ObjectName
from hopgate.local import namespace
from hopgate.local.bootstrap import BootstrapSpec
from hopgate.local.control import AgentStatus
from hopgate.local.envoy_process import EnvoyProcess
from hopgate.resources.kinds import Agent, DialAddress
from hopgate.resources.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentSpec:
    """What is attached. `namespace` is a descriptor of its network namespace; `listen` the port of an agent that others may reach."""

    agent: ObjectName
    namespace: int
    pid: int
    listen: int | None
    command: tuple[str, ...]
    user: int
    allow_sockets: tuple[str, ...]
    binds: tuple[str, ...]
    kept_variables: tuple[str, ...]


RecordName = Callable[[ObjectName, str, str, str, str], None]


class Attachment:
    """An agent that is plugged in from `start` to `stop`. `inbound` is where its inbound gate listens, once started."""

    def __init__(
        self, spec: AttachmentSpec, *, run_folder: Path, sockets: ControlSockets, envoy: Path, registry: Registry, record: RecordName
    ) -> None:
        self.id = secrets.token_hex(8)
        self.spec = spec
        self.inbound: DialAddress | None = None
        self._credential = secrets.token_urlsafe(32)
        self._since = int(time.time())
        self._sockets = sockets
        self._registry = registry
        self._folder = run_folder / f"agent-{self.id}"
        self._resolver = Resolver(lambda: self._registry, agent=spec.agent, record=record)
        self._envoy = EnvoyProcess(envoy, self._folder, pass_descriptors=(spec.namespace,))
        self._private = _private_authorities(registry)

    def workload(self) -> Workload:
        """By what authz knows this agent's checks."""
        return Workload(credential_sha256=states.credential_sha256(self._credential), agent=str(self.spec.agent))

    async def start(self) -> None:
        """Rules, resolver and Envoy; nothing of the agent may run before this returns. Raises LocalError."""
        self._folder.mkdir(mode=0o700)
        sockets, _ = await asyncio.gather(asyncio.to_thread(self._plug), self._envoy.start(self._bootstrap()))
        await self._resolver.start(sockets)
        if self.spec.listen is not None:
            self.inbound = await self._envoy.listening_at("inbound")

    def _plug(self) -> namespace.Sockets:
        namespace.plug(self.spec.namespace)
        return namespace.open_sockets_in(self.spec.namespace)

    def _bootstrap(self) -> bytes:
        return bootstrap.build(
            BootstrapSpec(
                agent=str(self.spec.agent),
                workload_token=self._credential,
                namespace=f"/proc/self/fd/{self.spec.namespace}",
                authz_socket=self._sockets.authz,
                certificates_socket=self._sockets.certificates,
                admin_socket=self._folder / "admin.sock",
                trusted_ca=environment.system_bundle(),
                app_port=self.spec.listen,
                inbound_port=self.inbound.port if self.inbound is not None else 0,
                private_authorities=self._private,
            )
        )
