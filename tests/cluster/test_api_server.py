"""What the other tests of this folder take for granted of the API server that they run on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import kubernetes.client
import pytest
from kubernetes.client import (
    ApiException,
    CoreV1Api,
    RbacAuthorizationV1Api,
    RbacV1Subject,
    V1ConfigMap,
    V1ObjectMeta,
    V1PolicyRule,
    V1Role,
    V1RoleBinding,
    V1RoleRef,
)

from tests.cluster.api_server import ApiServer, ClusterError


def _let_read(server: ApiServer, namespace: str, user: str) -> None:
    """Let `user` read the ConfigMaps of `namespace`."""
    api, metadata = RbacAuthorizationV1Api(server.client()), V1ObjectMeta(name="reader")
    rule = V1PolicyRule(api_groups=[""], resources=["configmaps"], verbs=["list"])
    api.create_namespaced_role(namespace, V1Role(metadata=metadata, rules=[rule]))
    reference = V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name="reader")
    subjects = [RbacV1Subject(api_group="rbac.authorization.k8s.io", kind="User", name=user)]
    api.create_namespaced_role_binding(namespace, V1RoleBinding(metadata=metadata, role_ref=reference, subjects=subjects))


def test_it_is_the_version_that_go_mod_names(api_server: ApiServer) -> None:
    version = kubernetes.client.VersionApi(api_server.client()).get_code()
    assert version.git_version in (Path(__file__).parent / "go.mod").read_text()


def test_a_user_may_do_what_rbac_grants_and_nothing_else(api_server: ApiServer) -> None:
    mine, other = api_server.namespace(), api_server.namespace()
    user = api_server.user("someone@example.com")
    _let_read(api_server, mine, user.name)
    core = CoreV1Api(api_server.client(user))
    assert core.list_namespaced_config_map(mine).items == []
    with pytest.raises(ApiException) as refused:
        core.list_namespaced_config_map(other)
    assert refused.value.status == 403
    with pytest.raises(ClusterError, match="Forbidden"):
        api_server.kubectl("get", "configmaps", "-n", other, user=user)


def test_a_killed_server_comes_back_with_its_objects(own_api_server: ApiServer) -> None:
    namespace = own_api_server.namespace()
    core = CoreV1Api(own_api_server.client())
    core.create_namespaced_config_map(namespace, V1ConfigMap(metadata=V1ObjectMeta(name="kept"), data={"a": "1"}))
    first = own_api_server.pid
    own_api_server.kill()
    with pytest.raises(ClusterError, match="refused"):
        own_api_server.kubectl("get", "configmaps", "-n", namespace)
    own_api_server.start()
    assert own_api_server.pid != first
    assert core.read_namespaced_config_map("kept", namespace).data == {"a": "1"}


def test_nothing_stays(cluster_binaries: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    with ApiServer(cluster_binaries, folder) as server:
        assert _processes_of(folder)
        assert server.kubectl("get", "namespaces")
    assert not folder.exists()
    assert not _processes_of(folder)


def test_what_does_not_start_says_why(cluster_binaries: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    with pytest.raises(ClusterError, match="unknown flag: --no-such-flag"), ApiServer(cluster_binaries, folder, flags=("--no-such-flag",)):
        pass
    assert not _processes_of(folder)


def _processes_of(folder: Path) -> str:
    return subprocess.run(("pgrep", "-f", str(folder)), capture_output=True, text=True, check=False).stdout
