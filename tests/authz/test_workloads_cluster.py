"""A cluster: an agent is known by the token of a pod that exists, and no longer than pod, Agent and keys do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from authz.workloads import Refusal
from authz.workloads_cluster import SECONDS_BETWEEN_REFRESHES, Cluster, ClusterWorkloads
from hopgate.identity.names import ObjectName
from hopgate.kubernetes.pods import Pod, Pods
from tests.tokenmint.forge import NOW
from tests.tokenmint.service_accounts import AUDIENCE, ISSUER, JWKS, LIFE, RSA, STRANGER, bound, public_jwk, token

POD = Pod(uid="pod-uid", namespace="demo", name="planner-1", service_account="planner", ips=("10.0.0.1",))
PLANNER = ObjectName("demo", "trip-planner")
AGENTS = {("demo", "planner"): PLANNER}
CLUSTER = Cluster(jwks=JWKS, pods=Pods.of((POD,)), agents=AGENTS)


class Known:
    """Workloads of one cluster, and how often its keys were asked for."""

    def __init__(self, cluster: Cluster = CLUSTER, capacity: int = 10) -> None:
        self.asked = 0
        self.workloads = ClusterWorkloads(issuer=ISSUER, audience=AUDIENCE, request_keys=self._ask, capacity=capacity)
        self.workloads.cluster = cluster

    def _ask(self) -> None:
        self.asked += 1

    def who(self, text: str | None, now: int = NOW) -> ObjectName | str:
        """The agent, or the code of the refusal."""
        found = self.workloads.identify(text, now)
        if isinstance(found, Refusal):
            assert not text or len(text) < 20 or text not in found.message
            return found.code
        return found

    def change(self, **changes: object) -> None:
        self.workloads.cluster = replace(self.workloads.cluster, **changes)  # type: ignore[arg-type]  # fields by name


def pods(**changes: object) -> Pods:
    return Pods.of((replace(POD, **changes),))  # type: ignore[arg-type]  # fields by name


def test_a_pods_token_gives_the_agent_of_its_service_account() -> None:
    known = Known()
    assert [known.who(token()), known.who(token())] == [PLANNER, PLANNER]


@pytest.mark.parametrize(
    ("cluster", "code"),
    [
        pytest.param(Cluster(), "TokenKeyUnknown", id="nothing is known yet"),
        pytest.param(replace(CLUSTER, jwks={}), "TokenKeyUnknown", id="no keys"),
        pytest.param(replace(CLUSTER, pods=Pods()), "PodUnknown", id="no pods"),
        pytest.param(replace(CLUSTER, pods=pods(uid="next-uid")), "PodUnknown", id="a pod of the same name made later"),
        pytest.param(replace(CLUSTER, pods=pods(namespace="other")), "PodMismatch", id="a pod of that uid in another namespace"),
        pytest.param(replace(CLUSTER, pods=pods(name="planner-2")), "PodMismatch", id="a pod of that uid with another name"),
        pytest.param(replace(CLUSTER, pods=pods(service_account="default")), "ServiceAccountMismatch", id="the pod runs as another"),
        pytest.param(replace(CLUSTER, agents={}), "AgentUnknown", id="no agents"),
        pytest.param(replace(CLUSTER, agents={("other", "planner"): PLANNER}), "AgentUnknown", id="an agent of another namespace"),
        pytest.param(replace(CLUSTER, agents={("demo", "default"): PLANNER}), "AgentUnknown", id="an agent of another service account"),
    ],
)
def test_refuses_with_one_fact_of_the_cluster_changed(cluster: Cluster, code: str) -> None:
    known = Known(cluster)
    assert known.who(token()) == code
    assert known.workloads.counters[code] == 1
    known.change(jwks=CLUSTER.jwks, pods=CLUSTER.pods, agents=CLUSTER.agents)
    assert known.who(token()) == PLANNER


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param(None, "CredentialMissing", id="nothing"),
        pytest.param("", "TokenMalformed", id="empty text"),
        pytest.param("\udcff", "TokenMalformed", id="no text"),
        pytest.param(token(aud=["other"]), "TokenAudience", id="for another audience"),
        pytest.param(token(STRANGER), "TokenSignature", id="signed by a stranger"),
        pytest.param(token(kubernetes_io=bound(pod={"name": "planner-1", "uid": "gone"})), "PodUnknown", id="of a pod that is gone"),
    ],
)
def test_refuses_a_token_with_one_fact_changed(text: str | None, code: str) -> None:
    known = Known()
    assert [known.who(text), known.who(text), known.who(token())] == [code, code, PLANNER]


class TestWhatIsRemembered:
    def test_a_token_is_verified_once(self) -> None:
        known = Known()
        for moment in range(NOW, NOW + LIFE, 60):
            assert known.who(token(), moment) == PLANNER
        assert (known.workloads.counters["verified"], known.workloads.counters["remembered"]) == (1, LIFE // 60 - 1)

    def test_is_refused_at_once_when_its_pod_is_gone(self) -> None:
        known = Known()
        assert known.who(token()) == PLANNER
        known.change(pods=Pods())
        assert known.who(token()) == "PodUnknown"
        known.change(pods=CLUSTER.pods)
        assert known.who(token()) == PLANNER

    def test_is_refused_at_once_when_its_agent_is_gone(self) -> None:
        known = Known()
        assert known.who(token()) == PLANNER
        known.change(agents={})
        assert known.who(token()) == "AgentUnknown"

    def test_is_verified_again_with_other_keys(self) -> None:
        known = Known()
        assert known.who(token()) == PLANNER
        known.change(jwks={"keys": [*JWKS["keys"], public_jwk(STRANGER, kid="two")]})
        assert known.who(token()) == PLANNER
        assert known.workloads.counters["verified"] == 2
        known.change(jwks={"keys": [public_jwk(STRANGER, kid="two")]})
        assert known.who(token()) == "TokenKeyUnknown"
        known.change(jwks={"keys": [public_jwk(STRANGER, kid="one")]})
        assert known.who(token()) == "TokenSignature"

    def test_ends_with_the_token(self) -> None:
        known = Known()
        assert known.who(token(), NOW + LIFE + 29) == PLANNER
        assert known.who(token(), NOW + LIFE + 30) == "TokenExpired"
        assert len(known.workloads) == 0

    def test_does_not_hold_before_the_token_when_the_clock_is_set_back(self) -> None:
        known = Known()
        assert known.who(token()) == PLANNER
        assert known.who(token(), NOW - 31) == "TokenNotYetValid"

    def test_is_bounded_and_the_first_makes_room(self) -> None:
        known = Known(capacity=2)
        texts = [token(jti=str(number)) for number in range(3)]
        assert [known.who(text) for text in (*texts, texts[2], texts[1], texts[0])] == [PLANNER] * 6
        assert len(known.workloads) == 2
        assert known.workloads.counters["verified"] == 4

    def test_nonsense_takes_no_place(self) -> None:
        known = Known(capacity=1)
        assert known.who(token()) == PLANNER
        for number in range(50):
            known.who(token(STRANGER, jti=str(number)))
        known.who(token())
        assert known.workloads.counters["verified"] == 1

    def test_two_pods_tokens_are_two(self) -> None:
        other = replace(POD, uid="other-uid", name="writer-1", service_account="writer")
        writer = ObjectName("demo", "writer")
        agents = {**AGENTS, ("demo", "writer"): writer}
        known = Known(Cluster(jwks=JWKS, pods=Pods.of((POD, other)), agents=agents))
        text = token(
            sub="system:serviceaccount:demo:writer",
            kubernetes_io=bound(pod={"name": "writer-1", "uid": "other-uid"}, serviceaccount={"name": "writer", "uid": "writer-account"}),
        )
        assert [known.who(token()), known.who(text), known.who(token()), known.who(text)] == [PLANNER, writer, PLANNER, writer]


class TestKeysAreAskedFor:
    def test_for_a_key_id_that_is_not_known_and_then_known(self) -> None:
        known = Known(replace(CLUSTER, jwks={"keys": [public_jwk(STRANGER, kid="zero")]}))
        assert known.who(token()) == "TokenKeyUnknown"
        assert known.asked == 1
        known.change(jwks={"keys": [public_jwk(RSA, kid="one")]})
        assert known.who(token()) == PLANNER
        assert known.asked == 1

    def test_at_most_once_in_a_while_however_many_come(self) -> None:
        known = Known()
        for moment in range(NOW, NOW + 3 * SECONDS_BETWEEN_REFRESHES):
            for number in range(20):
                assert known.who(token(header={"kid": f"k{number}"}), moment) == "TokenKeyUnknown"
        assert known.asked == 3

    def test_also_after_the_clock_was_set_back(self) -> None:
        known = Known()
        for moment in (NOW, NOW - 300):
            known.who(token(header={"kid": "k"}), moment)
        assert known.asked == 2

    def test_for_nothing_else(self) -> None:
        known = Known()
        for text in (token(), token(STRANGER), token(aud=["other"]), "x", None):
            known.who(text)
        assert known.asked == 0


@pytest.mark.parametrize("given", [{"issuer": ""}, {"audience": ""}, {"capacity": 0}], ids=["no issuer", "no audience", "no room"])
def test_an_empty_setting_is_a_mistake_and_not_anything(given: dict[str, object]) -> None:
    settings: dict[str, object] = {"issuer": ISSUER, "audience": AUDIENCE, "capacity": 1, "request_keys": lambda: None}
    ClusterWorkloads(**settings)  # type: ignore[arg-type]  # by name
    with pytest.raises(ValueError, match="expected an issuer, an audience and room"):
        ClusterWorkloads(**(settings | given))  # type: ignore[arg-type]  # by name
