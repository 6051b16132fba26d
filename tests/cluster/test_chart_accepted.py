"""What the chart makes of any values that its schema allows is accepted by the real API server, and names nothing that is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import foreign_definitions, pairs
from tests.cluster.api_server import ApiServer
from tests.cluster.helm import NAMESPACE, Helm, as_list, of_kind
from tests.cluster.values import TABLE, nested, sensible

WORKLOADS = ("DaemonSet", "Deployment")
ROWS = pairs.rows(TABLE, sensible)


@pytest.fixture(scope="module")
def server(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(cluster_binaries, tmp_path_factory.mktemp("cluster") / "server") as running:
        for name in (NAMESPACE, "demo"):
            running.kubectl("create", "namespace", name)
        running.install(foreign_definitions.find())
        yield running


def test_every_two_values_of_every_two_keys_are_tried_together() -> None:
    together = {
        (one, row[one], other, row[other]) for row in ROWS for number, one in enumerate(TABLE) for other in list(TABLE)[number + 1 :]
    }
    keys = list(TABLE)
    missing = [
        {one: TABLE[one][first], other: TABLE[other][second]}
        for number, one in enumerate(keys)
        for other in keys[number + 1 :]
        for first in range(len(TABLE[one]))
        for second in range(len(TABLE[other]))
        if (one, first, other, second) not in together
    ]
    # What is left out says itself that it can't be; `test_chart` has what people are told of it.
    assert missing
    assert all(not sensible(pair) for pair in missing)
    assert len(missing) < 12
    assert all(sensible(pairs.values(TABLE, row)) for row in ROWS)


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_the_server_accepts_what_the_chart_makes(server: ApiServer, helm: Helm, number: int) -> None:
    values = pairs.values(TABLE, ROWS[number])
    manifests = helm.manifests(nested(values))
    assert manifests == [] or dangling(manifests) == set()
    if manifests:
        server.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=as_list(manifests))
    on = {each["metadata"]["name"] for each in of_kind(manifests, *WORKLOADS)}
    components = {"authz": "authz.enabled", "controller": "controller.enabled", "sensor": "sensor.enabled"}
    expected = {f"hopgate-{name}" for name, key in components.items() if values[key]}
    if values["validation.enabled"] or values["injection.enabled"]:
        expected.add("hopgate-webhooks")
    assert on == expected


def test_a_reference_that_dangles_is_found(helm: Helm) -> None:
    manifests = helm.manifests()
    assert dangling(manifests) == set()
    without = [each for each in manifests if each["kind"] not in {"ServiceAccount", "ValidatingAdmissionPolicy"}]
    assert ("ServiceAccount", "hopgate-authz") in dangling(without)
    assert ("ValidatingAdmissionPolicy", "hopgate-authz-keys") in dangling(without)


def dangling(manifests: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What the chart's objects name, by kind and name, and the chart has not; what its processes make counts as there."""
    there = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    processes = {each["metadata"]["name"] for each in of_kind(manifests, "Deployment")}
    if "hopgate-controller" in processes:
        there |= {("Secret", "hopgate-authz"), ("Secret", "hopgate-open-tls")}
    if "hopgate-webhooks" in processes:
        there.add(("Secret", "hopgate-webhooks"))
    return {named for each in manifests for named in _named(each)} - there


def _named(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kind = manifest["kind"]
    if kind.endswith("RoleBinding"):
        yield manifest["roleRef"]["kind"], manifest["roleRef"]["name"]
        for subject in manifest["subjects"]:
            yield subject["kind"], subject["name"]
    elif kind == "ValidatingAdmissionPolicyBinding":
        yield "ValidatingAdmissionPolicy", manifest["spec"]["policyName"]
    elif kind.endswith("WebhookConfiguration"):
        for webhook in manifest["webhooks"]:
            yield "Service", webhook["clientConfig"]["service"]["name"]
    elif kind in {"Service", "NetworkPolicy", "PodDisruptionBudget"}:
        component = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
        yield "DaemonSet" if component == "sensor" else "Deployment", str(manifest["metadata"]["name"])
    elif kind in WORKLOADS:
        pod = manifest["spec"]["template"]["spec"]
        yield "ServiceAccount", pod["serviceAccountName"]
        for volume in pod.get("volumes", ()):
            if "secret" in volume:
                yield "Secret", volume["secret"]["secretName"]
        for argument in pod["containers"][0]["args"]:
            if argument.startswith("--authz-service="):
                yield "Service", argument.rsplit("/", 1)[1]
