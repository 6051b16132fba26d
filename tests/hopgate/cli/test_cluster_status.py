"""What `hopgate status` of a cluster prints, and what it takes for a finding."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from hopgate.cli import cluster_status as shown
from hopgate.cli.cluster_status import ClusterStatus
from hopgate.kubernetes import authz_state, cluster_status, keys
from hopgate.kubernetes.authz_state import AuthzState
from hopgate.kubernetes.cluster_reader import Unread
from hopgate.kubernetes.cluster_status import ControllerRow, ResourceRow, WebhookRow
from hopgate.kubernetes.keys import PodReference
from hopgate.kubernetes.pod_coverage import Coverage, PodRow, Ungoverned

NOW = 1_800_000_000.0
DAY = 86_400
STATED = AuthzState(
    version="0.1.0",
    started_at=int(NOW) - 600,
    snapshot_at=int(NOW) - 300,
    watches={"Agent": int(NOW) - 20, "Pod": int(NOW) - 3},
    certificate_ends_at=int(NOW) + 20 * DAY,
    key_made_at=int(NOW) - 600,
    allowed=5,
    denied=1,
    failed_open=0,
)
POD = {
    "metadata": {"name": "authz-1", "namespace": "hopgate", "uid": "u1"},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}
AUTHZ_LABELS = {"app.kubernetes.io/name": "hopgate", "app.kubernetes.io/component": "authz"}


def lease(state: AuthzState | None = STATED, told_at: float = NOW - 5) -> dict[str, Any]:
    annotations = None if state is None else authz_state.write(state, {})
    return keys.manifest(PodReference(namespace="hopgate", name="authz-1", uid="u1"), {"keys": []}, told_at, annotations)


def authz(state: AuthzState | None = STATED, told_at: float = NOW - 5, pod: Any = POD) -> cluster_status.AuthzRow:
    [row] = cluster_status.authz_rows([lease(state, told_at)], [pod], NOW)
    return row


def changed(**changes: Any) -> AuthzState:
    return msgspec.structs.replace(STATED, **changes)


def test_a_process_that_is_well_has_no_finding() -> None:
    row = authz()
    assert (row.pod, row.ready, row.version, row.told_age, row.snapshot_age) == ("authz-1", True, "0.1.0", 5, 300)
    assert (row.oldest_watch, row.oldest_watch_age, row.certificate_ends_in, row.key_age) == ("Agent", 20, 20 * DAY, 600)
    assert row.findings == ()


@pytest.mark.parametrize(
    ("row", "finding"),
    [
        (authz(pod={**POD, "status": {}}), "its pod is not ready"),
        (authz(None), "it has not said how it stands"),
        (authz(told_at=NOW - 61), "it has been silent for 61 s"),
        (authz(changed(snapshot_at=None)), "it has no snapshot yet"),
        (authz(changed(watches={"Agent": int(NOW) - 160, "Pod": int(NOW)})), "it does not hear of Agent: what it knew last stays in force"),
        (authz(changed(watches={"Agent": int(NOW), "Pod": None})), "it does not hear of Pod: what it knew last stays in force"),
        (authz(changed(certificate_ends_at=int(NOW) + 6 * DAY)), "its certificate ends soon, and is not being renewed"),
        (authz(changed(key_made_at=int(NOW) - 14 * 3600)), "its signing key is old"),
        (authz(changed(failed_open=2)), "2 hops passed although something had failed: a defect"),
    ],
)
def test_what_is_not_well_is_a_finding(row: cluster_status.AuthzRow, finding: str) -> None:
    assert row.findings == (finding,)


def test_a_process_is_a_pod_that_is_there() -> None:
    other = {"metadata": {"name": "other", "uid": "u2"}}
    assert cluster_status.authz_rows([lease()], [other], NOW) == ()
    labelled = {"metadata": {"name": "authz-2", "uid": "u3", "labels": AUTHZ_LABELS}}
    assert [row.pod for row in cluster_status.authz_rows([lease()], [POD, other, labelled], NOW)] == ["authz-1", "authz-2"]


def pem(name: str) -> bytes:
    return f"-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n".encode()


def ends_at(certificate: bytes) -> int | None:
    return {b"old": int(NOW) - 1, b"new": int(NOW) + 300 * DAY, b"leaf": int(NOW) + 20 * DAY, b"ending": int(NOW) + DAY}.get(
        certificate.split(b"\n")[1] if b"\n" in certificate else b""
    )


def webhook(bundle: bytes, secret: dict[str, bytes] | None = None, policy: str = "Fail") -> tuple[str, ...]:
    client = {"caBundle": base64.b64encode(bundle).decode(), "service": {"name": "hopgate-webhooks", "namespace": "hopgate"}}
    configurations = [
        {"metadata": {"name": "hopgate-webhooks"}, "webhooks": [{"name": name, "clientConfig": client, "failurePolicy": policy}]}
        for name in ("inject.hopgate.dev", "validate.hopgate.dev")
    ]
    kept = None if secret is None else {"data": {name: base64.b64encode(value).decode() for name, value in secret.items()}}
    rows = cluster_status.webhook_rows(configurations, lambda _namespace, _name: kept, ends_at, NOW)
    assert rows[0].findings == rows[1].findings
    return rows[0].findings


def test_webhooks_are_well_with_a_bundle_that_is_in_force_and_that_the_secret_has() -> None:
    assert webhook(pem("old") + pem("new")) == ()
    assert webhook(pem("new"), {"ca.crt": pem("new"), "tls.crt": pem("leaf")}) == ()


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        (webhook(b""), "its caBundle is empty: the API server trusts no answer"),
        (webhook(pem("old")), "every certificate of its caBundle has ended"),
        (webhook(pem("new"), policy="Ignore"), "its failurePolicy is Ignore, expected Fail"),
        (webhook(pem("new"), {"ca.crt": pem("old"), "tls.crt": pem("leaf")}), "its caBundle does not hold the authority of its Secret"),
        (
            webhook(pem("new"), {"ca.crt": pem("new"), "tls.crt": pem("ending")}),
            "its certificate has ended or ends soon, and is not being renewed",
        ),
    ],
)
def test_a_webhook_that_is_not_well_is_a_finding(findings: tuple[str, ...], said: str) -> None:
    assert findings == (said,)


def test_a_webhook_that_is_not_registered_is_a_finding() -> None:
    rows = cluster_status.webhook_rows([], lambda _namespace, _name: None, ends_at, NOW)
    assert [row.findings for row in rows] == [
        ("it is not registered: pods of governed namespaces are not governed",),
        ("it is not registered: changes of resources are not judged",),
    ]


STATUS = ClusterStatus(
    healthy=False,
    installation="hopgate",
    namespaces=("demo",),
    pods=Coverage(
        governed=3,
        rows=(
            PodRow(
                namespace="demo",
                name="cache-0",
                why=Ungoverned.MADE_BEFORE_LABEL,
                message="it was made before the namespace was labelled",
                remedy="make the pod anew",
            ),
        ),
    ),
    authz=(authz(), authz(None)),
    webhooks=(
        WebhookRow(name="inject.hopgate.dev", configuration="hopgate-webhooks", certificate_ends_in=20 * DAY, findings=()),
        WebhookRow(name="validate.hopgate.dev", configuration="", certificate_ends_in=None, findings=("it is not registered",)),
    ),
    controller=(ControllerRow(lease="hopgate-controller", holder="hopgate-controller-1", age=7, findings=()),),
    resources=(ResourceRow(kind="Policy", name="demo/planner", reason="InvalidPolicy", message="line 2: a \x1b[31mmistake"),),
    findings=(),
    unread={"certificates": Unread(code="ClusterRefused", message="secrets is forbidden")},
)
GOLDEN = """\
governed namespaces: demo; pods governed: 3, not governed: 1

pods that are not governed
POD           WHY              MESSAGE                                        TO MEND IT
demo/cache-0  MadeBeforeLabel  it was made before the namespace was labelled  make the pod anew

authz
POD      READY  VERSION  SNAPSHOT  OLDEST WATCH  CERTIFICATE  KEY     FAILED OPEN
authz-1  yes    0.1.0    5 min     Agent 20 s    20 d left    10 min  0
authz-1  yes    -        -         -             -            -       -

webhooks
WEBHOOK               CONFIGURATION     CERTIFICATE
inject.hopgate.dev    hopgate-webhooks  20 d left
validate.hopgate.dev  -                 -

controller
LEASE               LEADER                RENEWED
hopgate-controller  hopgate-controller-1  7 s

resources that are not well
KIND    NAME          REASON         MESSAGE
Policy  demo/planner  InvalidPolicy  line 2: a \\x1b[31mmistake

authz authz-1: it has not said how it stands
webhook validate.hopgate.dev: it is not registered
not read: certificates: secrets is forbidden (ClusterRefused)
"""


def test_the_text_is_this(capsys: pytest.CaptureFixture[str]) -> None:
    shown.show(STATUS)
    assert capsys.readouterr().out == GOLDEN


def test_the_json_has_these_members() -> None:
    described = json.loads(msgspec.json.encode(STATUS))
    assert {name: sorted(value[0]) for name, value in described.items() if isinstance(value, list) and value and name != "namespaces"} == {
        "authz": [
            "allowed",
            "certificate_ends_in",
            "denied",
            "failed_open",
            "findings",
            "key_age",
            "oldest_watch",
            "oldest_watch_age",
            "pod",
            "ready",
            "snapshot_age",
            "told_age",
            "version",
        ],
        "webhooks": ["certificate_ends_in", "configuration", "findings", "name"],
        "controller": ["age", "findings", "holder", "lease"],
        "resources": ["kind", "message", "name", "reason"],
    }
    assert described["pods"] == {
        "governed": 3,
        "rows": [
            {
                "namespace": "demo",
                "name": "cache-0",
                "why": "MadeBeforeLabel",
                "message": "it was made before the namespace was labelled",
                "remedy": "make the pod anew",
            }
        ],
    }
    assert sorted(described) == [
        "authz",
        "controller",
        "findings",
        "healthy",
        "installation",
        "namespaces",
        "pods",
        "resources",
        "unread",
        "webhooks",
    ]
    assert described["unread"] == {"certificates": {"code": "ClusterRefused", "message": "secrets is forbidden"}}
