"""An installation's authorities on a real API server, for tests: the real keeper with the chart's rights, and a clock."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from hopgate.kubernetes.api import RefusedError
from hopgate.kubernetes.authority_keeper import AuthorityKeeper
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.sidecar import AUTHORITIES_CONFIG_MAP
from tests.cluster import helm as helms
from tests.cluster.api_server import ApiServer
from tokenmint import authority

SYSTEM = "hopgate"
RELEASE = "hopgate"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:{RELEASE}-controller"
OWNER = f"{RELEASE}-authz"


class Installation:
    """hopgate's namespace with the chart's rights, and the keeper as the controller runs it."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.now = int(time.time())
        server.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}))
        # Secrets that a `credential` names are another matter: they may be read where no test looks.
        manifests = helms.of_this_machine().manifests({"secretNamespaces": ["kube-public"]}, release=RELEASE, namespace=SYSTEM)
        server.kubectl("apply", "-f", "-", stdin=helms.as_list(helms.rights(manifests)))
        self.user = server.user(ACCOUNT)
        self.client = Client.connect(self.user.kubeconfig)
        self.keeper = self.new_keeper()

    def new_keeper(self) -> AuthorityKeeper:
        return AuthorityKeeper(self.client, authority, namespace=SYSTEM, name=RELEASE, clock=lambda: self.now)

    def secret(self, suffix: str) -> dict[str, bytes]:
        found = json.loads(self.server.kubectl("get", "secret", f"{RELEASE}-{suffix}", "-n", SYSTEM, "-o", "json"))
        return {key: base64.b64decode(value) for key, value in found["data"].items()}

    def config_map(self, namespace: str) -> dict[str, Any]:
        """Empty where there is none."""
        found = self.server.kubectl("get", "configmap", AUTHORITIES_CONFIG_MAP, "-n", namespace, "-o", "json", "--ignore-not-found")
        return dict(json.loads(found)) if found else {}

    def governed(self) -> str:
        return self.server.namespace({"hopgate.dev/inject": "enabled"})

    def refused(self, keeper: AuthorityKeeper | None = None) -> int:
        """The status with which a step was refused; 0 for one that was not."""
        try:
            (keeper or self.keeper).step()
        except RefusedError as error:
            return error.status
        return 0
