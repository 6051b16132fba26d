"""The keeper of the authorities on a real API server, with the chart's rights and no others."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hopgate.kubernetes import authorities
from hopgate.kubernetes.certificates import CERT_MANAGER_SECRET
from hopgate.resources.kinds import SecretValue
from tests.cluster import api_server as api_servers
from tests.cluster.api_server import ApiServer, ClusterError, eventually
from tests.cluster.authorities import ACCOUNT, OWNER, SYSTEM, Installation
from tokenmint import authority

DAY = 86_400


@pytest.fixture(scope="module")
def server(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(cluster_binaries, tmp_path_factory.mktemp("cluster") / "authorities") as found:
        yield found


@pytest.fixture(scope="module")
def installed(server: ApiServer) -> Installation:
    found = Installation(server)
    eventually(lambda: found.refused() == 0, "the rights are in force")
    return found


def patch(server: ApiServer, namespace: str, changes: dict[str, Any]) -> None:
    server.kubectl("patch", "configmap", "hopgate-authorities", "-n", namespace, "--type=merge", "-p", json.dumps(changes))


def test_a_labelled_namespace_gets_what_is_to_be_trusted_and_another_nothing(installed: Installation) -> None:
    governed, other = installed.governed(), installed.server.namespace({"hopgate.dev/inject": "disabled"})
    installed.keeper.step()

    data = installed.config_map(governed)["data"]
    assert data == {
        "authz.pem": installed.secret("authz")["ca.crt"].decode(),
        "open-tls.pem": installed.secret("open-tls")["ca.crt"].decode(),
    }
    assert installed.config_map(other) == {}


def test_gateways_find_whom_to_believe_to_be_authz_beside_its_service(installed: Installation) -> None:
    installed.keeper.step()
    assert installed.config_map(SYSTEM)["data"].items() >= for_gateways(installed).items()
    patch(installed.server, SYSTEM, {"data": {"ca.crt": "nonsense"}})
    installed.keeper.step()
    assert installed.config_map(SYSTEM)["data"].items() >= for_gateways(installed).items()


def for_gateways(installed: Installation) -> dict[str, str]:
    return {**authorities_of(installed), "ca.crt": installed.secret("authz")["ca.crt"].decode()}


def test_a_config_map_that_a_person_makes_for_a_meshs_sidecars_is_filled_in(installed: Installation) -> None:
    theirs = installed.server.namespace()
    metadata = {"name": "hopgate-authorities", "namespace": theirs, "labels": {authorities.MANAGED_BY: authorities.MANAGER}}
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    installed.server.kubectl("create", "-f", "-", stdin=json.dumps(made))
    installed.keeper.step()
    assert installed.config_map(theirs)["data"] == authorities_of(installed)


def test_private_authorities_are_published_once_they_are_known_and_stay_while_they_are_not(installed: Installation) -> None:
    governed = installed.governed()
    installed.keeper.step()
    assert "private-authorities.json" not in installed.config_map(governed)["data"]
    for known, published in (("[]", "[]"), (None, "[]"), ('[{"addresses":["198.18.0.8"],"pem":"x"}]',) * 2):
        installed.private = known
        installed.keeper.step()
        assert installed.config_map(governed)["data"]["private-authorities.json"] == published
    installed.private = None


def test_nothing_is_written_where_all_is_right(installed: Installation) -> None:
    governed = installed.governed()
    installed.keeper.step()
    before, secret = installed.config_map(governed), installed.secret("authz")
    installed.keeper.step()

    assert installed.config_map(governed)["metadata"] == before["metadata"]
    assert installed.secret("authz") == secret


def test_the_secrets_hold_a_servers_certificate_and_an_authority(installed: Installation) -> None:
    authz, open_tls = installed.secret("authz"), installed.secret("open-tls")
    serving = authority.examine((authz["tls.crt"], SecretValue(authz["tls.key"])), authz["ca.crt"])

    assert serving is not None
    assert serving[2] == {f"hopgate-authz.{SYSTEM}.svc"}
    assert set(open_tls) == {"tls.crt", "tls.key", "ca.crt"}
    assert open_tls["tls.crt"] == open_tls["ca.crt"]


CHANGES = [
    pytest.param({"data": {"authz.pem": "nonsense"}}, id="changed"),
    pytest.param({"data": {"open-tls.pem": None}}, id="a key removed"),
    pytest.param({"metadata": {"labels": {authorities.MANAGED_BY: None}}}, id="the label removed"),
    pytest.param({"metadata": {"ownerReferences": None}}, id="the owner removed"),
    pytest.param({"data": {"authz.pem": "nonsense"}, "immutable": True}, id="changed and immutable"),
    pytest.param({"data": {"authz.pem": None}, "binaryData": {"authz.pem": "AAAA"}}, id="binary"),
]


@pytest.mark.parametrize("changes", CHANGES)
def test_a_config_map_that_was_changed_is_mended(installed: Installation, changes: dict[str, Any]) -> None:
    governed = installed.governed()
    installed.keeper.step()
    right = installed.config_map(governed)
    patch(installed.server, governed, changes)
    installed.keeper.step()

    mended = installed.config_map(governed)
    assert mended["data"] == right["data"]
    assert "immutable" not in mended
    for key in ("labels", "ownerReferences"):
        assert mended["metadata"][key] == right["metadata"][key]


def test_what_others_add_to_the_config_map_stays(installed: Installation) -> None:
    governed = installed.governed()
    installed.keeper.step()
    patch(installed.server, governed, {"data": {"authz.pem": "nonsense", "note": "theirs"}})
    installed.keeper.step()

    assert installed.config_map(governed)["data"] == {"note": "theirs", **authorities_of(installed)}


def authorities_of(installed: Installation) -> dict[str, str]:
    return {f"{name}.pem": installed.secret(name)["ca.crt"].decode() for name in ("authz", "open-tls")}


def test_a_config_map_that_was_deleted_is_there_again(installed: Installation) -> None:
    governed = installed.governed()
    installed.keeper.step()
    installed.server.kubectl("delete", "configmap", "hopgate-authorities", "-n", governed)
    installed.keeper.step()

    assert installed.config_map(governed)["data"] == authorities_of(installed)


def test_without_the_label_the_config_map_stays_right_until_a_person_removes_it(installed: Installation) -> None:
    governed = installed.governed()
    installed.keeper.step()
    installed.server.kubectl("label", "namespace", governed, "hopgate.dev/inject-")
    patch(installed.server, governed, {"data": {"authz.pem": "nonsense"}})
    installed.keeper.step()
    assert installed.config_map(governed)["data"] == authorities_of(installed)

    installed.server.kubectl("delete", "configmap", "hopgate-authorities", "-n", governed)
    installed.keeper.step()
    assert installed.config_map(governed) == {}


def test_somebody_elses_config_map_of_the_name_is_left_alone_where_nothing_is_governed(installed: Installation) -> None:
    other = installed.server.namespace()
    installed.server.kubectl("create", "configmap", "hopgate-authorities", "-n", other, "--from-literal=authz.pem=theirs")
    installed.keeper.step()
    assert installed.config_map(other)["data"] == {"authz.pem": "theirs"}

    installed.server.kubectl("label", "namespace", other, "hopgate.dev/inject=enabled")
    installed.keeper.step()
    assert installed.config_map(other)["data"] == authorities_of(installed)


def refusing(namespace: str) -> str:
    """A policy by which nobody makes a ConfigMap there."""
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "none"},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}],
            },
            "validations": [{"expression": "false", "message": "no ConfigMaps here"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "none"},
        "spec": {"policyName": "none", "validationActions": ["Deny"]},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})


def test_a_namespace_that_is_being_removed_or_refuses_holds_nobody_up(installed: Installation) -> None:
    leaving, full, governed = installed.governed(), installed.governed(), installed.governed()
    # Nobody ends it here: without a controller-manager it stays on its way.
    installed.server.kubectl("delete", "namespace", leaving, "--wait=false")
    installed.server.kubectl("apply", "-f", "-", stdin=refusing(full))

    def is_refused() -> bool:
        try:
            installed.server.kubectl("create", "configmap", "probe", "-n", full, "--dry-run=server")
        except ClusterError:
            return True
        return False

    eventually(is_refused, "the namespace refuses")
    assert installed.refused() == 422
    assert installed.config_map(governed)["data"] == authorities_of(installed)
    assert installed.config_map(full) == {}
    installed.server.kubectl("delete", "validatingadmissionpolicybinding", "none")
    eventually(lambda: installed.refused() == 0, "the namespace refuses no longer")
    assert installed.config_map(full)["data"] == authorities_of(installed)
    assert installed.config_map(leaving) == {}


def test_two_keepers_at_once_agree_over_the_years(installed: Installation) -> None:
    """Both turn the clock through years, step by step; whoever is refused looks again."""
    governed = [installed.governed() for _ in range(3)]
    installed.keeper.step()
    start, seen = installed.now, set[bytes]()
    wrong: list[str] = []

    def keep() -> None:
        keeper = installed.new_keeper()
        for _ in range(4):
            while installed.refused(keeper):
                pass
        if installed.refused(keeper):
            wrong.append("the last step was refused")

    try:
        for days in (0, 184, 307, 353, 355):
            installed.now = start + days * DAY
            threads = [threading.Thread(target=keep) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            serving = installed.secret("authz")
            pair = (serving["tls.crt"], SecretValue(serving["tls.key"]))
            assert authority.examine(pair, serving["authority.crt"]) is not None
            for namespace in governed:
                data = installed.config_map(namespace)["data"]
                assert data == authorities_of(installed)
                assert serving["authority.crt"].decode().strip() in data["authz.pem"]
                assert installed.secret("open-tls")["tls.crt"].decode().strip() in data["open-tls.pem"]
            assert installed.config_map(SYSTEM)["data"].items() >= for_gateways(installed).items()
            seen.add(installed.secret("open-tls")["tls.crt"])
    finally:
        installed.now = start
    assert wrong == []
    assert len(seen) == 2


def test_what_cert_manager_keeps_is_left_alone_and_published(own_api_server: ApiServer) -> None:
    installed = Installation(own_api_server)
    theirs = authority.create_root(installed.now)
    for name in ("authz", "open-tls"):
        values = {"tls.crt": theirs[0], "tls.key": theirs[1].reveal(), "ca.crt": theirs[0]}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"hopgate-{name}", "namespace": SYSTEM, "annotations": {CERT_MANAGER_SECRET: name}},
            "type": "kubernetes.io/tls",
            "data": {key: base64.b64encode(value).decode() for key, value in values.items()},
        }
        own_api_server.kubectl("create", "-f", "-", stdin=json.dumps(secret))
    governed = installed.governed()
    eventually(lambda: installed.refused() == 0, "the rights are in force")

    assert installed.secret("authz")["tls.crt"] == theirs[0]
    assert installed.config_map(governed)["data"] == {"authz.pem": theirs[0].decode(), "open-tls.pem": theirs[0].decode()}
    own_api_server.kubectl("annotate", "secret", "hopgate-authz", "-n", SYSTEM, f"{CERT_MANAGER_SECRET}-")
    installed.keeper.step()
    assert installed.secret("authz")["tls.crt"] != theirs[0]


def test_without_its_owner_nothing_is_made(own_api_server: ApiServer) -> None:
    installed = Installation(own_api_server)
    own_api_server.kubectl("delete", "clusterrole", OWNER)
    governed = installed.governed()

    eventually(lambda: installed.refused() == 404, "the rights are in force")
    assert installed.config_map(governed) == {}
    own_api_server.kubectl("create", "clusterrole", OWNER, "--verb=list", "--resource=pods")
    assert installed.refused() == 0
    assert installed.config_map(governed)["data"] == authorities_of(installed)


@pytest.fixture
def collecting(own_api_server: ApiServer) -> ApiServer:
    """An API server whose garbage collector runs."""
    programs = api_servers.find_built("kubernetes-node")
    if programs is None:
        pytest.skip("needs kube-controller-manager: run `make node-tools`")
    folder = own_api_server.folder
    own_api_server.spawn(
        "kube-controller-manager",
        (
            str(programs / "kube-controller-manager"),
            f"--kubeconfig={own_api_server.admin.kubeconfig}",
            "--leader-elect=false",
            "--use-service-account-credentials=false",
            "--controllers=garbage-collector-controller",
            "--bind-address=127.0.0.1",
            f"--secure-port={api_servers.free_ports(1)[0]}",
            f"--cert-dir={folder / 'controller-manager'}",
        ),
    )
    return own_api_server


def test_an_uninstall_leaves_nothing_of_it_behind(collecting: ApiServer) -> None:
    """What Helm does: it deletes what is the release's, among that the ClusterRole."""
    installed = Installation(collecting)
    governed = [installed.governed() for _ in range(2)]
    eventually(lambda: installed.refused() == 0, "the rights are in force")
    assert all(installed.config_map(namespace) for namespace in governed)
    collecting.kubectl("delete", "clusterrole", OWNER)

    def is_gone() -> bool:
        collecting.check()
        secrets = collecting.kubectl("get", "secrets", "-n", SYSTEM, "-o", "name").split()
        return not secrets and not any(installed.config_map(namespace) for namespace in governed)

    eventually(is_gone, "everything is collected")
    # A controller that still runs makes nothing anew.
    assert installed.refused() == 404
    assert is_gone()


FORBIDDEN = [
    ("list", "secrets", "-n", SYSTEM),
    ("get", "secret/other", "-n", SYSTEM),
    ("get", "secret/hopgate-authz", "-n", "default"),
    ("delete", "secret/hopgate-authz", "-n", SYSTEM),
    ("create", "configmaps", "-n", "default"),
    ("list", "configmaps", "-A"),
    ("patch", "configmap/other", "-n", "default"),
    ("get", "clusterrole/cluster-admin"),
    ("patch", "namespaces"),
]


@pytest.mark.parametrize("arguments", FORBIDDEN, ids=" ".join)
def test_the_keeper_may_do_nothing_else(installed: Installation, arguments: tuple[str, ...]) -> None:
    with pytest.raises(ClusterError):
        installed.server.kubectl("auth", "can-i", *arguments, f"--as={ACCOUNT}")
