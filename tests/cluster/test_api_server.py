"""What the other tests of this folder take for granted of the API server that they run on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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

from tests.cluster import api_server as api_servers
from tests.cluster.api_server import ApiServer, ClusterError, eventually


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


_HOLDS_A_SERVER = """
import pathlib, signal, sys
from tests.cluster.api_server import ApiServer
with ApiServer(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])):
    print("ready", flush=True)
    signal.pause()
"""


def test_no_process_stays_of_a_run_that_was_killed(cluster_binaries: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    command = (sys.executable, "-c", _HOLDS_A_SERVER, str(cluster_binaries), str(folder))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        run.kill()
    eventually(lambda: not _processes_of(folder), "nothing of it runs")


@pytest.mark.parametrize("missing", [None, "etcd"], ids=["all there", "one missing"])
def test_the_build_takes_what_kubebuilder_assets_names(tmp_path: Path, missing: str | None) -> None:
    for program in {*api_servers.PROGRAMS} - {missing}:
        (tmp_path / program).touch(mode=0o755)
    done = _build({"KUBEBUILDER_ASSETS": str(tmp_path)})

    assert (done.returncode, done.stdout) == ((0, f"{tmp_path}\n") if missing is None else (1, ""))
    assert ("no program etcd" in done.stderr) == (missing is not None)


def test_the_build_without_go_says_what_is_missing(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "awk"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    done = _build({"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)})

    assert done.returncode == 1
    assert "needs Go" in done.stderr


def test_the_build_gives_the_folder_that_the_tests_look_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    built = tmp_path / "hopgate" / "kubernetes-1.37.2"
    built.mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert api_servers.find_binaries() is None
    (built / ".complete").touch()

    assert api_servers.find_binaries() == built
    assert _build({"XDG_CACHE_HOME": str(tmp_path)}).stdout == f"{built}\n"


def _build(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `build.sh`, where it has nothing to build."""
    command = (shutil.which("bash") or "bash", str(Path(__file__).parent / "build.sh"))
    given = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)


def test_what_does_not_start_says_why(cluster_binaries: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    with pytest.raises(ClusterError, match="unknown flag: --no-such-flag"), ApiServer(cluster_binaries, folder, flags=("--no-such-flag",)):
        pass
    assert not _processes_of(folder)


def _processes_of(folder: Path) -> str:
    return subprocess.run(("pgrep", "-f", str(folder)), capture_output=True, text=True, check=False).stdout
