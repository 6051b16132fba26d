"""The chart by itself: which values it takes, what it makes of them, and that it says what the code says."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

import hopgate
from authz import cluster_process, server
from hopgate.cluster import injection_options
from hopgate.cluster.webhooks import Injecting
from hopgate.kubernetes import sidecar
from hopgate.kubernetes import webhook_configurations as configurations
from hopgate.kubernetes.injection_settings import INJECTED_LABEL, Settings
from tests.cluster.helm import CHART, NAMESPACE, Helm, HelmError, of_kind
from tests.cluster.values import TABLE, nested

WEBHOOKS = "hopgate-webhooks"
WORKLOADS = ("hopgate-authz", "hopgate-controller", "hopgate-webhooks")


def leaves(schema: Mapping[str, Any], whole: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Every key that a user can set, dotted: what holds no fixed keys of its own, or is set as one."""
    schema = whole["definitions"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    if "properties" not in schema or path.endswith(("esources",)):
        yield path
        return
    for key, inside in schema["properties"].items():
        yield from leaves(inside, whole, f"{path}.{key}" if path else key)


def closed(schema: Any, path: str = "") -> Iterator[str]:
    """Objects of the schema that would take a key that they don't know."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "additionalProperties" not in schema:
            yield path
        for key, inside in schema.items():
            yield from closed(inside, f"{path}.{key}")


NAMED = {"identity": "spiffe://example.org/ns/demo/sa/tickets"}
MESH = {"authz.mesh.enabled": True, "authz.mesh.trustDomains": ["example.org", "second.example"], "authz.mesh.envoys": [NAMED]}


def test_the_chart_has_the_version_of_what_it_installs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == hopgate.__version__


def test_the_schema_is_closed_and_every_key_is_tried_and_has_a_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert list(closed(schema)) == [".properties.global"]
    keys = set(leaves(schema, schema)) - {"global"}
    assert keys == set(TABLE)
    given = yaml.safe_load((CHART / "values.yaml").read_text())
    for key in keys:
        found: Any = given
        for part in key.split("."):
            found = found[part]


def test_the_page_has_every_setting_with_its_default() -> None:
    page = (CHART.parents[2] / "docs" / "how-to" / "install-on-kubernetes.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| .+ \|$", page, re.MULTILINE))
    given = yaml.safe_load((CHART / "values.yaml").read_text())

    def default(key: str) -> Any:
        found: Any = given
        for part in key.split("."):
            found = found[part]
        return found

    assert {key: json.loads(shown) for key, shown in rows.items()} == {key: default(key) for key in TABLE}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"authz": {"replica": 2}}, "/authz"),
        ({"autz": {}}, "autz"),
        ({"authz": {"replicas": 0}}, "/authz/replicas"),
        ({"authz": {"replicas": "2"}}, "/authz/replicas"),
        ({"authz": {"enabled": "true"}}, "/authz/enabled"),
        ({"authz": {"tokenIssuer": "kubernetes.default.svc"}}, "/authz/tokenIssuer"),
        ({"authz": {"spool": {"type": "hostPath"}}}, "/authz/spool/type"),
        ({"authz": {"spool": {"size": "2 GB"}}}, "/authz/spool/size"),
        ({"authz": {"resources": {"limits": {"memory": "lots"}}}}, "/authz/resources/limits/memory"),
        ({"authz": {"resources": {"limit": {"memory": "1Gi"}}}}, "/authz/resources"),
        ({"authz": {"tolerations": [{"operator": "Like"}]}}, "/authz/tolerations/0/operator"),
        ({"authz": {"nodeSelector": {"ssd": True}}}, "/authz/nodeSelector/ssd"),
        ({"authz": {"mesh": {"trustDomain": "example.org"}}}, "/authz/mesh"),
        ({"authz": {"mesh": {"trustDomains": ["Example.org"]}}}, "/authz/mesh/trustDomains/0"),
        ({"authz": {"mesh": {"envoys": [{"identity": "demo/tickets"}]}}}, "/authz/mesh/envoys/0/identity"),
        ({"authz": {"mesh": {"envoys": [{"namespaces": ["demo"]}]}}}, "/authz/mesh/envoys/0"),
        ({"authz": {"mesh": {"envoys": [{"identity": "spiffe://a/b", "namespaces": ["*a"]}]}}}, "/authz/mesh/envoys/0/namespaces/0"),
        ({"authz": {"mesh": {"authorities": {"configMap": ""}}}}, "/authz/mesh/authorities/configMap"),
        ({"authz": {"mesh": {"authorities": {"key": "a/b"}}}}, "/authz/mesh/authorities/key"),
        ({"validation": {"enabled": 1}}, "/validation/enabled"),
        ({"injection": {"proxyUser": 0}}, "/injection/proxyUser"),
        ({"injection": {"tokenSeconds": 7200}}, "/injection/tokenSeconds"),
        ({"injection": {"drainSeconds": 0}}, "/injection/drainSeconds"),
        ({"injection": {"refuseUnknownUsers": "no"}}, "/injection/refuseUnknownUsers"),
        ({"injection": {"proxyHeapMebibytes": "160Mi"}}, "/injection/proxyHeapMebibytes"),
        ({"webhooks": {"spool": {"claimName": "Records"}}}, "/webhooks/spool/claimName"),
        ({"controller": {"replicas": 1.5}}, "/controller/replicas"),
        ({"sensor": {"enabled": "yes"}}, "/sensor/enabled"),
        ({"sensor": {"enforce": 1}}, "/sensor/enforce"),
        ({"sensor": {"replicas": 1}}, "/sensor"),
        ({"sensor": {"spool": {"type": "hostPath"}}}, "/sensor/spool/type"),
        ({"sensor": {"priorityClassName": "Very High"}}, "/sensor/priorityClassName"),
        ({"secretNamespaces": ["Demo"]}, "/secretNamespaces/0"),
        ({"secretNamespaces": "demo"}, "/secretNamespaces"),
        ({"certificates": {"certManager": {"issuerRef": {"kind": "Cluster"}}}}, "/certificates/certManager/issuerRef/kind"),
        ({"networkPolicies": {"apiServers": ["10.0.0.1"]}}, "/networkPolicies/apiServers/0"),
        ({"networkPolicies": {"authzFrom": [{}]}}, "/networkPolicies/authzFrom/0"),
        ({"networkPolicies": {"meshFrom": [{}]}}, "/networkPolicies/meshFrom/0"),
        ({"networkPolicies": {"metricsFrom": [{"podLabels": {}}]}}, "/networkPolicies/metricsFrom/0"),
        ({"images": {"prefix": "example.com/team"}}, "/images/prefix"),
        ({"images": {"pullPolicy": "always"}}, "/images/pullPolicy"),
        ({"images": {"pullSecrets": ["registry"]}}, "/images/pullSecrets/0"),
        ({"images": {"tag": "a b"}}, "/images/tag"),
        ({"priorityClassName": "Very High"}, "/priorityClassName"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_mistake_is_refused_by_its_key(helm: Helm, values: dict[str, Any], named: str) -> None:
    with pytest.raises(HelmError, match=re.escape(named)) as refused:
        helm.template(values)
    assert "values don't meet the specifications of the schema" in str(refused.value)


@pytest.mark.parametrize(
    ("values", "mended", "said"),
    [
        ({"authz.enabled": False}, {"injection.enabled": False}, "injection.enabled needs authz.enabled"),
        ({"controller.enabled": False}, {"authz.enabled": False, "injection.enabled": False}, "authz.enabled needs controller.enabled"),
        ({"authz.spool.type": "Claim"}, {"authz.spool.claimName": "records"}, "authz.spool.claimName"),
        ({"sensor.enabled": True, "sensor.spool.type": "Claim"}, {"sensor.spool.claimName": "records"}, "sensor.spool.claimName"),
        ({"webhooks.spool.type": "Claim"}, {"webhooks.spool.claimName": "records"}, "webhooks.spool.claimName"),
        (
            {"certificates.certManager.enabled": True},
            {"certificates.certManager.issuerRef.name": "hopgate"},
            "certificates.certManager.issuerRef.name",
        ),
        (
            {"authz.mesh.enabled": True, "authz.mesh.envoys": [NAMED]},
            {"authz.mesh.trustDomains": ["example.org"]},
            "authz.mesh.trustDomains",
        ),
        ({"authz.mesh.enabled": True, "authz.mesh.trustDomains": ["example.org"]}, {"authz.mesh.envoys": [NAMED]}, "authz.mesh.envoys"),
        (
            {**MESH, "authz.mesh.envoys": [{"identity": "spiffe://example.org/gateway"}]},
            {"authz.mesh.envoys": [{"identity": "spiffe://example.org/gateway", "namespaces": ["demo"]}]},
            "expected namespaces for spiffe://example.org/gateway",
        ),
        (
            {**MESH, "authz.mesh.envoys": [{**NAMED, "namespaces": ["*", "demo"]}]},
            {"authz.mesh.envoys": [{**NAMED, "namespaces": ["*"]}]},
            "got both",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_parts_that_cant_do_without_each_other_are_said(helm: Helm, values: dict[str, Any], mended: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmError, match=re.escape(said)):
        helm.template(nested(values))
    helm.template(nested({**values, **mended}))


@pytest.mark.parametrize("file", ["values.yaml", "discovery-only.yaml"])
def test_helm_finds_nothing_amiss(helm: Helm, file: str) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), "--values", str(CHART / file))


def test_a_namespace_of_the_clusters_own_is_refused(helm: Helm) -> None:
    with pytest.raises(HelmError, match="namespace of hopgate's own"):
        helm.template(namespace="kube-system")


@pytest.mark.parametrize("cert_manager", [False, True], ids=["own", "cert-manager"])
@pytest.mark.parametrize("release", ["hopgate", "team"])
def test_the_webhook_configurations_are_those_of_the_code(helm: Helm, release: str, *, cert_manager: bool) -> None:
    given = {"certificates.certManager.enabled": cert_manager, "certificates.certManager.issuerRef.name": "hopgate"}
    made = helm.manifests(nested(given), release=release)
    name = "hopgate-webhooks" if release == "hopgate" else "team-hopgate-webhooks"
    inject = f"{NAMESPACE}/{name}" if cert_manager else None

    def client(path: str) -> configurations.ClientConfig:
        return configurations.service_client(name, NAMESPACE, path)

    expected = [
        configurations.validating(name, client(configurations.VALIDATE_PATH), cert_manager=inject),
        configurations.mutating(name, client(configurations.INJECT_PATH), NAMESPACE, cert_manager=inject),
    ]
    for wanted in expected:
        [found] = of_kind(made, wanted["kind"])
        assert found["webhooks"] == wanted["webhooks"]
        assert found["metadata"]["name"] == name
        assert found["metadata"]["annotations"] == wanted["metadata"]["annotations"]
        assert wanted["metadata"]["labels"].items() <= found["metadata"]["labels"].items()


def test_every_pod_is_confined_and_asked_whether_it_lives(helm: Helm) -> None:
    deployments = of_kind(helm.manifests(), "Deployment")
    assert sorted(each["metadata"]["name"] for each in deployments) == [*WORKLOADS]
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        context = {**pod["securityContext"]}
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
        assert pod["serviceAccountName"] == deployment["metadata"]["name"]
        for volume in pod.get("volumes", ()):
            if "secret" in volume:
                assert [item["key"] for item in volume["secret"]["items"]] == ["tls.crt", "tls.key"]


def test_the_sensor_is_there_when_it_is_switched_on_and_mounts_nothing_to_change_the_node_with(helm: Helm) -> None:
    assert of_kind(helm.manifests(), "DaemonSet") == []
    [found] = of_kind(helm.manifests(nested({"sensor.enabled": True})), "DaemonSet")
    pod = found["spec"]["template"]["spec"]
    [container] = pod["containers"]
    context = container["securityContext"]
    assert (pod["hostPID"], pod.get("hostNetwork", False), context.get("privileged", False)) == (True, False, False)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"]}
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
    assert "--enforce" not in container["args"]
    assert _node_folders(pod) == {"/sys/fs/cgroup": True}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"


def test_a_sensor_that_enforces_may_end_connections_and_keep_programs_in_the_kernel(helm: Helm) -> None:
    [found] = of_kind(helm.manifests(nested({"sensor.enabled": True, "sensor.enforce": True})), "DaemonSet")
    pod = found["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["securityContext"]["capabilities"]["add"] == ["SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "NET_ADMIN"]
    assert "--enforce" in container["args"]
    assert _node_folders(pod) == {"/sys/fs/cgroup": True, "/sys/fs/bpf": False}


def test_the_values_for_discovery_alone_bring_nothing_that_stands_in_the_way_of_anybody(helm: Helm) -> None:
    given = yaml.safe_load((CHART / "discovery-only.yaml").read_text())
    made = sorted(each["kind"] for each in helm.manifests(given))
    assert made == ["ClusterRole", "ClusterRoleBinding", "DaemonSet", "NetworkPolicy", "ServiceAccount"]
    assert not given["sensor"]["enforce"]


def _node_folders(pod: Mapping[str, Any]) -> dict[str, bool]:
    """What of the node a pod's container sees: by its path on the node, whether it may only be read."""
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    [container] = pod["containers"]
    mounts = {paths[mount["name"]]: mount for mount in container["volumeMounts"] if mount["name"] in paths}
    assert all(mount["mountPath"] == path for path, mount in mounts.items())
    return {path: mount.get("readOnly", False) for path, mount in mounts.items()}


def test_pods_are_injected_as_the_code_would_by_itself(helm: Helm) -> None:
    """Where nobody sets anything; what is set is passed on."""
    assert injected_by(helm, {}).settings == Settings(
        image="hopgate-proxy:0.1.0",
        authz_name=f"hopgate-authz.{NAMESPACE}.svc",
        authz_port=8443,
        resolver_port=8053,
        audience="hopgate",
    )
    given = {"injection.proxyUser": 4000, "injection.refuseUnknownUsers": True, "injection.tokenSeconds": 600, "images.pullPolicy": "Never"}
    changed = injected_by(helm, given).settings
    assert (changed.proxy_uid, changed.refuse_unknown_users, changed.token_seconds, changed.image_pull_policy) == (4000, True, 600, "Never")


def injected_by(helm: Helm, values: dict[str, Any]) -> Injecting:
    manifests = helm.manifests(nested(values))
    [webhooks] = [each for each in of_kind(manifests, "Deployment") if each["metadata"]["name"] == WEBHOOKS]
    parser = argparse.ArgumentParser()
    injection_options.add(parser)
    given, _others = parser.parse_known_args(webhooks["spec"]["template"]["spec"]["containers"][0]["args"])
    found = injection_options.read(given)
    assert found is not None
    return found


def test_authz_has_the_time_that_it_takes_to_end(helm: Helm) -> None:
    [authz] = [each for each in of_kind(helm.manifests(), "Deployment") if each["metadata"]["name"] == "hopgate-authz"]
    takes = cluster_process.NOTICE_SECONDS + 1.1 * server.CONNECTION_SECONDS + 10
    assert authz["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > max(80, takes)


def test_governed_pods_reach_authz_by_what_they_are_labelled_with(helm: Helm) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(helm.manifests(), "NetworkPolicy")}
    assert policies.keys() == {*WORKLOADS}
    [rule] = policies["hopgate-authz"]["ingress"]
    assert rule["from"] == [{"namespaceSelector": {}, "podSelector": {"matchLabels": {INJECTED_LABEL: "true"}}}]
    assert policies["hopgate-controller"]["ingress"] == []
    assert "from" not in policies["hopgate-webhooks"]["ingress"][0]
    named = of_kind(helm.manifests(nested({"networkPolicies.apiServers": ["10.0.0.7/32"]})), "NetworkPolicy")
    [webhooks] = [each["spec"]["ingress"] for each in named if each["metadata"]["name"] == WEBHOOKS]
    assert webhooks[0]["from"] == [{"ipBlock": {"cidr": "10.0.0.7/32"}}]


def test_a_mesh_is_answered_where_it_is_switched_on_alone(helm: Helm) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "demo"}}}
    gateway = {"identity": "spiffe://example.org/gateway", "namespaces": ["demo", "other"]}
    given = {**MESH, "authz.mesh.envoys": [NAMED, gateway], "networkPolicies.meshFrom": [peer]}

    def made(values: dict[str, Any]) -> tuple[list[str], list[str], list[Any]]:
        manifests = {(each["kind"], each["metadata"]["name"]): each.get("spec", {}) for each in helm.manifests(nested(values))}
        arguments = manifests["Deployment", "hopgate-authz"]["template"]["spec"]["containers"][0]["args"]
        ports = [port["name"] for port in manifests["Service", "hopgate-authz"]["ports"]]
        return [each for each in arguments if "mesh" in each], ports, manifests["NetworkPolicy", "hopgate-authz"]["ingress"][1:]

    arguments, ports, rules = made(given)
    assert arguments == [
        "--mesh-listen=[::]:8444",
        "--mesh-authorities=/etc/hopgate/mesh/authorities.pem",
        "--mesh-trust-domain=example.org",
        "--mesh-trust-domain=second.example",
        "--mesh-envoy=spiffe://example.org/ns/demo/sa/tickets",
        "--mesh-envoy=spiffe://example.org/gateway=demo,other",
    ]
    assert "mesh" in ports
    assert rules == [{"ports": [{"port": "mesh", "protocol": "TCP"}], "from": [peer]}]
    assert made({**given, "networkPolicies.meshFrom": []})[2] == []
    for off in ({**given, "authz.mesh.enabled": False}, {"networkPolicies.meshFrom": [peer]}):
        arguments, ports, rules = made(off)
        assert (arguments, "mesh" in ports, rules) == ([], False, [])


def test_the_policy_on_the_gates_containers_names_them_all(helm: Helm) -> None:
    [policy] = [
        each for each in of_kind(helm.manifests(), "ValidatingAdmissionPolicy") if each["metadata"]["name"].endswith("-gate-containers")
    ]
    [names] = [each["expression"] for each in policy["spec"]["variables"] if each["name"] == "names"]
    assert set(re.findall(r"'([^']+)'", names)) == sidecar.CONTAINERS


def test_every_right_has_its_reason(helm: Helm) -> None:
    """Each rule stands below a comment."""
    text = helm.template(nested({"sensor.enabled": True, "sensor.enforce": True}))
    for document in text.split("\n---"):
        if re.search(r"^kind: (Cluster)?Role$", document, re.MULTILINE):
            lines = document.splitlines()
            rules = [number for number, line in enumerate(lines) if line.startswith("- apiGroups:")]
            assert rules
            for number in rules:
                assert re.fullmatch(r"# \S.*[.?]", lines[number - 1]), lines[number]


def test_one_replica_has_no_budget_that_would_hold_a_node(helm: Helm) -> None:
    budgets = {each["metadata"]["name"] for each in of_kind(helm.manifests(nested({"authz.replicas": 1})), "PodDisruptionBudget")}
    assert budgets == {*WORKLOADS} - {"hopgate-authz"}


def test_names_are_the_releases(helm: Helm) -> None:
    for release, full in (("hopgate", "hopgate"), ("team", "team-hopgate"), ("a" * 53, "a" * 50)):
        manifests = helm.manifests(release=release)
        assert {each["metadata"]["name"] for each in of_kind(manifests, "Deployment")} == {
            f"{full}-{component}" for component in ("authz", "webhooks", "controller")
        }
        assert all(len(each["metadata"]["name"]) <= 63 for each in of_kind(manifests, "Service"))
