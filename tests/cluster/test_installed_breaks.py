"""What breaks around a running agent on a node: no request is lost, none has a wrong verdict, and no failure lets anything through."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster import governed_pods
from tests.cluster.api_server import eventually
from tests.cluster.governed_pods import PERMITTED_PATH, Place
from tests.cluster.helm import NAMESPACE
from tests.cluster.installed import VALUES, Installed

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

# Asks for both paths in turn, each over a connection of its own, as long as its pod is there; tells each status on a line.
_STEADY = """
import sys, time, urllib.error, urllib.request

while True:
    for path in sys.argv[2:]:
        try:
            with urllib.request.urlopen(sys.argv[1] + path, timeout=30) as answer:
                print(path, answer.status, flush=True)
        except urllib.error.HTTPError as error:
            print(path, error.code, flush=True)
        except Exception as error:
            print(path, repr(error), flush=True)
    time.sleep(0.05)
"""
_RIGHT = {PERMITTED_PATH: "200", "/etc/passwd": "403"}
_names = itertools.count()


@dataclass(frozen=True, slots=True)
class Steady:
    """An agent's pod that goes on asking."""

    place: Place
    pod: str

    def answers(self) -> list[str]:
        """What it was answered so far, from its log on the node: neither the kubelet nor the API server is needed for it."""
        written = self.place.installed.node.run("sh", "-c", f"cat /var/log/pods/{self.place.agents}_{self.pod}_*/app/*.log")
        # CRI's form: time, stream, whole or partial, text.
        return [line.split(" ", 3)[3] for line in written.splitlines()]

    def more(self, count: int = 60) -> None:
        """Wait until so many more answers have come."""
        wanted = len(self.answers()) + count
        eventually(lambda: len(self.answers()) >= wanted, f"{count} more answers", 120.0)


@pytest.fixture(scope="module")
def place(installed: Installed) -> Place:
    return governed_pods.make(installed)


@contextmanager
def load(place: Place, *, closed: bool = False) -> Iterator[Steady]:
    """Requests go on around what the block does; at the end every answer was the right one.

    With `closed` some may have been refused for want of a decision (503): what a killed process had in its hands.
    """
    name = f"steady-{next(_names)}"
    governed_pods.start_agent(place, name, command=["python3", "-c", _STEADY, place.url, *_RIGHT])
    steady = Steady(place, name)
    steady.more()
    yield steady
    steady.more()
    lines = [line.partition(" ") for line in steady.answers()]
    wrong = [(path, status) for path, _, status in lines if _RIGHT.get(path) != status]
    assert [status for _, status in wrong if not (closed and status == "503")] == []
    assert len(wrong) <= len(lines) // 10
    assert governed_pods.failed_open(place.installed) == 0
    place.installed.server.kubectl("delete", "pod", name, "-n", place.agents)


def test_the_load_notices_a_wrong_answer(place: Place) -> None:
    """Else the other tests of this file could not fail."""
    policy = ("clusterpolicy", f"reads-{place.tools}")
    kubectl = place.installed.server.kubectl
    cedar = kubectl("get", *policy, "-o", "jsonpath={.spec.cedar}")

    def forbid() -> None:
        with load(place) as steady:
            kubectl("patch", *policy, "--type=merge", "-p", _cedar(cedar.replace(PERMITTED_PATH, "/elsewhere")))
            eventually(lambda: f"{PERMITTED_PATH} 403" in steady.answers(), "the edit is in force")

    with pytest.raises(AssertionError):
        forbid()
    kubectl("patch", *policy, "--type=merge", "-p", _cedar(cedar))


def _cedar(text: str) -> str:
    quoted = text.replace('"', '\\"')
    return f'{{"spec": {{"cedar": "{quoted}"}}}}'


@pytest.mark.parametrize("how", ["in order", "killed"])
def test_authz_pods_deleted_one_by_one(place: Place, how: str) -> None:
    at_once = () if how == "in order" else ("--grace-period=0", "--force")
    with load(place, closed=how == "killed") as steady:
        for pod in place.installed.pods("authz"):
            place.installed.server.kubectl("delete", "pod", pod, "-n", NAMESPACE, "--wait=false", *at_once)
            place.installed.wait_ready()
            steady.more()


def test_authz_upgraded(place: Place) -> None:
    values: dict[str, Any] = {**VALUES, "authz": {**VALUES["authz"], "resources": {"requests": {"cpu": "60m"}}}}
    before = set(place.installed.pods("authz"))
    with load(place) as steady:
        place.installed.deploy("upgrade", values)
        steady.more()
        place.installed.helm.run("rollback", "hopgate", "--namespace", NAMESPACE, user=place.installed.server.admin)
        place.installed.wait_ready()
    assert set(place.installed.pods("authz")) - before


def test_the_kubelet_restarted(place: Place) -> None:
    node = place.installed.node
    with load(place) as steady:
        node.server.kill("kubelet")
        node.start_kubelet()
        steady.more()
        assert governed_pods.start_agent(place, "after-the-kubelet") == "after-the-kubelet"


def test_the_webhooks_and_the_controllers_restarted(place: Place) -> None:
    with load(place):
        for component in ("webhooks", "controller"):
            for pod in place.installed.pods(component):
                place.installed.server.kubectl("delete", "pod", pod, "-n", NAMESPACE, "--grace-period=0", "--force")
        place.installed.wait_ready()
        assert governed_pods.start_agent(place, "after-the-webhooks") == "after-the-webhooks"


def test_the_api_server_away_and_back(place: Place) -> None:
    server = place.installed.server
    with load(place) as steady:
        server.kill()
        steady.more(200)
        server.start()
        steady.more()
        assert governed_pods.start_agent(place, "after-the-api-server") == "after-the-api-server"
