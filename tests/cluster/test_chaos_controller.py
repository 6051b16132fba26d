"""What breaks around two controllers loses no status and gives no address twice; webhooks and authz run beside, under steady checks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hopgate.resources import addresses
from hopgate.resources.kinds import Tls
from tests.cluster import controllers
from tests.cluster import helm as helms
from tests.cluster.api_server import ApiServer, eventually
from tests.cluster.controllers import Controller
from tests.cluster.installation import Installation, Tenant, installed, tool_call
from tests.cluster.steady import Expected, Question, Steady, compact

# A process that is to lead waits until the one before has surely stopped (`election.LEASE_SECONDS`).
DEADLINE_SECONDS = 40.0
# Run before anything else of a Python program whose path it is on.
CLOCK = """
import time
real, real_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: real() + {0}, lambda: real_ns() + {0} * 10**9
"""
COLLIDING = 6


def colliding() -> list[str]:
    """Names by twos whose address would be the same, were they alone."""
    seen: dict[str, str] = {}
    pairs: list[str] = []
    for number in itertools.count():
        name = f"host-{number}.example.com"
        address = addresses.allot({name: Tls.OPEN}, {})[name]
        if address in seen:
            pairs += [seen.pop(address), name]
        else:
            seen[address] = name
        if len(pairs) == 2 * COLLIDING:
            return pairs
    raise AssertionError


@dataclass
class Cluster:
    """Two controllers, and a tenant whose agent may search."""

    installation: Installation
    tenant: Tenant
    token: str
    folder: Path
    user: Any
    running: dict[str, Controller]

    @property
    def server(self) -> ApiServer:
        return self.installation.server

    def load(self) -> Steady:
        space, always, never = self.tenant.namespace, Expected(allowed=True), Expected(allowed=False)
        questions = {
            "search": Question(request=tool_call(space, "search"), token=self.token, expected=always),
            "delete": Question(request=tool_call(space, "delete"), token=self.token, expected=never),
        }
        return Steady(self.installation.authz, questions)

    def start(self, pod: str, before: tuple[str, ...] = ()) -> Controller:
        self.running[pod] = Controller(self.server, self.user, self.folder, pod, before)
        self.running[pod].await_ready()
        return self.running[pod]

    def kill(self) -> None:
        """End both."""
        for each in self.running.values():
            each.kill()

    def make(self, prefix: str, hosts: list[str]) -> None:
        """A tool server for each host, from four writers at once."""
        with ThreadPoolExecutor(4) as writers:
            spec = {"protocol": "HTTP"}
            said = writers.map(lambda at: self.tenant.make("ToolServer", f"{prefix}-{at[0]}", {**spec, "hosts": [at[1]]}), enumerate(hosts))
            assert [each for each in said if each] == []

    def listed(self) -> list[dict[str, Any]]:
        found: Any = self.tenant.objects._custom.list_namespaced_custom_object(
            "hopgate.dev", "v1alpha1", self.tenant.namespace, "toolservers"
        )
        return list(found["items"])

    def given(self) -> dict[str, str]:
        """The address of each name, once every object has a status of what it is now."""

        def complete() -> dict[str, str]:
            found: dict[str, str] = {}
            for each in self.listed():
                status = each.get("status") or {}
                [condition] = status.get("conditions") or [{}]
                if condition.get("observedGeneration") != each["metadata"]["generation"]:
                    return {}
                hosts = each["spec"].get("hosts") or [f"tickets.{self.tenant.namespace}.svc"]
                told = {entry["host"]: entry["address"] for entry in status.get("addresses") or ()}
                if set(told) != set(hosts):
                    return {}
                found.update(told)
            return found

        found = eventually(complete, "every object has its status", DEADLINE_SECONDS)
        assert len(set(found.values())) == len(found), "an address was given twice"
        return found

    def clean(self) -> None:
        for each in self.listed():
            if each["metadata"]["name"] != "tickets":
                self.tenant.objects.delete("ToolServer", each["metadata"]["name"])


@pytest.fixture(scope="module")
def cluster(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("chaos")
    with ExitStack() as stack:
        server = stack.enter_context(ApiServer(cluster_binaries, folder / "server"))
        user = controllers.install(server)
        installation = stack.enter_context(installed(server, folder))
        # With the webhooks' rights came those of a controller beside them, in another namespace.
        rights = helms.rights(helms.of_this_machine().manifests(release=controllers.NAME, namespace=controllers.SYSTEM))
        of_controller = [each for each in rights if "controller" in each["metadata"]["name"]]
        server.kubectl("apply", "-f", "-", stdin=helms.as_list(of_controller))
        tenant = installation.tenant()
        _, token = tenant.agent("planner")
        tenant.tool_server()
        principal, tool = f'Hopgate::Agent::"{tenant.namespace}/planner"', f'Hopgate::Tool::"{tenant.namespace}/tickets/search"'
        cedar = f'permit (principal == {principal}, action == Hopgate::Action::"CallTool", resource == {tool});'
        assert tenant.attempt("Policy", "search", {"cedar": cedar}) == ""
        found = Cluster(installation, tenant, token, folder, user, {})
        stack.callback(found.kill)
        for pod in ("controller-1", "controller-2"):
            found.start(pod)
        eventually(lambda: installation.authz.allows(tool_call(tenant.namespace), token), "the policy is in force")
        eventually(lambda: controllers.leader(server), "one leads")
        yield found


@pytest.fixture
def hosts(cluster: Cluster) -> Iterator[list[str]]:
    yield colliding()
    cluster.clean()


def test_the_leader_is_killed_while_it_writes(cluster: Cluster, hosts: list[str]) -> None:
    with cluster.load() as steady:
        cluster.make("before", hosts[::2])
        before = cluster.given()
        leader = controllers.leader(cluster.server)
        cluster.make("after", hosts[1::2])
        cluster.running[leader].kill()
        after = cluster.given()
        assert controllers.leader(cluster.server) == next(pod for pod in cluster.running if pod != leader)
        cluster.start(leader)
        steady.more()
    # Whoever leads now has left every address as it was.
    assert {name: after[name] for name in before} == before
    assert (steady.wrong, steady.unanswered) == ([], 0)


def test_the_api_server_is_killed_while_statuses_are_written_and_its_history_is_gone(cluster: Cluster, hosts: list[str]) -> None:
    with cluster.load() as steady:
        cluster.make("before", hosts[::2])
        before = cluster.given()
        cluster.make("after", hosts[1::2])
        cluster.server.kill()
        steady.more()
        cluster.server.start()
        compact(cluster.server)
        after = cluster.given()
    assert {name: after[name] for name in before} == before
    assert (steady.wrong, steady.unanswered) == ([], 0)


def test_five_hundred_edits_lose_no_status(cluster: Cluster, hosts: list[str]) -> None:
    edits = 500
    cluster.make("edited", hosts)
    before = cluster.given()
    with cluster.load() as steady, ThreadPoolExecutor(8) as writers:

        def edit(number: int) -> str:
            return cluster.tenant.edit("ToolServer", f"edited-{number % len(hosts)}", {"port": 1000 + number})

        assert [each for each in writers.map(edit, range(edits)) if each and "modified" not in each] == []
        assert cluster.given() == before
        steady.more()
    assert (steady.wrong, steady.unanswered) == ([], 0)


@pytest.mark.parametrize("seconds", [120, -120])
def test_the_clock_of_the_leader_is_off(cluster: Cluster, hosts: list[str], seconds: int) -> None:
    """It goes on leading, the other does not take over, and what it writes is right."""
    clock = cluster.folder / f"clock{seconds}"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(CLOCK.format(seconds))
    cluster.kill()
    with cluster.load() as steady:
        cluster.start("controller-1", ("env", f"PYTHONPATH={clock}:{Path.cwd()}"))
        eventually(lambda: controllers.leader(cluster.server) == "controller-1", "it leads", DEADLINE_SECONDS)
        cluster.start("controller-2")
        cluster.make("clock", hosts)
        given = cluster.given()
        assert len(given) == len(hosts) + 1
        assert controllers.leader(cluster.server) == "controller-1"
        steady.more()
    assert (steady.wrong, steady.unanswered) == ([], 0)
