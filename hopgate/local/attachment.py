"""One governed agent at a gate: its workload credential, its Envoy, its namespace's rules, its resolver.

The namespace is known by a descriptor, never by a process id, so that what is plugged can't become another process's
namespace. The descriptor is this object's to close.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from authz import state as states
from authz.resolver import Resolver
from authz.state import Workload
from hopgate import kernel
from hopgate.identity.names import ObjectName
from hopgate.local import environment, namespace
from hopgate.local.cgroups import Cgroup
from hopgate.local.control import AgentStatus
from hopgate.local.envoy_process import EnvoyError, EnvoyProcess
from hopgate.local.errors import LocalError
from hopgate.local.folders import RunFolder
from hopgate.local.namespace import NamespaceError, ResolverSockets
from hopgate.proxy import bootstrap
from hopgate.proxy.bootstrap import BootstrapError, BootstrapSpec
from hopgate.resources.kinds import DialAddress
from hopgate.resources.private_authorities import private_authorities
from hopgate.resources.registry import Registry
from sensor.events import TCP, UDP
from sensor.state import GateListener, GovernedAgent


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentSpec:
    """What is attached. `namespace` is a descriptor of its network namespace; `listen` the port of an agent that others may reach.

    `cgroup_id` is 0 when the program has no cgroup of its own.
    """

    agent: ObjectName
    namespace: int
    pid: int
    listen: int | None
    command: tuple[str, ...]
    user: int
    allow_sockets: tuple[str, ...]
    binds: tuple[str, ...]
    kept_variables: tuple[str, ...]
    cgroup_id: int


class ConfigurationError(LocalError):
    """Envoy can't be configured for this agent."""

    code = BootstrapError.code


class TrustError(LocalError):
    """There is nothing to verify an upstream's certificate with."""

    code = "NoTrustedCa"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an attachment has of its gate. `record_name` takes agent, name, type, answer and transport, and may raise AuditError.

    `cgroup` is that of the gate's Envoys, `own_cgroup_id` that of the gate's process; None and 0 where there is none.
    """

    run: RunFolder
    envoy: Path
    cgroup: Cgroup | None
    own_cgroup_id: int
    record_name: Callable[[ObjectName, str, str, str, str], None]
    say: Callable[[str], None]


class Attachment:
    """An agent that is plugged in from `start` to `stop`. `inbound` is where its inbound gate listens, once started."""

    def __init__(self, spec: AttachmentSpec, surroundings: Surroundings, registry: Registry) -> None:
        self.spec = spec
        self.inbound: DialAddress | None = None
        self._surroundings = surroundings
        self._registry = registry
        self._credential = secrets.token_urlsafe(32)
        self._since = int(time.time())
        self._folder = surroundings.run.path / f"agent-{secrets.token_hex(8)}"
        self._private = private_authorities(registry)
        self._resolver = Resolver(lambda: self._registry, agent=spec.agent, record=surroundings.record_name)
        self._envoy = EnvoyProcess(
            surroundings.envoy, self._folder, pass_descriptors=(spec.namespace,), say=surroundings.say, cgroup=surroundings.cgroup
        )
        self._restarting: asyncio.Task[None] | None = None

    def workload(self) -> Workload:
        """By what authz knows this agent's checks."""
        return Workload(credential_sha256=states.credential_sha256(self._credential), agent=str(self.spec.agent))

    def governed(self) -> GovernedAgent:
        """By what the sensor knows this agent's connections, and where its gate listens. Raises OSError."""
        return GovernedAgent(
            agent=str(self.spec.agent),
            cgroup_id=self.spec.cgroup_id,
            netns_cookie=kernel.within(self.spec.namespace, kernel.netns_cookie),
            listeners=self._listeners(),
        )

    def _listeners(self) -> tuple[GateListener, ...]:
        envoy = 0 if self._surroundings.cgroup is None else self._surroundings.cgroup.id
        own = self._surroundings.own_cgroup_id
        ports = ((TCP, namespace.PROXY_PORT, envoy), (TCP, namespace.DNS_PORT, own), (UDP, namespace.DNS_PORT, own))
        return tuple(
            GateListener(protocol=protocol, ip=ip, port=port, cgroup_id=cgroup_id)
            for protocol, port, cgroup_id in ports
            for ip in ("127.0.0.1", "::1")
        )

    @property
    def envoy_pid(self) -> int | None:
        """The process id of its Envoy, None while there is none."""
        return self._envoy.pid

    async def start(self) -> None:
        """Rules, resolver and Envoy; nothing of the agent may run before this returns. Raises LocalError."""
        self._folder.mkdir(mode=0o700)
        plugging = asyncio.create_task(asyncio.to_thread(self._plug))
        try:
            await self._envoy.start(self._bootstrap())
        finally:
            sockets = await plugging
        await self._resolver.start(sockets)
        if self.spec.listen is not None:
            self.inbound = await self._envoy.listening_at("inbound")
            self._envoy.use(self._bootstrap())  # an Envoy that ends and comes back keeps the port that others were told

    async def stop(self) -> None:
        """End Envoy and the resolver, let go of the namespace and take away the folder."""
        if self._restarting is not None:
            self._restarting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restarting
        await self._envoy.stop()
        await self._resolver.stop()
        os.close(self.spec.namespace)
        shutil.rmtree(self._folder, ignore_errors=True)  # the bootstrap in it holds the workload credential

    def registry_changed(self, registry: Registry) -> None:
        """Use `registry` from now on. A change in whose CA is trusted for what needs another bootstrap, hence another Envoy."""
        self._registry = registry
        private = private_authorities(registry)
        if private != self._private:
            self._private = private
            self._restarting = asyncio.create_task(self._restart())

    async def _restart(self) -> None:
        try:
            await self._envoy.restart(self._bootstrap())
        except EnvoyError as error:
            self._surroundings.say(f"the Envoy of {self.spec.agent} can't use the new CA bundles, its agent has no way out: {error}")

    def status(self) -> AgentStatus:
        """How this agent is, for a person."""
        try:
            refused = namespace.read_refused(self.spec.namespace)
        except NamespaceError:
            refused = 0
        return AgentStatus(
            agent=str(self.spec.agent),
            pid=self.spec.pid,
            since=self._since,
            inbound=None if self.inbound is None else str(self.inbound),
            envoy_restarts=self._envoy.restarts,
            refused_packets=refused,
            cgroup_id=self.spec.cgroup_id,
            listeners=self._listeners(),
        )

    def name_counters(self) -> dict[str, int]:
        """What the resolver has counted."""
        return dict(self._resolver.counters)

    def _plug(self) -> ResolverSockets:
        namespace.plug(self.spec.namespace)
        return namespace.open_sockets_in(self.spec.namespace)

    def _bootstrap(self) -> bytes:
        spec = BootstrapSpec(
            agent=str(self.spec.agent),
            workload_token=self._credential,
            namespace=f"/proc/self/fd/{self.spec.namespace}",
            authz_socket=self._surroundings.run.authz,
            certificates_socket=self._surroundings.run.certificates,
            admin_socket=self._envoy.admin_socket,
            trusted_ca=_trusted_ca(),
            app_port=self.spec.listen,
            inbound_port=self.inbound.port if self.inbound is not None else 0,
            private_authorities=self._private,
        )
        try:
            return bootstrap.build(spec)
        except BootstrapError as error:
            raise ConfigurationError(str(error), remedy=error.remedy) from error


def _trusted_ca() -> Path:
    """The file of this machine's trusted CAs. Raises TrustError when there is none: nothing could be verified then."""
    for path in environment.SYSTEM_BUNDLES:
        if path.is_file():
            return path
    raise TrustError("expected a file of trusted CAs on this machine, found none", remedy="apt-get install ca-certificates")
