"""Injection, pod by pod: golden patches, refusals beside what is accepted, and what holds for any pod."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from hopgate.kubernetes import injection, injection_settings, sidecar
from hopgate.kubernetes.injection import Injected, Left, LeftBecause, Refused
from hopgate.kubernetes.injection_reasons import ReasonCode
from hopgate.kubernetes.injection_settings import NamespaceFacts, Settings, SettingsError
from tests.hopgate.kubernetes.injection import json_patches, patches
from tests.hopgate.kubernetes.injection.pods import NAMESPACE, REFUSED, SETTINGS, SHAPES, Fields, app, pod

# In a pod that says it was injected these are taken for the gate's own, and replaced by the real ones.
REPLACED = ("an init container of our name", "a volume of our name")


def injected(given: Fields, settings: Settings = SETTINGS) -> Fields:
    outcome = injection.inject(given, namespace=NAMESPACE, settings=settings, may_opt_out=False)
    assert isinstance(outcome, Injected), str(outcome)
    made: Fields = json_patches.apply(given, outcome.patch)
    return made


def codes(given: Fields, settings: Settings = SETTINGS) -> set[str]:
    outcome = injection.inject(given, namespace=NAMESPACE, settings=settings, may_opt_out=False)
    return {reason.code.value for reason in outcome.reasons} if isinstance(outcome, Refused) else set()


@pytest.mark.parametrize("name", SHAPES)
def test_a_pod_is_injected_as_its_golden_file_says(name: str) -> None:
    """`python -m tests.hopgate.kubernetes.injection.patches` rewrites the files."""
    assert patches.text(SHAPES[name]) == (patches.FOLDER / f"{name}.json").read_text()


def test_there_is_a_golden_file_for_each_pod_and_no_other() -> None:
    assert {file.stem for file in patches.FOLDER.iterdir()} == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_injected_is_left_as_it_is_when_asked_again(name: str) -> None:
    assert patches.patch(injected(SHAPES[name])).patch == []


@pytest.mark.parametrize("name", SHAPES)
def test_a_pod_is_not_changed_by_asking(name: str) -> None:
    before = copy.deepcopy(SHAPES[name])
    patches.patch(SHAPES[name])
    assert SHAPES[name] == before


@pytest.mark.parametrize("name", REFUSED)
def test_a_pod_that_could_step_over_the_gate_is_refused(name: str) -> None:
    code, refused, accepted = REFUSED[name]
    outcome = injection.inject(refused, namespace=NAMESPACE, settings=SETTINGS, may_opt_out=False)
    assert isinstance(outcome, Refused)
    assert {reason.code.value for reason in outcome.reasons} == {code}
    assert all(reason.field and reason.message and reason.remedy for reason in outcome.reasons)
    assert codes(accepted) == set()


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in REPLACED])
def test_a_pod_is_refused_although_it_says_that_it_was_injected(name: str) -> None:
    """An injected pod that is changed to what is refused is refused: nothing that it says of itself is believed."""
    code, refused, _ = REFUSED[name]
    before = injected(pod())
    copied = copy.deepcopy(refused)
    copied["metadata"].setdefault("annotations", {}).update(before["metadata"]["annotations"])
    assert codes(copied) == {code}


def test_names_of_ours_in_a_pod_that_says_it_was_injected_are_replaced_by_the_real_ones() -> None:
    forged = injected(pod())
    forged["spec"]["initContainers"][1]["image"] = "mine:1"
    forged["spec"]["initContainers"][1]["env"] = [{"name": "LD_PRELOAD", "value": "/mine.so"}]
    forged["spec"]["initContainers"][1]["volumeMounts"].append({"name": "mine", "mountPath": "/mine"})
    forged["spec"]["volumes"][0] = {"name": sidecar.TOKEN_VOLUME, "emptyDir": {}}
    assert injected(forged) == injected(pod())


def test_every_code_of_a_refusal_has_a_pod() -> None:
    tested = {code for code, *_ in REFUSED.values()} | {"OptOut", "UnknownUser"}
    assert tested == {code.value for code in ReasonCode}


def test_all_reasons_are_told_at_once() -> None:
    assert codes(pod(app(securityContext={"privileged": True}), hostNetwork=True, hostPID=True)) == {"Privileged", "HostNetwork", "HostPid"}


def test_a_user_that_only_the_image_knows_is_refused_where_the_settings_say_so() -> None:
    strict = replace(SETTINGS, refuse_unknown_users=True)
    assert codes(pod(), strict) == {"UnknownUser"}
    assert codes(pod(app(securityContext={"runAsUser": 1000})), strict) == set()
    assert any("its image decides" in warning for warning in patches.patch(pod()).warnings)


@pytest.mark.parametrize(
    ("labels", "may", "expected"),
    [
        ({"hopgate.dev/inject": "disabled"}, True, Left),
        ({"hopgate.dev/inject": "disabled"}, False, Refused),
        ({}, True, Injected),
        ({"hopgate.dev/inject": "enabled"}, False, Injected),
    ],
    ids=["asked for with the right", "asked for without", "not asked for", "asked for the gate"],
)
def test_a_pod_is_left_alone_only_for_one_who_has_the_right(labels: dict[str, str], may: bool, expected: type) -> None:
    given = pod(metadata={"labels": labels})
    assert isinstance(injection.inject(given, namespace=NAMESPACE, settings=SETTINGS, may_opt_out=may), expected)


def test_an_annotation_is_no_opt_out() -> None:
    assert codes(pod(metadata={"annotations": {"hopgate.dev/inject": "disabled"}})) == set()
    assert injected(pod(metadata={"annotations": {"hopgate.dev/inject": "disabled"}}))["spec"]["initContainers"]


def test_other_namespaces_are_not_touched() -> None:
    outcome = injection.inject(
        REFUSED["privileged"][1], namespace=NamespaceFacts(name="x", governed=False), settings=SETTINGS, may_opt_out=False
    )
    assert outcome == Left(because=LeftBecause.NAMESPACE_NOT_GOVERNED)


def _add_sidecar_last(made: Fields) -> None:
    made["spec"]["containers"].append(app(name="mesh", image="mesh:1", readinessProbe={"tcpSocket": {"port": 4000}}))


def _add_init_container_first(made: Fields) -> None:
    made["spec"].setdefault("initContainers", []).insert(0, app(name="mesh-init", image="mesh:1"))


def _add_volume(made: Fields) -> None:
    made["spec"].setdefault("volumes", []).insert(0, {"name": "mesh", "emptyDir": {}})
    made["spec"]["containers"][0].setdefault("volumeMounts", []).insert(0, {"name": "mesh", "mountPath": "/mesh"})


def _add_api_token(made: Fields) -> None:
    """As the ServiceAccount plugin does, to every container that has none."""
    made["spec"].setdefault("volumes", []).append({"name": "kube-api-access-x", "projected": {"sources": []}})
    mount = {"name": "kube-api-access-x", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    for container in [*made["spec"].get("initContainers", []), *made["spec"]["containers"]]:
        container.setdefault("volumeMounts", []).append(mount)


OTHERS = [_add_sidecar_last, _add_init_container_first, _add_volume, _add_api_token]


@pytest.mark.parametrize("other", OTHERS, ids=[other.__name__ for other in OTHERS])
@pytest.mark.parametrize("name", ["bare", "http-probes", "own-native-sidecar", "own-volumes"])
def test_another_webhook_before_or_after_makes_no_difference_to_what_holds(name: str, other: Any) -> None:
    before, after = copy.deepcopy(SHAPES[name]), injected(SHAPES[name])
    other(before)
    other(after)
    first, second = injected(before), injected(after)
    for made in (first, second):
        assert_governed(made)
        assert patches.patch(made).patch == []
    assert {container["name"] for container in second["spec"]["initContainers"]} == {
        container["name"] for container in first["spec"]["initContainers"]
    }
    assert plan(first) == plan(second)


def plan(made: Fields) -> sidecar.Plan:
    return sidecar.parse(made["spec"]["initContainers"][0]["env"][0]["value"])


def assert_governed(made: Fields) -> None:
    """What holds for every pod that was let in."""
    spec = made["spec"]
    listed: list[Fields] = [*spec["initContainers"], *spec["containers"]]
    capture, proxy, apps = listed[0], listed[1], listed[2:]
    assert (capture["name"], proxy["name"], proxy["restartPolicy"]) == ("hopgate-capture", "hopgate-proxy", "Always")
    assert capture["securityContext"]["capabilities"] == {"add": ["NET_ADMIN"], "drop": ["ALL"]}
    assert proxy["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert proxy["securityContext"]["runAsUser"] == SETTINGS.proxy_uid
    for ours in (capture, proxy):
        assert ours["securityContext"]["readOnlyRootFilesystem"]
        assert ours["securityContext"]["allowPrivilegeEscalation"] is False
        assert ours["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert [found["name"] for found in [capture, *apps] if "hopgate-token" in {m["name"] for m in found["volumeMounts"]}] == []
    assert "hopgate-token" in {mount["name"] for mount in proxy["volumeMounts"]}
    (token,) = [volume for volume in spec["volumes"] if volume["name"] == "hopgate-token"]
    (source,) = token["projected"]["sources"]
    assert source["serviceAccountToken"] == {"audience": SETTINGS.audience, "expirationSeconds": 3600, "path": "token"}
    for found in apps:
        context = found["securityContext"]
        dropped = {name.upper().removeprefix("CAP_") for name in context["capabilities"]["drop"]}
        assert "ALL" in dropped or {"NET_RAW", "SETUID"} <= dropped
        assert context["allowPrivilegeEscalation"] is False
        assert [m for m in found["volumeMounts"] if m["name"].startswith("hopgate-")] == [
            {"name": "hopgate-trust", "mountPath": "/etc/hopgate/trust", "readOnly": True}
        ]
    assert made["metadata"]["annotations"]["hopgate.dev/injection"] == injection_settings.digest(SETTINGS)
    assert injection.injected_with(made) == injection_settings.digest(SETTINGS)


@pytest.mark.parametrize("name", SHAPES)
def test_what_holds_for_every_pod(name: str) -> None:
    assert_governed(injected(SHAPES[name]))


@pytest.mark.parametrize("name", SHAPES)
def test_a_plan_is_read_as_it_was_written(name: str) -> None:
    made = plan(injected(SHAPES[name]))
    assert sidecar.parse(made.to_json()) == made
    assert made.agent == ("demo/default" if name == "default-service-account" else "demo/planner")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"agent": 1}', "[" * 100_000], ids=["empty", "{}", "[]", "null", "types", "deep"]
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(sidecar.PlanError):
        sidecar.parse(text)


def test_a_pod_that_is_not_governed_says_so() -> None:
    assert injection.injected_with(pod()) is None
    assert (
        injection.injected_with(pod(metadata={"annotations": {"hopgate.dev/injection": "x"}, "labels": {"hopgate.dev/injected": "true"}}))
        is None
    )
    assert injection.injected_with(injected(pod())) is not None


@pytest.mark.parametrize(
    "change",
    [{"image": "hopgate-proxy:2"}, {"proxy_uid": 4000}, {"token_seconds": 600}, {"authz_addresses": ("10.96.0.21",)}],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_changed_have_another_digest_and_bring_a_pod_up_to_date(change: dict[str, Any]) -> None:
    changed = replace(SETTINGS, **change)
    assert injection_settings.digest(changed) != injection_settings.digest(SETTINGS)
    assert injected(injected(pod()), changed) == injected(pod(), changed)


@pytest.mark.parametrize(
    ("change", "accepted"),
    [({"token_seconds": 3601}, {"token_seconds": 3600}), ({"proxy_uid": 0}, {"proxy_uid": 1})],
    ids=["a long token", "root"],
)
def test_settings_that_are_not_safe_are_refused(change: dict[str, Any], accepted: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        replace(SETTINGS, **change)
    replace(SETTINGS, **accepted)


def test_no_provider_key_reaches_the_app_and_no_other_value_is_touched() -> None:
    (container,) = injected(SHAPES["provider-keys"])["spec"]["containers"]
    found = {entry["name"]: entry for entry in container["env"]}
    assert found["OPENAI_API_KEY"] == {"name": "OPENAI_API_KEY", "value": "hopgate-placeholder"}
    assert found["ANTHROPIC_API_KEY"]["value"] == "hopgate-placeholder"
    assert found["LOG_LEVEL"] == {"name": "LOG_LEVEL", "value": "debug"}
    assert "written-out" not in json.dumps(injected(SHAPES["provider-keys"]))


def test_a_registered_providers_sdk_finds_a_placeholder() -> None:
    assert {"name": "OPENAI_API_KEY", "value": "hopgate-placeholder"} in injected(pod())["spec"]["containers"][0]["env"]
    bare = injection.inject(pod(), namespace=NamespaceFacts(name="demo", governed=True), settings=SETTINGS, may_opt_out=False)
    assert isinstance(bare, Injected)
    assert "OPENAI_API_KEY" not in json.dumps(bare.patch)
