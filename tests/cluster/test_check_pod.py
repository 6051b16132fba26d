"""`hopgate check pod` on a real API server: the installed webhook's own verdict, and that nothing is made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hopgate.cli.main import commands
from hopgate.kubernetes import injection
from hopgate.kubernetes.injection import Injected
from hopgate.kubernetes.injection_settings import NamespaceFacts
from tests.cluster.api_server import ApiServer
from tests.cluster.test_webhook_pods import GOVERNED, OUT, grant_skip, make
from tests.cluster.webhooks import Webhooks, webhooks
from tests.hopgate.kubernetes.injection.pods import REFUSED, SETTINGS

APP = {"name": "app", "image": "app:1", "securityContext": {"runAsUser": 1000}, "env": [{"name": "OPENAI_API_KEY", "value": "sk-marker"}]}
PROBED = {**APP, "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}}}


@pytest.fixture(scope="module")
def running(hopgate_definitions: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhooks]:
    with webhooks(hopgate_definitions, tmp_path_factory.mktemp("check") / "tls") as found:
        yield found


def check(server: ApiServer, *arguments: str, stdin: str | None = None) -> Result:
    given = ["check", "pod", "--kubeconfig", str(server.admin.kubeconfig), *arguments]
    return CliRunner().invoke(commands, given, input=stdin)


def manifest(kind: str, namespace: str, **spec: Any) -> str:
    pod = {"serviceAccountName": "default", "containers": [PROBED], **spec}
    metadata = {"name": "planner", "namespace": namespace}
    if kind == "Pod":
        return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": pod})
    labels = {"app": "planner"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    described = {"selector": {"matchLabels": labels}, "template": template}
    return json.dumps({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": described})


def pods(server: ApiServer, namespace: str) -> list[str]:
    return server.kubectl("get", "pods", "-n", namespace, "-o", "name").split()


@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_what_would_change_is_listed(running: Webhooks, kind: str) -> None:
    server, namespace = running.server, running.server.namespace(GOVERNED)
    running.changes.clear()
    ran = check(server, "-f", "-", stdin=manifest(kind, namespace))
    assert (ran.exit_code, ran.stdout.splitlines()) == (
        0,
        [
            f"{namespace}/planner would be injected (Injected)",
            "  adds the init container hopgate-capture (hopgate-proxy:1)",
            "  adds the init container hopgate-proxy (hopgate-proxy:1)",
            "  adds the volumes hopgate-token, hopgate-authorities, hopgate-configuration, hopgate-admin, hopgate-trust",
            "  container app: adds the variables AWS_CA_BUNDLE, CARGO_HTTP_CAINFO, CURL_CA_BUNDLE, DENO_CERT, GIT_SSL_CAINFO, "
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, NODE_EXTRA_CA_CERTS, PIP_CERT, REQUESTS_CA_BUNDLE, SSL_CERT_FILE",
            "  container app: puts a placeholder into OPENAI_API_KEY; the gate puts the real key into each allowed request",
            "  container app: forbids privilege escalation",
            "  container app: drops the capabilities NET_RAW, SETUID",
            "  container app: Envoy carries out the readinessProbe",
            "  container app: mounts /etc/hopgate/trust, to read",
        ],
    )
    assert pods(server, namespace) == []
    assert running.changes == []


def test_the_patch_is_the_injectors(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace(GOVERNED)
    ran = check(server, "--json", "-f", "-", stdin=manifest("Pod", namespace))
    told = json.loads(ran.stdout)
    assert sorted(told) == ["changes", "message", "patch", "reasons", "verdict"]
    sent = {**json.loads(manifest("Pod", namespace)), "metadata": {"namespace": namespace, "generateName": "planner-"}}
    outcome = injection.inject(sent, namespace=NamespaceFacts(name=namespace, governed=True), settings=SETTINGS, may_opt_out=False)
    assert isinstance(outcome, Injected)
    assert by_path(told["patch"]) == by_path(outcome.patch)


def by_path(patch: Any) -> list[Any]:
    """Its operations, in an order that does not depend on that of members."""
    return sorted(map(dict, patch), key=lambda operation: (operation["path"], operation["op"]))


def test_a_pod_that_exists_is_tried_as_it_would_be_made_anew(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace()
    make(server, namespace, "before", spec={"nodeName": "node1"})
    server.kubectl("label", "namespace", namespace, "hopgate.dev/inject=enabled")
    ran = check(server, "before", "-n", namespace)
    assert (ran.exit_code, "would be injected" in ran.stdout) == (0, True)
    make(server, namespace, "after")
    ran = check(server, "after", "-n", namespace)
    assert (ran.exit_code, "(Unchanged)" in ran.stdout) == (0, True)


@pytest.mark.parametrize("name", ["the node's network", "NET_ADMIN", "the proxy's user", "a volume over the trust bundle"])
def test_what_stands_against_it_is_told_with_its_remedy(running: Webhooks, name: str) -> None:
    server, namespace = running.server, running.server.namespace(GOVERNED)
    code, refused, accepted = REFUSED[name]
    texts = [json.dumps({**each, "metadata": {"name": "planner", "namespace": namespace}}) for each in (refused, accepted)]
    ran = check(server, "-f", "-", stdin=texts[0])
    assert (ran.exit_code, f"({code})" in ran.stdout, "to mend it: " in ran.stdout) == (1, True, True)
    told = json.loads(check(server, "--json", "-f", "-", stdin=texts[0]).stdout)
    assert told["verdict"] == "Refused"
    assert code in [reason["code"] for reason in told["reasons"]]
    assert all(reason["field"].startswith("spec.") and reason["remedy"] for reason in told["reasons"])


def test_where_nobody_would_govern_it_that_is_said(running: Webhooks) -> None:
    server, free, governed = running.server, running.server.namespace(), running.server.namespace(GOVERNED)
    ran = check(server, "-f", "-", stdin=manifest("Pod", free))
    assert (ran.exit_code, f"namespace {free} has no label hopgate.dev/inject=enabled" in ran.stdout) == (1, True)
    assert "pods of kube-system are never governed" in check(server, "-n", "kube-system", "-f", "-", stdin=manifest("Pod", free)).stdout
    out = json.dumps({**json.loads(manifest("Pod", governed)), "metadata": {"name": "out", "labels": OUT}})
    grant_skip(server, governed, "--user=somebody")
    ran = check(server, "-n", governed, "-f", "-", stdin=out)
    # The admin may: a member of system:masters has every right.
    assert (ran.exit_code, "(OptedOut)" in ran.stdout) == (1, True)


def test_a_webhook_that_does_not_answer_gives_no_verdict(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace(GOVERNED)
    running.serving.stop()
    try:
        ran = check(server, "-f", "-", stdin=manifest("Pod", namespace))
        assert (ran.exit_code, "the webhook does not answer" in ran.stdout) == (2, True)
    finally:
        running.restart()
    assert check(server, "-f", "-", stdin=manifest("Pod", namespace)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        ((), None, "expected the NAME of a pod or --file"),
        (("-f", "-", "planner"), "{}", "one of both"),
        (("-f", "-"), "kind: Service\n", "expected one Pod"),
        (("-f", "-"), "kind: [\n", "-:"),
        (("-f", "/nonexistent/pod.yaml"), None, "expected to read"),
        (("planner", "-n", "no-such"), None, "not found"),
    ],
)
def test_what_can_not_be_tried_ends_with_2(running: Webhooks, arguments: tuple[str, ...], stdin: str | None, said: str) -> None:
    ran = check(running.server, *arguments, stdin=stdin)
    assert (ran.exit_code, said in ran.stderr) == (2, True)
