"""Any pod: it is refused, or it is injected once and for all, and everything that its owner wrote is still there."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hopgate import variables
from hopgate.kubernetes import injection, injection_app, injection_patch
from hopgate.kubernetes.injection import Injected, Refused
from hopgate.kubernetes.sidecar import CONTAINERS, HEALTH_PORT, VOLUMES
from tests.hopgate.kubernetes.injection import json_patches
from tests.hopgate.kubernetes.injection.pods import NAMESPACE, SETTINGS, Fields
from tests.hopgate.kubernetes.injection.test_injection import assert_governed, plan

NAMES = st.sampled_from(["app", "cache", "log", "mesh", "hopgate-proxy", "hopgate-capture"])
CAPABILITIES = st.lists(st.sampled_from(["ALL", "CHOWN", "NET_RAW", "SETUID", "NET_ADMIN", "cap_kill"]), max_size=3, unique=True)
PORTS = st.sampled_from([80, 8080, "http", "none", 15006, HEALTH_PORT])
ACTIONS: st.SearchStrategy[Fields] = st.one_of(
    st.fixed_dictionaries({"httpGet": st.fixed_dictionaries({"path": st.sampled_from(["/", "/probe/app/readinessProbe"]), "port": PORTS})}),
    st.fixed_dictionaries({"tcpSocket": st.fixed_dictionaries({"port": PORTS}, optional={"host": st.just("198.51.100.7")})}),
    st.fixed_dictionaries({"grpc": st.fixed_dictionaries({"port": st.sampled_from([80, 9000])})}),
    st.just({"exec": {"command": ["true"]}}),
)
VARIABLES = st.sampled_from(["OPENAI_API_KEY", "SSL_CERT_FILE", "LOG_LEVEL", "HTTPS_PROXY"])
ENTRIES = st.fixed_dictionaries({"name": VARIABLES, "value": st.sampled_from(["", "x"])})
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "runAsUser": st.sampled_from([0, 1000, 1337]),
        "privileged": st.booleans(),
        "allowPrivilegeEscalation": st.booleans(),
        "capabilities": st.fixed_dictionaries({}, optional={"add": CAPABILITIES, "drop": CAPABILITIES}),
    },
)
MOUNTS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["data", "hopgate-token", "hopgate-trust"]), "mountPath": st.sampled_from(["/data", "/etc/hopgate/trust"])}
    ),
    max_size=2,
    unique_by=lambda mount: str(mount["mountPath"]),
)
CONTAINERS_OF_APPS = st.fixed_dictionaries(
    {"name": NAMES, "image": st.just("app:1")},
    optional={
        "env": st.lists(ENTRIES, max_size=3),
        "volumeMounts": MOUNTS,
        "securityContext": CONTEXTS,
        "ports": st.just([{"name": "http", "containerPort": 8080}]),
        **dict.fromkeys(injection_app.PROBES, ACTIONS),
    },
)
LISTS = st.lists(CONTAINERS_OF_APPS, min_size=1, max_size=3, unique_by=lambda container: str(container["name"]))
VOLUME_LISTS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["data", "more", "hopgate-token", "hopgate-admin"]), "emptyDir": st.just({})}),
    max_size=3,
    unique_by=lambda volume: str(volume["name"]),
)
METADATA = st.fixed_dictionaries(
    {"name": st.just("planner")},
    optional={
        "labels": st.just({"app": "planner"}),
        "annotations": st.sampled_from([{}, {"hopgate.dev/injection": "x"}, {"team": "demo"}]),
    },
)
PODS: st.SearchStrategy[Fields] = st.fixed_dictionaries(
    {
        "metadata": METADATA,
        "spec": st.fixed_dictionaries(
            {"containers": LISTS},
            optional={"initContainers": LISTS, "volumes": VOLUME_LISTS, "hostNetwork": st.booleans(), "securityContext": CONTEXTS},
        ),
    }
)


def outcome_of(pod: Fields) -> Injected | Refused:
    outcome = injection.inject(pod, namespace=NAMESPACE, settings=SETTINGS, may_opt_out=False)
    assert isinstance(outcome, Injected | Refused)
    return outcome


@given(pod=PODS)
def test_a_pod_is_refused_or_governed_and_asking_again_changes_nothing(pod: Fields) -> None:
    before = copy.deepcopy(pod)
    outcome = outcome_of(pod)
    assert pod == before
    if isinstance(outcome, Refused):
        assert outcome.reasons
        return
    made = json_patches.apply(pod, outcome.patch)
    assert_governed(made)
    again = outcome_of(made)
    assert isinstance(again, Injected)
    assert again.patch == []
    _assert_kept(pod, made)


def _assert_kept(pod: Fields, made: Fields) -> None:
    """All of the owner's, but for probes and provider keys, which are where the plan and the placeholder are."""
    planned = {probe.name: probe for probe in plan(made).probes}
    for kind in ("initContainers", "containers"):
        own = [container for container in pod["spec"].get(kind, []) if container["name"] not in CONTAINERS]
        now = [container for container in made["spec"].get(kind, []) if container["name"] not in CONTAINERS]
        assert [container["name"] for container in now] == [container["name"] for container in own]
        for was, found in zip(own, now, strict=True):
            injection_app.restore_probes(found, planned)
            _assert_container_kept(was, found)
    assert [volume for volume in made["spec"]["volumes"] if volume["name"] not in VOLUMES] == [
        volume for volume in pod["spec"].get("volumes", []) if volume["name"] not in VOLUMES
    ]


def _assert_container_kept(was: Fields, found: Fields) -> None:
    for field in (*injection_app.PROBES, "image", "ports"):
        assert found.get(field) == was.get(field)
    for entry, now in zip(was.get("env", []), found["env"], strict=False):
        replaced = entry["name"] in variables.PROVIDER_KEYS and entry["value"]
        assert now == ({**entry, "value": variables.PLACEHOLDER} if replaced else entry)
    assert found["volumeMounts"][: len(was.get("volumeMounts", []))] == was.get("volumeMounts", [])
    context, now = was.get("securityContext", {}), found["securityContext"]
    assert {**now, **{key: value for key, value in context.items() if key != "capabilities"}} == now
    capabilities = context.get("capabilities", {})
    assert now["capabilities"].get("add") == capabilities.get("add")
    assert now["capabilities"]["drop"][: len(capabilities.get("drop", []))] == capabilities.get("drop", [])


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "a/b", "~"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "mountPath", "a/b", "~c"]), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"name": st.sampled_from("abcd"), "value": inner}), max_size=4)
    ),
    max_leaves=12,
)


@given(before=VALUES, after=VALUES)
def test_a_patch_turns_the_one_value_into_the_other(before: Any, after: Any) -> None:
    whole_before, whole_after = {"spec": before}, {"spec": after}
    assert json_patches.apply(whole_before, injection_patch.difference(whole_before, whole_after)) == whole_after


@given(pod=VALUES)
def test_what_is_no_pod_is_refused_and_never_an_error(pod: Any) -> None:
    given_pod = {"metadata": pod, "spec": pod}
    assert isinstance(outcome_of(given_pod), Refused | Injected)
