"""The process of the webhooks: `python -m hopgate.cluster webhooks`.

It watches what is in force, answers the API server's questions about resources and pods, records what was accepted, and keeps the
certificates that it serves with. Each of several processes does all of it: what they write is written only as the version that was read.
What it serves with it puts into files of its own, as it read it from the Secret: a mounted Secret would come a minute later.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hopgate.audit.spool import Durability, Spool, new_writer
from hopgate.identity.names import ObjectName
from hopgate.kubernetes import injection, validation
from hopgate.kubernetes import webhook_configurations as configurations
from hopgate.kubernetes.access import Rights
from hopgate.kubernetes.api import ClientError
from hopgate.kubernetes.authz_service import AuthzService
from hopgate.kubernetes.certificate_keeper import CertificateKeeper
from hopgate.kubernetes.certificates import Pair
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.injection_settings import NamespaceFacts
from hopgate.kubernetes.injection_settings import Settings as InjectionSettings
from hopgate.kubernetes.new_claims import NewClaims
from hopgate.kubernetes.pod_reviewer import PodReviewer
from hopgate.kubernetes.reviewers import Validator
from hopgate.kubernetes.snapshots import Built
from hopgate.kubernetes.watcher import SnapshotWatcher
from hopgate.kubernetes.webhook_server import CertificateFiles, Reviewer, WebhookServer
from hopgate.resources.kinds import Provider
from hopgate.tls_files import TlsFilesError
from tokenmint import authority

# Often enough for a certificate of days, seldom enough to go unnoticed; soon again after a refusal.
KEEP_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Injecting:
    """How pods are injected: `settings` with the addresses that authz's Service has at that moment."""

    settings: InjectionSettings
    authz: ObjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the process is run. `name` is that of the webhook configurations, of the Secret in `namespace` that has the certificates, and of
    the ClusterRole that owns it.

    `certificates` is a folder of this process's own, best in memory, for `tls.crt` and `tls.key`; `server_names` is what the API server
    calls this process. Without `injecting` no pod is asked about.
    """

    namespace: str
    name: str
    host: str
    port: int
    server_names: frozenset[str]
    certificates: Path
    spool: Path
    injecting: Injecting | None


class Injector:
    """`pod_reviewer.Injection`, for a cluster whose authz may move. `authz_seen` says whether its Service was ever found."""

    def __init__(self, client: Client, injecting: Injecting) -> None:
        self._settings = injecting.settings
        self._service = AuthzService(client, injecting.authz)
        self.authz_seen = False

    def __call__(self, pod: Mapping[str, Any], *, namespace: NamespaceFacts, may_opt_out: bool) -> injection.Outcome:
        """What is to be done with a pod. Raises ClientError where authz has no address."""
        return injection.inject(pod, namespace=namespace, settings=self.look(), may_opt_out=may_opt_out)

    def look(self) -> InjectionSettings:
        """The settings as they are now. Raises ClientError."""
        found = dataclasses.replace(self._settings, authz_addresses=self._service.addresses())
        self.authz_seen = True
        return found


class WebhookProcess:
    """One process. `run` until told to `end`. Raises AuditError for a spool that can't be used."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings = settings
        self._ending = asyncio.Event()
        self._built: Built | None = None
        self._world: validation.World | None = None
        self._written: Pair | None = None
        self._spool = Spool(settings.spool, new_writer("webhooks"), clock=time.time, durability=Durability.WRITE)
        self._watcher = SnapshotWatcher(client, self._on_built)
        self._keeper = CertificateKeeper(
            client,
            authority,
            namespace=settings.namespace,
            secret=settings.name,
            names=settings.server_names,
            configurations=[("validatingwebhookconfigurations", settings.name), ("mutatingwebhookconfigurations", settings.name)],
            clock=lambda: int(time.time()),
            owner=settings.name,
        )
        rights = Rights(client)
        self._reviewers: dict[str, Reviewer] = {
            configurations.VALIDATE_PATH: Validator(
                source=client,
                calls=client,
                claims=NewClaims(client, time.monotonic),
                world=lambda: self._world,
                may=rights,
                record=self._spool.append,
                time_us=_now_us,
            )
        }
        self._injector = None if settings.injecting is None else Injector(client, settings.injecting)
        if self._injector is not None:
            self._reviewers[configurations.INJECT_PATH] = PodReviewer(
                calls=client,
                inject=self._injector,
                may=rights,
                providers=self._providers,
                record=self._spool.append,
                time_us=_now_us,
            )

    @property
    def ready(self) -> bool:
        """Whether questions should be led here: what is in force is known, and authz's Service has been seen.

        A Service that goes after that makes nobody unready: pods are refused with the reason, and changes are judged all the same.
        """
        found = self._injector is None or self._injector.authz_seen
        return self._world is not None and found and not self._ending.is_set()

    def end(self) -> None:
        """Let `run` end in an orderly way."""
        self._ending.set()

    async def run(self) -> None:
        """Serve until `end`. The API server's absence breaks nothing."""
        self._watcher.start()
        tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._await_authz())]
        try:
            files = await self._files()
            if files is None:
                return
            settings = self._settings
            async with WebhookServer(files, self._reviewers, ready=lambda: self.ready, host=settings.host, port=settings.port) as server:
                _log.info("webhooks are answered at port %d", server.port)
                await self._ending.wait()
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(self._watcher.stop)
            self._spool.close()

    async def _keep(self) -> None:
        # Often at first: an installer may make the configurations, which need the CA, after this process.
        pause = RETRY_SECONDS
        while True:
            try:
                await asyncio.to_thread(self._keep_certificate)
                pause = min(pause * 2, KEEP_SECONDS)
            except (ClientError, OSError) as error:
                _log.warning("the certificates could not be looked after: %s", error)
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)

    def _keep_certificate(self) -> None:
        """Raises ClientError, OSError."""
        self._keeper.step()
        serving = self._keeper.serving
        if serving is None or serving == self._written:
            return
        folder = self._settings.certificates
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One after the other: servers take a pair only once both fit together.
        for name, content in (("tls.key", serving[1].reveal()), ("tls.crt", serving[0])):
            new = folder / f".{name}"
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
            new.replace(folder / name)
        self._written = serving

    async def _await_authz(self) -> None:
        """Look for authz's Service until it was seen once."""
        while self._injector is not None and not self._injector.authz_seen:
            try:
                await asyncio.to_thread(self._injector.look)
            except ClientError as error:
                _log.warning("no pod can be injected yet: %s (%s)", error, error.code)
                await asyncio.sleep(RETRY_SECONDS)

    async def _files(self) -> CertificateFiles | None:
        """The certificate, once it is there; None when told to end before."""
        folder = self._settings.certificates
        while not self._ending.is_set():
            try:
                return CertificateFiles(folder / "tls.crt", folder / "tls.key")
            except (TlsFilesError, OSError, ssl.SSLError):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_SECONDS):
                        await self._ending.wait()
        return None

    def _on_built(self, built: Built) -> None:
        """Called in the watch's thread; each value is swapped as one reference."""
        self._built = built
        self._world = validation.world_of(built)

    def _providers(self, _: str) -> frozenset[Provider]:
        """Whose SDKs need a placeholder key: any namespace's agents may be permitted any provider."""
        built = self._built
        return frozenset() if built is None else built.snapshot.registry.providers()


def _now_us() -> int:
    return time.time_ns() // 1000
