"""The sensor as an installation has it, on a node: who calls models is told, with the container that does."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import pytest

from tests.cluster import model_callers
from tests.cluster.api_server import eventually
from tests.cluster.helm import NAMESPACE
from tests.cluster.installed import Installed
from tests.cluster.model_callers import MODEL, OTHER, WAYS, Callers

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

TOLD_SECONDS: Final = 5.0


@pytest.fixture(scope="module")
def callers(installed: Installed) -> Callers:
    """`model` calls a model's API all the time, `other` something else; neither is registered, and the namespace has no label."""
    made = model_callers.make(installed.node)
    made.start("model", MODEL)
    made.start("other", OTHER)
    return made


def told(installed: Installed, pod: str) -> list[dict[str, Any]]:
    """What the sensors have told of a pod, oldest first."""
    lines = [line for sensor in installed.pods("sensor") for line in installed.node.logs(NAMESPACE, sensor).splitlines()]
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return [row for row in rows if row["pod"] == pod]


def test_a_caller_of_a_model_is_told_with_its_container_and_another_is_not(installed: Installed, callers: Callers) -> None:
    model, other = callers.uid("model"), callers.uid("other")
    eventually(lambda: callers.ways("model", "ok"), "it has called")
    called = time.time()
    newest = eventually(lambda: told(installed, model), "the caller is told", TOLD_SECONDS)[-1]
    assert time.time() - called < TOLD_SECONDS
    container, _ = callers.container("model")
    assert (newest["kind"], newest["container"], newest["program"]) == ("Shadow", container, "/usr/bin/python3.11")
    assert [place["host"] for place in newest["reached"]] == [MODEL]
    since = time.time()
    eventually(lambda: callers.ways("other", "ok", since) == WAYS, "the other one goes on calling")
    assert told(installed, other) == []


def test_looking_leaves_nothing_in_the_kernel_that_could_cut_off(callers: Callers) -> None:
    assert "hopgate" not in callers.node.run("ls", "/sys/fs/bpf").split()
