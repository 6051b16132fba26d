"""hopgate's resource definitions on a real API server: what people see of them, and what stays of what they write."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import CustomObjectsApi

from hopgate.resources import parse
from hopgate.resources.kinds import GROUP, VERSION
from tests.cluster import written
from tests.cluster.api_server import ApiServer, ClusterError
from tests.cluster.verdicts import DEFINITIONS, Manifest, Verdicts

WRITTEN = written.all_manifests()


@pytest.fixture
def server(hopgate_definitions: ApiServer) -> ApiServer:
    return hopgate_definitions


def test_every_definition_is_established_under_its_names(server: ApiServer) -> None:
    definitions = json.loads(server.kubectl("get", "customresourcedefinitions", "-o", "json"))["items"]
    found = {definition["metadata"]["name"]: definition["status"] for definition in definitions}

    assert set(found) >= {definition.name for definition in DEFINITIONS.values()}
    for definition in DEFINITIONS.values():
        conditions = {condition["type"]: condition["status"] for condition in found[definition.name]["conditions"]}
        assert {"Established": "True", "NamesAccepted": "True"}.items() <= conditions.items()
        assert conditions.get("NonStructuralSchema", "False") == "False"


def test_no_short_name_hides_one_of_kubernetes(server: ApiServer) -> None:
    """`kubectl get sa` goes on meaning service accounts."""
    resources = [line.split() for line in server.kubectl("api-resources", "--no-headers").splitlines()]
    ours = {short for line in resources if f"{GROUP}/{VERSION}" in line for short in line[1].split(",")}
    others = {name for line in resources if f"{GROUP}/{VERSION}" not in line for name in (line[0], *line[1].split(","))}

    assert ours == {definition.short for definition in DEFINITIONS.values()}
    assert not ours & others


def test_they_are_one_category(server: ApiServer) -> None:
    resources = server.kubectl("api-resources", "--categories=hopgate", "--no-headers", "-o", "name").split()

    assert sorted(resources) == sorted(definition.name for definition in DEFINITIONS.values())


def test_kubectl_lists_all_kinds_at_once(server: ApiServer, agent: _Object) -> None:
    quarantined = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "ShadowAgent", "metadata": {"name": f"found-by-{agent.namespace}"}}
    _create(server, quarantined)
    listed = server.kubectl("get", "hopgate", "-A", "-o", "name").split()

    assert {"agent.hopgate.dev/planner", f"shadowagent.hopgate.dev/found-by-{agent.namespace}"} <= set(listed)


def test_each_field_is_explained(server: ApiServer) -> None:
    text = server.kubectl("explain", "toolservers.spec.credential")

    assert "What the gate adds to an allowed request" in text
    assert "-required-" in text


@pytest.mark.parametrize("place", WRITTEN)
def test_every_manifest_that_is_written_anywhere_is_accepted_and_means_the_same(verdicts: Verdicts, place: str) -> None:
    manifest = WRITTEN[place]
    verdict = verdicts.of(manifest["kind"], manifest)

    assert (verdict.read.mistakes, verdict.refusal) == ((), "")
    assert verdict.answer is not None
    assert parse.parse(verdict.answer).resource == verdict.read.resource


def test_manifests_are_found_where_they_are_written() -> None:
    places = {place.partition("#")[0] for place in WRITTEN}

    assert places >= {"README.md", "docs/reference/resources.md", "docs/how-to/README.md", "tests/world", "tests/end_to_end/world.yaml"}
    assert places >= set(written.demo())
    assert {manifest["kind"] for manifest in WRITTEN.values()} == set(DEFINITIONS)


def test_kubectl_takes_the_demo_and_changes_nothing_the_second_time(own_demo: tuple[ApiServer, Path]) -> None:
    server, folder = own_demo
    first = server.kubectl("apply", "-f", str(folder)).splitlines()
    second = server.kubectl("apply", "-f", str(folder)).splitlines()

    assert len([line for line in first if line.endswith(" created")]) == len(first) > 5
    # kubectl calls a Secret with `stringData` configured each time.
    assert [line for line in second if ".hopgate.dev/" in line and not line.endswith(" unchanged")] == []


@pytest.fixture
def own_demo(server: ApiServer, tmp_path: Path) -> tuple[ApiServer, Path]:
    """The demo's manifests in a namespace of this test, and what they are named for the whole cluster."""
    namespace = server.namespace()
    for name, text in written.demo().items():
        parts = [part for part in yaml.safe_load_all(text) if part is not None]
        for part in parts:
            if "namespace" in part["metadata"]:
                part["metadata"]["namespace"] = namespace
            else:
                part["metadata"]["name"] += f"-{namespace}"
        (tmp_path / name).write_text(yaml.safe_dump_all(parts))
    return server, tmp_path


def _agent(name: str, namespace: str, **spec: object) -> Manifest:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Agent", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def test_kubectl_refuses_an_unknown_field_and_names_it(server: ApiServer) -> None:
    namespace = server.namespace()
    with pytest.raises(ClusterError, match=r'unknown field "spec\.ownr"'):
        server.kubectl("apply", "-f", "-", stdin=json.dumps(_agent("a", namespace, ownr="x")))

    assert "created" in server.kubectl("apply", "-f", "-", stdin=json.dumps(_agent("a", namespace, owner="x")))


def test_an_unknown_field_of_a_client_that_does_not_ask_for_strictness_is_dropped_with_a_warning(server: ApiServer) -> None:
    namespace = server.namespace()
    custom = CustomObjectsApi(server.client())
    manifest = _agent("a", namespace, ownr="x", owner="y")
    made, _, headers = custom.create_namespaced_custom_object_with_http_info(GROUP, VERSION, namespace, "agents", manifest)

    assert isinstance(made, dict)
    assert made["spec"] == {"owner": "y", "protocols": ["A2A"], "quarantine": False}
    assert "spec.ownr" in headers["Warning"]


def test_defaults_are_filled_in_where_an_object_says_nothing(server: ApiServer) -> None:
    namespace = server.namespace()
    bare = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Agent", "metadata": {"name": "bare", "namespace": namespace}}

    assert _create(server, bare)["spec"] == {"protocols": ["A2A"], "quarantine": False}


def _create(server: ApiServer, manifest: Manifest) -> Any:
    return json.loads(server.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(manifest)))


class _Object:
    """One object, and writing to it by either endpoint."""

    def __init__(self, server: ApiServer, manifest: Manifest) -> None:
        self.namespace = manifest["metadata"].get("namespace", "default")
        self.made = _create(server, manifest)
        self._server = server
        self._name = (f"{DEFINITIONS[manifest['kind']].name}/{manifest['metadata']['name']}", "-n", self.namespace)

    def patch(self, change: Manifest, *options: str) -> Any:
        return json.loads(self._server.kubectl("patch", *self._name, "--type=merge", "-o", "json", "-p", json.dumps(change), *options))

    def patch_status(self, change: Manifest) -> Any:
        return self.patch(change, "--subresource=status")


@pytest.fixture
def agent(server: ApiServer) -> _Object:
    return _Object(server, {**_agent("planner", server.namespace(), owner="team-a"), "status": {"pods": 9}})


CONDITION = {
    "type": "Ready",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "reason": "Served",
    "message": "its address is in force",
}
STATUS: Manifest = {
    "observedGeneration": 1,
    "pods": 2,
    "lastSeen": "2026-01-01T00:00:00Z",
    "addresses": [{"host": "planner.demo.svc", "address": "198.19.0.1"}],
    "conditions": [CONDITION],
}


def test_the_status_is_written_at_its_own_endpoint_only(agent: _Object) -> None:
    assert "status" not in agent.made
    assert "status" not in agent.patch({"status": STATUS})

    written_status = agent.patch_status({"spec": {"owner": "someone-else"}, "status": STATUS})

    assert written_status["status"] == STATUS
    assert written_status["spec"]["owner"] == "team-a"
    assert written_status["metadata"]["generation"] == 1
    assert agent.patch({"spec": {"owner": "team-b"}})["metadata"]["generation"] == 2
    assert parse.parse(agent.patch({})).mistakes == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conditions", [CONDITION, {**CONDITION, "status": "False"}]),
        ("conditions", [{**CONDITION, "status": "Maybe"}]),
        ("conditions", [{**CONDITION, "reason": "two words"}]),
        ("conditions", [{key: value for key, value in CONDITION.items() if key != "reason"}]),
        ("addresses", [{"host": "a.example.com", "address": "198.18.0.1"}, {"host": "a.example.com", "address": "198.18.0.2"}]),
        ("addresses", [{"host": "a.example.com", "address": "nowhere"}]),
        ("pods", -1),
        ("lastSeen", "yesterday"),
    ],
    ids=["two of one type", "status no word of three", "reason of two words", "no reason", "two of one host", "no address", "pods", "time"],
)
def test_a_status_that_no_reader_could_trust_is_refused(agent: _Object, name: str, value: object) -> None:
    with pytest.raises(ClusterError, match=rf"is invalid:[\s*]+status\.{name}\b"):
        agent.patch_status({"status": {**STATUS, name: value}})
    assert agent.patch_status({"status": STATUS})["status"] == STATUS


def test_a_condition_is_merged_by_its_type(server: ApiServer, agent: _Object) -> None:
    """By server-side apply two controllers may each own one condition."""
    for manager, condition in (("one", CONDITION), ("two", {**CONDITION, "type": "Seen"})):
        patch = {**_agent("planner", agent.namespace), "status": {"conditions": [condition]}}
        del patch["spec"]
        server.kubectl("apply", "--server-side", "--subresource=status", f"--field-manager={manager}", "-f", "-", stdin=json.dumps(patch))

    assert {condition["type"] for condition in agent.patch({})["status"]["conditions"]} == {"Ready", "Seen"}


def _table(text: str) -> list[dict[str, str]]:
    """kubectl's table, which divides its columns by three blanks."""
    head, *rows = text.splitlines()
    starts = [0, *(place + 3 for place in range(len(head) - 3) if head[place : place + 3] == "   " and head[place + 3] != " ")]
    bounds = list(zip(starts, [*starts[1:], None], strict=True))
    names = [head[start:end].strip() for start, end in bounds]
    return [dict(zip(names, (row[start:end].strip() for start, end in bounds), strict=True)) for row in rows]


def test_kubectl_get_tells_owner_pods_ready_and_last_seen(server: ApiServer, agent: _Object) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    agent.patch_status({"status": {**STATUS, "lastSeen": now}})
    (row,) = _table(server.kubectl("get", "agents", "-n", agent.namespace))
    (wide,) = _table(server.kubectl("get", "ag", "-n", agent.namespace, "-o", "wide"))

    assert list(row) == ["NAME", "OWNER", "PODS", "READY", "LAST SEEN", "AGE"]
    assert {name: row[name] for name in ("NAME", "OWNER", "PODS", "READY")} == {
        "NAME": "planner",
        "OWNER": "team-a",
        "PODS": "2",
        "READY": "True",
    }
    assert row["LAST SEEN"].endswith("s")
    assert (wide["REASON"], wide["ADDRESS"]) == ("Served", "198.19.0.1")


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("ToolServer", {"conditions": [CONDITION]}, {"PROTOCOL": "MCP", "HOSTS": '["weather.example.com"]', "READY": "True"}),
        ("ModelProvider", {"conditions": [CONDITION]}, {"PROVIDER": "OpenAI", "HOSTS": '["api.openai.com"]', "READY": "True"}),
        ("Policy", {"conditions": [{**CONDITION, "type": "Valid", "status": "False"}]}, {"MODE": "Enforce", "VALID": "False"}),
        ("ClusterPolicy", {"conditions": [{**CONDITION, "type": "Valid"}]}, {"MODE": "Observe", "VALID": "True"}),
        ("IdentityProvider", {"conditions": [CONDITION]}, {"ISSUER": "https://idp.example.com", "READY": "True"}),
        ("ShadowAgent", {"firstSeen": "2026-01-01T00:00:00Z"}, {"QUARANTINE": "true", "LAST SEEN": ""}),
    ],
    ids=["ToolServer", "ModelProvider", "Policy", "ClusterPolicy", "IdentityProvider", "ShadowAgent"],
)
def test_kubectl_get_tells_the_story_of_a_kind(server: ApiServer, kind: str, status: Manifest, expected: dict[str, str]) -> None:
    definition, namespace = DEFINITIONS[kind], server.namespace()
    examples = [found for place, found in WRITTEN.items() if place.startswith("docs/reference/resources.md") and found["kind"] == kind]
    name = f"story-{namespace}"
    metadata = {"name": name, "namespace": namespace} if definition.namespaced else {"name": name}
    _Object(server, {**examples[0], "metadata": metadata}).patch_status({"status": status})
    (row,) = [found for found in _table(server.kubectl("get", definition.plural, "-n", namespace)) if found["NAME"] == name]

    assert {column: row[column] for column in expected} == expected
    assert row["AGE"]


def test_an_object_can_be_made_as_soon_as_the_definitions_are_installed(own_api_server: ApiServer) -> None:
    """What the other tests rely on: `ApiServer.install` waits for more than the condition `Established`."""
    chart = written.REPOSITORY / "deploy" / "charts" / "hopgate" / "crds"
    own_api_server.install(chart)
    for definition in DEFINITIONS.values():
        manifest = next(found for found in WRITTEN.values() if found["kind"] == definition.kind)
        assert _create(own_api_server, {**manifest, "metadata": {"name": "first"}})["metadata"]["generation"] == 1


def test_a_definition_applied_again_keeps_its_objects(server: ApiServer, agent: _Object) -> None:
    server.install(written.REPOSITORY / "deploy" / "charts" / "hopgate" / "crds")

    assert agent.patch({})["spec"]["owner"] == "team-a"
