"""What the tests of the watch need: objects applied fast, and a watcher whose snapshots can be waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import kubernetes.client
from kubernetes.client import ApiClient, ApiException

from hopgate.kubernetes.client import Client
from hopgate.kubernetes.snapshots import Built
from hopgate.kubernetes.watcher import KINDS, SnapshotWatcher
from tests.cluster.api_server import ApiServer, User

GROUP, VERSION = "hopgate.dev", "v1alpha1"
PLURALS = {kind.kind: kind.plural for kind in KINDS}


class Objects:
    """Custom resources and Secrets of one namespace, and of the cluster."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self.core = kubernetes.client.CoreV1Api(client)
        self._custom = kubernetes.client.CustomObjectsApi(client)

    def make(self, kind: str, name: str, spec: dict[str, Any]) -> Any:
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}
        if kind in {"ClusterPolicy", "IdentityProvider", "ShadowAgent"}:
            return self._custom.create_cluster_custom_object(GROUP, VERSION, PLURALS[kind], body)
        return self._custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], body)

    def edit(self, kind: str, name: str, spec: dict[str, Any]) -> Any:
        return self._custom.patch_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], name, {"spec": spec})

    def set_status(self, kind: str, name: str, status: dict[str, Any]) -> Any:
        return self._custom.patch_namespaced_custom_object_status(GROUP, VERSION, self.namespace, PLURALS[kind], name, {"status": status})

    def delete(self, kind: str, name: str) -> None:
        if kind in {"ClusterPolicy", "IdentityProvider", "ShadowAgent"}:
            self._custom.delete_cluster_custom_object(GROUP, VERSION, PLURALS[kind], name)
        else:
            self._custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], name)

    def delete_all(self, kind: str) -> None:
        self._custom.delete_collection_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind])

    def secret(self, name: str, values: dict[str, str]) -> None:
        body: Any = {"metadata": {"name": name}, "stringData": values}
        try:
            self.core.create_namespaced_secret(self.namespace, body)
        except ApiException as error:
            if error.status != 409:
                raise
            self.core.patch_namespaced_secret(name, self.namespace, body)

    def service(self, name: str, **spec: Any) -> Any:
        body: Any = {"metadata": {"name": name}, "spec": {"ports": [{"port": 8080}], **spec}}
        return self.core.create_namespaced_service(self.namespace, body)


class Watching:
    """A watcher that runs, and every snapshot that it handed over."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._changed = threading.Condition()
        self._all: list[Built] = []
        self.watcher = SnapshotWatcher(client, self._keep)

    def _keep(self, built: Built) -> None:
        with self._changed:
            self._all.append(built)
            self._changed.notify_all()

    @property
    def built(self) -> Built:
        with self._changed:
            return self._all[-1]

    def count(self) -> int:
        with self._changed:
            return len(self._all)

    def until(self, condition: Callable[[Built], object], what: str, seconds: float = 30.0) -> Built:
        """The first snapshot, of those after now or the last one, of which the condition holds."""
        end = time.monotonic() + seconds
        with self._changed:
            while not (self._all and condition(self._all[-1])):
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    problems = [str(problem) for problem in self._all[-1].problems] if self._all else []
                    raise TimeoutError(f"waited {seconds:g} s until {what}; state {self.watcher.state()}; problems {problems}")
            return self._all[-1]


@contextmanager
def watching(server: ApiServer, user: User | None = None) -> Iterator[Watching]:
    client = Client.connect((user or server.admin).kubeconfig)
    found = Watching(client)
    try:
        with found.watcher:
            yield found
    finally:
        client.close()
