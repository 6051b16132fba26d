"""hopgate's webhooks on loopback, for tests: certificates by the real keeper, the real server, registered by URL."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hopgate.audit.records import Change
from hopgate.kubernetes import certificates, injection, validation, webhook_configurations
from hopgate.kubernetes.access import Rights
from hopgate.kubernetes.certificate_keeper import CertificateKeeper
from hopgate.kubernetes.certificates import Kept
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.new_claims import NewClaims
from hopgate.kubernetes.pod_reviewer import PodReviewer
from hopgate.kubernetes.reviewers import Validator
from hopgate.kubernetes.webhook_server import CertificateFiles, Reviewer, WebhookServer
from tests.cluster.api_server import ApiServer, ClusterError, User, eventually
from tests.cluster.watching import watching
from tests.hopgate.kubernetes.injection.pods import SETTINGS
from tokenmint import authority

NAME = "hopgate-test"
SECRET = "hopgate-webhooks"
VALIDATING = ("validatingwebhookconfigurations", NAME)
MUTATING = ("mutatingwebhookconfigurations", NAME)
ADMISSION = "/apis/admissionregistration.k8s.io/v1"


class Serving:
    """A server of webhooks in a thread of its own, until it is stopped."""

    def __init__(self, files: CertificateFiles, reviewers: Mapping[str, Reviewer], port: int = 0) -> None:
        self._files, self._reviewers, self._port = files, reviewers, port
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._started.wait(30)

    async def _serve(self) -> None:
        server = WebhookServer(self._files, self._reviewers, ready=lambda: True, host="127.0.0.1", port=self._port)
        async with server:
            self.port = server.port
            self._started.set()
            await self._stop.wait()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(30)
        assert not self._thread.is_alive()
        if not self._loop.is_closed():
            self._loop.close()


class Certificates:
    """The keeper, the files that a mounted Secret would be, and a clock to turn."""

    def __init__(self, server: ApiServer, client: Client, namespace: str, folder: Path) -> None:
        self.client = client
        self.now = int(time.time())
        self._folder = folder
        self._namespace = namespace
        self._server = server
        folder.mkdir()
        self.keeper = CertificateKeeper(
            client,
            authority,
            namespace=namespace,
            secret=SECRET,
            names=frozenset({"127.0.0.1"}),
            configurations=[VALIDATING, MUTATING],
            clock=lambda: self.now,
        )
        self.kept = self.step()
        self.files = CertificateFiles(folder / "tls.crt", folder / "tls.key")

    def age(self, seconds: int, end_calls: Callable[[], None]) -> Kept:
        """As if all this had begun so long ago: an authority of then, trusted beside the one in use before it serves.

        `end_calls` waits until no call is under way that began when it was not trusted yet.
        """
        then = self.now - seconds
        aged = authority.create_root(then)
        path = f"/api/v1/namespaces/{self._namespace}/secrets/{SECRET}"
        secret = self.client.call("GET", path)
        trusting = replace(self.kept, trusted=(aged[0], *self.kept.trusted))
        self.client.call("PUT", path, {**secret, "data": certificates.write(trusting)})
        self.step()
        self.await_in_force()
        end_calls()
        serving = authority.issue_serving(aged, ["127.0.0.1"], self.now - 86_400, certificates.LEAF_LIFE_SECONDS)
        old = Kept(authority=aged, serving=serving, trusted=(aged[0],))
        self.client.call("PUT", path, {**self.client.call("GET", path), "data": certificates.write(old)})
        self._mount(old)
        return old

    def step(self) -> Kept:
        kept = self.keeper.step()
        assert kept is not None
        self._mount(kept)
        self.kept = kept
        return kept

    def await_in_force(self) -> None:
        """Wait until the API server goes by the configuration as it is now.

        It does once it goes by a later one, which has a webhook that nobody serves.
        """
        path = f"{ADMISSION}/{VALIDATING[0]}/{VALIDATING[1]}"
        marker: dict[str, Any] = {
            "name": "marker.hopgate.dev",
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
        }
        before = len(self.client.call("GET", path)["webhooks"])
        patched: list[Mapping[str, Any]] = [{"op": "add", "path": "/webhooks/-", "value": marker}]
        self.client.call("PATCH", path, patched, content_type="application/json-patch+json")
        eventually(lambda: marker["name"] in self._make_nothing(), "the API server goes by the configuration")
        removed: list[Mapping[str, Any]] = [{"op": "remove", "path": f"/webhooks/{before}"}]
        self.client.call("PATCH", path, removed, content_type="application/json-patch+json")

    def _make_nothing(self) -> str:
        try:
            return self._server.kubectl("create", "configmap", "nothing", "-n", self._namespace, "--dry-run=server")
        except ClusterError as error:
            return str(error)

    def _mount(self, kept: Kept) -> None:
        for name, content in (("tls.crt", kept.handed[0]), ("tls.key", kept.handed[1].reveal())):
            new = self._folder / f".{name}"
            new.write_bytes(content)
            new.rename(self._folder / name)


class Webhooks:
    """The validating webhook, registered; `changes` are the records that it made."""

    def __init__(self, server: ApiServer, client: Client, kept: Certificates, world: Callable[[], validation.World | None]) -> None:
        self.server, self.client, self.certificates = server, client, kept
        self.changes: list[Change] = []
        self.validator = Validator(
            source=client,
            calls=client,
            claims=NewClaims(client, time.monotonic),
            world=world,
            may=Rights(client),
            record=self.changes.append,
            time_us=lambda: time.time_ns() // 1000,
        )
        pods = PodReviewer(
            calls=client,
            inject=functools.partial(injection.inject, settings=SETTINGS),
            may=Rights(client),
            providers=lambda _: frozenset(),
            record=self.changes.append,
            time_us=lambda: time.time_ns() // 1000,
        )
        self.reviewers: dict[str, Reviewer] = {
            webhook_configurations.VALIDATE_PATH: self.validator,
            webhook_configurations.INJECT_PATH: pods,
        }
        self.serving = Serving(kept.files, self.reviewers)

    def restart(self) -> None:
        self.serving.stop()
        self.serving = Serving(self.certificates.files, self.reviewers, self.serving.port)

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.serving.port}{path}"

    def register(self) -> None:
        made = webhook_configurations.validating(NAME, {"url": self.url(webhook_configurations.VALIDATE_PATH)})
        self.client.call("POST", f"{ADMISSION}/{VALIDATING[0]}", made)
        pods = webhook_configurations.mutating(NAME, {"url": self.url(webhook_configurations.INJECT_PATH)}, "hopgate-system")
        self.client.call("POST", f"{ADMISSION}/{MUTATING[0]}", pods)
        self.certificates.step()
        eventually(self._asks, "the API server asks the webhook")

    def registered(self) -> Mapping[str, Any]:
        return self.client.call("GET", f"{ADMISSION}/{VALIDATING[0]}/{NAME}")

    def served(self) -> bytes:
        """The certificate that a new connection is shown, DER."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.serving.port), 10) as plain, context.wrap_socket(plain) as connection:
            return connection.getpeercert(binary_form=True) or b""

    def ca_bundle(self) -> bytes:
        return base64.b64decode(self.registered()["webhooks"][0]["clientConfig"]["caBundle"])

    def _asks(self) -> bool:
        """A policy that cannot be read is refused once the webhook is active."""
        refused = try_apply(self.server, "default", "Policy", "probe", {"cedar": "probe"}, dry_run=True)
        return "InvalidSyntax" in refused

    def close(self) -> None:
        for plural, name in (VALIDATING, MUTATING):
            self.client.call("DELETE", f"{ADMISSION}/{plural}/{name}")
        self.serving.stop()


def try_apply(
    server: ApiServer, namespace: str, kind: str, name: str, spec: Mapping[str, Any], *, dry_run: bool = False, user: User | None = None
) -> str:
    """Apply with kubectl; gives what it says of a refusal, nothing where it was accepted."""
    metadata = {"name": name} if kind in {"ClusterPolicy", "IdentityProvider", "ShadowAgent"} else {"name": name, "namespace": namespace}
    manifest = json.dumps({"apiVersion": "hopgate.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    try:
        server.kubectl("apply", *(["--dry-run=server"] if dry_run else []), "-f", "-", stdin=manifest, user=user)
    except ClusterError as error:
        return str(error)
    return ""


@contextmanager
def webhooks(server: ApiServer, folder: Path) -> Iterator[Webhooks]:
    namespace = server.namespace()
    with watching(server) as watched:
        watched.until(lambda _: True, "a first snapshot")
        client = Client.connect(server.admin.kubeconfig)
        running = Webhooks(server, client, Certificates(server, client, namespace, folder), lambda: validation.world_of(watched.built))
        try:
            running.register()
            yield running
        finally:
            running.close()
            client.close()
