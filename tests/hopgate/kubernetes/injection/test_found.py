"""A gate that the injector made is whole with the settings that it was made with; whatever else is there is not taken for one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hopgate.kubernetes import injection, injection_found
from hopgate.kubernetes.injection import Injected
from hopgate.kubernetes.injection_found import GateState
from tests.hopgate.kubernetes.injection.json_patches import apply
from tests.hopgate.kubernetes.injection.pods import NAMESPACE, SETTINGS, SHAPES, pod

Fields = dict[str, Any]


def injected(made: Fields) -> Fields:
    outcome = injection.inject(made, namespace=NAMESPACE, settings=SETTINGS, may_opt_out=False)
    assert isinstance(outcome, Injected)
    result: Fields = apply(made, list(outcome.patch))
    return result


@pytest.mark.parametrize("name", SHAPES)
def test_a_pod_has_the_gate_that_it_was_given_and_none_before(name: str) -> None:
    assert injection_found.find(SHAPES[name]).state is GateState.NONE
    found = injection_found.find(injected(SHAPES[name]))
    assert (found.state, found.faults) == (GateState.WHOLE, ())
    assert found.settings is not None
    assert injection_found.same_gate(found.settings, SETTINGS) == ()


@pytest.mark.parametrize("name", SHAPES)
def test_the_patch_is_told_from_what_it_made(name: str) -> None:
    outcome = injection.inject(SHAPES[name], namespace=NAMESPACE, settings=SETTINGS, may_opt_out=False)
    assert isinstance(outcome, Injected)
    told = injection_found.explain(SHAPES[name], injected(SHAPES[name]))
    assert told is not None
    assert told == list(outcome.patch)


def _init(index: int, **fields: Any) -> Callable[[Fields], object]:
    return lambda made: made["spec"]["initContainers"][index].update(fields)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda made: made["spec"]["initContainers"].pop(0), id="no capture"),
        pytest.param(lambda made: made["spec"]["initContainers"].pop(1), id="no proxy"),
        pytest.param(lambda made: made["spec"]["initContainers"].reverse(), id="the proxy first"),
        pytest.param(lambda made: made["spec"]["initContainers"].insert(0, {"name": "own", "image": "own:1"}), id="another first"),
        pytest.param(_init(0, command=["true"]), id="another capture program"),
        pytest.param(_init(1, image="other:1"), id="another image of the proxy"),
        pytest.param(_init(1, command=["sleep"]), id="another proxy program"),
        pytest.param(_init(1, restartPolicy=None), id="a proxy that is no sidecar"),
        pytest.param(_init(0, securityContext={"runAsUser": 5}), id="a capture without rights"),
        pytest.param(lambda made: made["spec"]["volumes"].pop(), id="a volume less"),
        pytest.param(lambda made: made["spec"]["volumes"][0].update(emptyDir={}, projected=None), id="no token"),
        pytest.param(lambda made: made["spec"]["containers"][0]["securityContext"].update(privileged=True), id="an app with every right"),
        pytest.param(lambda made: made["spec"].update(hostNetwork=True), id="the node's network"),
        pytest.param(lambda made: made["metadata"].update(namespace="other"), id="another namespace's gate"),
        pytest.param(lambda made: made["spec"].update(ephemeralContainers=[{"name": "debug"}]), id="a container that came later"),
    ],
)
def test_a_gate_that_is_not_as_the_injector_makes_it_is_broken(change: Callable[[Fields], object]) -> None:
    whole = injected(pod())
    broken = copy.deepcopy(whole)
    change(broken)
    assert injection_found.find(whole).state is GateState.WHOLE
    found = injection_found.find(broken)
    assert found.state is GateState.BROKEN
    assert found.faults


def test_what_a_pod_says_of_itself_counts_for_nothing() -> None:
    boasting = pod(metadata={"labels": {"hopgate.dev/injected": "true"}, "annotations": {"hopgate.dev/injection": "0" * 16}})
    assert injection_found.find(boasting).state is GateState.NONE
    modest = injected(pod())
    modest["metadata"].update(labels={"hopgate.dev/inject": "disabled"}, annotations={})
    assert injection_found.find(modest).state is GateState.WHOLE


@pytest.mark.parametrize("made", [{}, {"spec": None}, {"spec": {"volumes": [{"name": "hopgate-token"}]}}, {"spec": {"volumes": [1]}}])
def test_what_is_no_pod_has_no_gate_that_is_whole(made: Any) -> None:
    assert injection_found.find(made).state is not GateState.WHOLE


def test_other_settings_are_named() -> None:
    other = replace(SETTINGS, image="hopgate-proxy:2", proxy_uid=1338)
    assert injection_found.same_gate(SETTINGS, other) == ("image", "proxy_uid")
