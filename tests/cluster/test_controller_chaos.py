"""Controllers that are killed, halted or two at once, and an API server that goes away: no status is lost, and no address is had twice."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from hopgate.kubernetes.api import ClientError, RefusedError
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.election import LEASE_SECONDS, Candidate
from hopgate.kubernetes.status_keeper import KINDS, StatusKeeper
from hopgate.kubernetes.status_store import StatusStore
from tests.cluster import controllers
from tests.cluster.api_server import ApiServer, User, eventually
from tests.cluster.watching import Objects, watching

# Leases run out and servers start again: half a minute each where nothing else runs.
pytestmark = pytest.mark.timeout(400)
SETTLED_SECONDS = 60.0


@pytest.fixture
def server(own_api_server: ApiServer) -> ApiServer:
    return own_api_server


@pytest.fixture
def user(server: ApiServer) -> User:
    return controllers.install(server)


@pytest.fixture
def admin(server: ApiServer) -> Iterator[Client]:
    client = Client.connect(server.admin.kubeconfig)
    yield client
    client.close()


def tool(name: str) -> dict[str, Any]:
    return {"protocol": "HTTP", "hosts": [f"{name}.example.com"]}


def everything(client: Client) -> list[Any]:
    return [item for kind in KINDS.values() for item in client.list(kind).items]


def is_told(item: Any) -> bool:
    """Whether its status is of its spec as it is."""
    generation, status = item["metadata"]["generation"], item.get("status") or {}
    return bool(
        status.get("observedGeneration") == generation
        and [each["observedGeneration"] for each in status.get("conditions", [])] == [generation]
        and [entry["host"] for entry in status.get("addresses", [])] == sorted(item["spec"].get("hosts", []))
    )


def shared(items: list[Any]) -> dict[str, list[str]]:
    """The addresses that more than one name has."""
    by_address: dict[str, list[str]] = {}
    for item in items:
        for entry in (item.get("status") or {}).get("addresses", []):
            by_address.setdefault(entry["address"], []).append(entry["host"])
    return {address: hosts for address, hosts in by_address.items() if len(hosts) > 1}


def settled(client: Client) -> list[Any]:
    """All objects, once each has its status. No two names have one address then."""

    def told() -> list[Any]:
        try:
            items = everything(client)
        except ClientError:
            return []
        return items if all(map(is_told, items)) else []

    items = eventually(told, "every status is of its object as it is", SETTLED_SECONDS)
    assert shared(items) == {}
    return items


class Editing:
    """A stream of edits from several threads: makes, edits and deletes, for as long as it is entered. The API server may be away."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self._server, self._namespace = server, namespace
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(3)]
        self.done = 0

    def __enter__(self) -> Editing:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _run(self, own: int) -> None:
        objects = Objects(self._server.client(retries=0), self._namespace)
        for number in itertools.count():
            if self._ending.is_set():
                return
            name = f"tool-{own}-{number % 25}"
            steps: list[Callable[[], Any]] = [
                lambda name=name: objects.make("ToolServer", name, tool(name)),  # type: ignore[misc]
                lambda name=name, number=number: objects.edit("ToolServer", name, {"hosts": [f"{name}-{number % 7}.example.com"]}),  # type: ignore[misc]
                lambda name=name, number=number: objects.delete("ToolServer", name) if number % 3 == 0 else None,  # type: ignore[misc]
            ]
            for step in steps:
                try:
                    step()
                    self.done += 1
                except (ApiException, HTTPError):
                    continue  # made twice, gone, or nobody answers: what counts is what comes out
            self._ending.wait(0.02)


# urllib3 leaves connections whose server was killed to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_leaders_are_killed_and_the_api_server_too_under_a_stream_of_edits(
    server: ApiServer, user: User, admin: Client, tmp_path: Path
) -> None:
    namespace = server.namespace()
    running = {name: controllers.Controller(server, user, tmp_path, name) for name in ("one", "two")}
    try:
        for each in running.values():
            each.await_ready()
        led = eventually(lambda: controllers.leader(server), "one leads")
        with Editing(server, namespace) as editing:
            eventually(lambda: editing.done > 150, "edits are under way")
            running.pop(led).kill()
            began = time.monotonic()
            [next_one] = running
            eventually(lambda: controllers.leader(server) == next_one, "the other one leads")
            # The Lease, a look each 2 s, and what a busy machine adds.
            assert time.monotonic() - began < 25
            done = editing.done
            eventually(lambda: editing.done > done + 60, "edits go on")
            server.kill()
            server.start()
            done = editing.done
            eventually(lambda: editing.done > done + 60, "edits go on")
        items = settled(admin)
        assert len(items) > 10
        assert "Traceback" not in running[next_one].log
    finally:
        for each in running.values():
            each.kill()


def test_five_hundred_edits_in_five_seconds_are_all_told(server: ApiServer, user: User, admin: Client, tmp_path: Path) -> None:
    objects = Objects(server.client(), server.namespace())
    names = [f"tool-{number}" for number in range(100)]
    with ThreadPoolExecutor(4) as pool, controllers.running(server, user, tmp_path) as controller:
        list(pool.map(lambda name: objects.make("ToolServer", name, tool(name)), names))
        settled(admin)
        began = time.monotonic()

        def edit(number: int) -> None:
            time.sleep(max(0.0, began + (number - 100) / 100 - time.monotonic()))  # the pace of the edits
            objects.edit("ToolServer", names[number % 100], {"hosts": [f"tool-{number}.example.com"]})

        list(pool.map(edit, range(100, 600)))
        items = settled(admin)
        assert {item["metadata"]["generation"] for item in items} == {6}
        assert "Traceback" not in controller.log


@contextmanager
def leading(server: ApiServer) -> Iterator[Callable[[], float | None]]:
    """A part of a controller that always takes itself for the leader: one look and what it writes."""
    client = Client.connect(server.admin.kubeconfig)
    store = StatusStore(lambda: None)
    told: list[Any] = []
    keeper = StatusKeeper(client, store, leads=lambda: True, tell=told.append, clock=time.monotonic, wall=time.time)
    with watching(server) as watch:
        watch.until(lambda built: True, "a snapshot")
        keeper.prepare()

        def step() -> float | None:
            for manifest in client.list(KINDS["ToolServer"]).items:
                store.put(manifest)
            return keeper.step(watch.built, {}, {})

        yield step
    keeper.close()
    client.close()


def test_two_that_both_write_give_no_address_twice(server: ApiServer, user: User, admin: Client) -> None:
    objects = Objects(server.client(), server.namespace())
    with ThreadPoolExecutor(4) as pool, leading(server) as one, leading(server) as two:
        ending = threading.Event()

        def work(step: Callable[[], float | None]) -> None:
            while not ending.is_set():
                step()

        working = [pool.submit(work, step) for step in (one, two)]
        try:
            made = pool.map(lambda number: objects.make("ToolServer", f"tool-{number}", tool(f"tool-{number}")), range(500))
            assert len(list(made)) == 500
            items = settled(admin)
        finally:
            ending.set()
        for each in working:
            each.result()
        assert len(items) == 500
        # They agree: nothing is written any more.
        before = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in settled(admin)}
        for step in (one, two, one):
            step()
        assert {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in settled(admin)} == before


def test_what_a_former_leader_writes_late_is_refused(server: ApiServer, user: User, admin: Client) -> None:
    objects = Objects(server.client(), server.namespace())
    objects.make("ToolServer", "one", tool("one"))
    with leading(server) as former, leading(server) as now:
        now()
        [seen] = everything(admin)
        objects.edit("ToolServer", "one", {"hosts": ["other.example.com"]})
        body = {
            "metadata": {key: seen["metadata"][key] for key in ("resourceVersion", "uid")},
            "status": {"addresses": [{"host": "one.example.com", "address": "198.18.3.4"}]},
        }
        path = f"/apis/hopgate.dev/v1alpha1/namespaces/{objects.namespace}/toolservers/one/status"
        with pytest.raises(RefusedError) as refused:
            admin.call("PATCH", path, body, content_type="application/merge-patch+json")
        assert refused.value.status == 409
        body["metadata"]["resourceVersion"] = everything(admin)[0]["metadata"]["resourceVersion"]
        admin.call("PATCH", path, body, content_type="application/merge-patch+json")

        def right() -> bool:
            for step in (former, now):
                step()
            [item] = everything(admin)
            return is_told(item)

        eventually(right, "it is put right")


def test_a_leader_that_is_halted_is_followed_and_does_not_write_when_it_goes_on(
    server: ApiServer, user: User, admin: Client, tmp_path: Path
) -> None:
    objects = Objects(server.client(), server.namespace())
    with controllers.running(server, user, tmp_path, "one") as one, controllers.running(server, user, tmp_path, "two") as two:
        led = eventually(lambda: controllers.leader(server), "one leads")
        halted, other = (one, two) if led == "one" else (two, one)
        halted.process.send_signal(signal.SIGSTOP)
        try:
            for number in range(20):
                objects.make("ToolServer", f"tool-{number}", tool(f"tool-{number}"))
            eventually(lambda: controllers.leader(server) == other.pod, "the other one leads")
            settled(admin)
        finally:
            halted.process.send_signal(signal.SIGCONT)
        eventually(lambda: "another process leads now" in halted.log or halted.probe() == 200, "it goes on")
        for number in range(20):
            objects.edit("ToolServer", f"tool-{number}", {"hosts": [f"new-{number}.example.com"]})
        settled(admin)
        assert controllers.leader(server) == other.pod


@pytest.mark.parametrize("ahead", [-120.0, 120.0])
def test_a_clock_that_is_two_minutes_off_makes_no_second_leader(server: ApiServer, ahead: float) -> None:
    server.kubectl("create", "namespace", controllers.SYSTEM)
    client = Client.connect(server.admin.kubeconfig)

    def candidate(name: str, off: float) -> Candidate:
        return Candidate(
            client,
            namespace=controllers.SYSTEM,
            name="hopgate-controller",
            identity=name,
            clock=time.monotonic,
            wall=lambda: time.time() + off,
        )

    candidates = {"right": candidate("right", 0.0), "wrong": candidate("wrong", ahead)}
    try:
        for first, second in (("wrong", "right"), ("right", "wrong")):
            former, follower = candidates[first], candidates[second]
            former.step()
            began = time.monotonic()
            assert former.leads()

            def follows(follower: Candidate = follower, former: Candidate = former) -> bool:
                follower.step()
                assert not (former.leads() and follower.leads())
                return follower.leads()

            eventually(follows, "the other one leads")
            assert time.monotonic() - began >= LEASE_SECONDS - 1
            follower.resign()
            candidates[second] = candidate(second, ahead if second == "wrong" else 0.0)
    finally:
        client.close()
