"""The process of a node's sensor at a real API server: pods are objects here, and their containers cgroups that the test makes.

What a kubelet would write of a pod is written by the test; the programs, their handshakes and the kernel are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

import hopgate
from hopgate.local.rights import require_root
from sensor import enforcement, objects, programs
from tests.cluster.api_server import ApiServer, eventually, free_ports
from tests.sensor.model_world import ModelWorld

pytestmark = [pytest.mark.root, pytest.mark.bpf, pytest.mark.slow, pytest.mark.timeout(180)]

MODEL, OTHER = "api.openai.com", "www.example.com"
IMAGE: Final = "registry.example.com/bot@sha256:" + "ab" * 32
NODE: Final = "one"
_CALLER: Final = """
import socket, sys, time, urllib.request
while True:
    try:
        socket.create_connection(("127.0.0.1", 443), 5).close()
        urllib.request.urlopen(sys.argv[1], timeout=5).read()
        said = "ok"
    except Exception as error:
        said = type(getattr(error, "reason", error)).__name__
    with open(sys.argv[2], "a") as file:
        file.write(said + "\\n")
    time.sleep(0.1)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod's object and the cgroup of its one container."""

    namespace: str
    name: str
    cgroup: Path


class Machine:
    """One node that is this machine: pods on it, and the sensor."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.namespace = server.namespace()
        self.spool = folder / "spool"
        self._root = programs.root() / f"hopgate-test-{os.getpid()}-node"
        self._root.mkdir()
        [self.port] = free_ports(1)

    def pod(self, name: str, account: str = "default", number: int = 1) -> Pod:
        """A running pod of a Deployment of that name."""
        container = os.urandom(32).hex()
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-5d8f", "uid": os.urandom(8).hex(), "controller": True}
        metadata: dict[str, Any] = {
            "name": f"{name}-5d8f-{number}",
            "namespace": self.namespace,
            "labels": {"pod-template-hash": "5d8f"},
            "ownerReferences": [owner],
        }
        spec = {"nodeName": NODE, "serviceAccountName": account, "containers": [{"name": "bot", "image": IMAGE}]}
        made = self._apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        status = {
            "name": "bot",
            "containerID": f"containerd://{container}",
            "image": IMAGE,
            "imageID": IMAGE,
            "ready": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
        patch = json.dumps({"status": {"phase": "Running", "containerStatuses": [status]}})
        self.server.kubectl("patch", "pod", metadata["name"], "-n", self.namespace, "--subresource=status", "--type=merge", "-p", patch)
        cgroup = self._root / f"pod{made['metadata']['uid']}" / container
        cgroup.mkdir(parents=True)
        return Pod(namespace=self.namespace, name=metadata["name"], cgroup=cgroup)

    def _apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.server.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(manifest)))
        return found

    def shadows(self) -> list[dict[str, Any]]:
        """The shadow agents of this namespace's pods."""
        items = json.loads(self.server.kubectl("get", "shadowagents", "-o", "json"))["items"]
        return [each for each in items if each.get("status", {}).get("where", {}).get("namespace") == self.namespace]

    def register(self, account: str) -> None:
        """An `Agent` for a service account."""
        self._apply(
            {"apiVersion": "hopgate.dev/v1alpha1", "kind": "Agent", "metadata": {"name": account, "namespace": self.namespace}, "spec": {}}
        )

    def quarantine(self, name: str, *, on: bool) -> None:
        self.server.kubectl("patch", "shadowagent", name, "--type=merge", "-p", json.dumps({"spec": {"quarantine": on}}))

    @contextlib.contextmanager
    def sensor(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """The process, ready."""
        kubeconfig = self.server.user("sensor", "system:masters").kubeconfig
        where = ("--node", NODE, "--spool", str(self.spool), "--health", f"127.0.0.1:{self.port}", "--kubeconfig", str(kubeconfig))
        with subprocess.Popen((sys.executable, "-m", "sensor.node", *where, *options)) as running:
            try:
                eventually(self.is_ready, "the sensor is ready")
                yield running
            finally:
                running.terminate()
                running.wait(30)

    def is_ready(self) -> bool:
        asked = subprocess.run(("curl", "-sf", "--noproxy", "*", f"http://127.0.0.1:{self.port}/readyz"), check=False, capture_output=True)
        return asked.returncode == 0

    def metrics(self) -> dict[str, float]:
        """By name and labels."""
        asked = subprocess.run(
            ("curl", "-sf", "--noproxy", "*", f"http://127.0.0.1:{self.port}/metrics"), check=True, capture_output=True, text=True
        )
        return {
            f"{sample.name}{sorted(sample.labels.values())}": sample.value
            for family in text_string_to_metric_families(asked.stdout)
            for sample in family.samples
        }

    def flows(self) -> list[dict[str, Any]]:
        lines = [line for path in sorted((self.spool / "flows").glob("*.jsonl")) for line in path.read_bytes().splitlines()]
        return [json.loads(line)["record"] for line in lines]

    def remove(self) -> None:
        for folder in sorted(self._root.rglob("*"), reverse=True):
            if folder.is_dir():
                folder.rmdir()
        self._root.rmdir()
        for each in self.shadows():
            self.server.kubectl("delete", "shadowagent", each["metadata"]["name"])


@pytest.fixture
def machine(hopgate_definitions: ApiServer, tmp_path: Path) -> Iterator[Machine]:
    require_root("this test")
    objects.build()
    objects.build(objects.QUARANTINE)
    made = Machine(hopgate_definitions, tmp_path)
    yield made
    made.remove()


@contextlib.asynccontextmanager
async def calling(world: ModelWorld, pod: Pod, host: str) -> AsyncIterator[Callable[[], list[str]]]:
    """A program of a pod that calls again and again; gives what came of each call so far."""
    (world.folder / "bot.py").write_text(_CALLER, encoding="utf-8")
    said = world.folder / f"{pod.name}.said"
    entering = ("sh", "-c", f'echo 0 > "{pod.cgroup}/cgroup.procs"; exec "$@"', "sh")
    started = await world.start(*entering, sys.executable, "bot.py", f"https://{host}/", str(said))
    try:
        yield lambda: said.read_text(encoding="utf-8").splitlines() if said.exists() else []
    finally:
        started.send_signal(signal.SIGKILL)
        await started.wait()


async def until(condition: Callable[[], Any], _: str, seconds: float = 30.0) -> Any:
    """What `condition` gives when it gives something, asked in a thread: the servers of the test's world run in this loop."""
    async with asyncio.timeout(seconds):
        while not (found := await asyncio.to_thread(condition)):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)  # between two looks at what other processes do
        return found


async def test_a_pods_program_that_calls_a_model_becomes_an_object_and_its_neighbours_do_not(machine: Machine, tmp_path: Path) -> None:
    machine.register("planner")
    shadow, other, known = machine.pod("bot"), machine.pod("other"), machine.pod("planner", "planner")
    async with ModelWorld(tmp_path, (MODEL, OTHER)) as world:
        with machine.sensor():
            async with calling(world, shadow, MODEL), calling(world, other, OTHER), calling(world, known, MODEL) as said:
                [found] = await until(machine.shadows, "the shadow agent is told")
                await until(lambda: len(said()) > 20, "its neighbours have called as often")
                assert len(await asyncio.to_thread(machine.shadows)) == 1
                told = await asyncio.to_thread(machine.metrics)
                assert told[f"hopgate_sensor_info{sorted((hopgate.__version__, 'CO-RE'))}"] == 1
                assert told["hopgate_sensor_ready[]"] == 1
                assert told["hopgate_sensor_ring_attempts_total['events']"] > told["hopgate_sensor_flows_total[]"] > 0
                assert told["hopgate_sensor_ring_lost_total['events']"] == told["hopgate_sensor_quarantines_unenforced[]"] == 0
                assert {f"hopgate_sensor_watch_age_seconds['{kind}']" for kind in ("Agent", "Pod", "ShadowAgent")} <= told.keys()
    status = found["status"]
    assert status["where"] == {
        "node": NODE,
        "namespace": machine.namespace,
        "workload": "Deployment/bot",
        "pod": shadow.name,
        "container": "bot",
        "imageDigest": "sha256:" + "ab" * 32,
        "serviceAccount": "default",
        "cgroup": f"/{shadow.cgroup.relative_to(programs.root())}",
    }
    assert found["spec"] == {"quarantine": False}
    assert any(MODEL in each["message"] for each in status["evidence"])
    assert [each["host"] for each in status["reached"]] == [MODEL]
    assert status["firstSeen"] <= status["lastSeen"]
    # The agent that is registered and has no gate goes around it.
    flows = machine.flows()
    assert {each["agent"] for each in flows} == {f"{machine.namespace}/planner"}
    assert "Bypass" in {each["verdict"] for each in flows if each["protocol"] == "TCP"}


async def test_a_quarantine_cuts_off_each_pod_of_the_workload_and_outlives_the_sensor(machine: Machine, tmp_path: Path) -> None:
    pod = machine.pod("bot")
    pins = enforcement.PINS.with_name(f"hopgate-test-{os.getpid()}")
    options = ("--enforce", "--pins", str(pins))

    def condition(name: str) -> tuple[str, str]:
        [found] = [each for each in machine.shadows() if each["metadata"]["name"] == name]
        [standing] = found["status"].get("conditions") or [{"status": "", "reason": ""}]
        return standing["status"], standing["reason"]

    try:
        async with ModelWorld(tmp_path, (MODEL, OTHER)) as world, calling(world, pod, MODEL) as said:
            with machine.sensor(*options) as running:
                [found] = await until(machine.shadows, "the shadow agent is told")
                name = found["metadata"]["name"]
                await asyncio.to_thread(machine.quarantine, name, on=True)
                await until(lambda: said()[-1] == "PermissionError", "it is cut off")
                await until(lambda: condition(name) == ("True", "Enforced"), "the object says so")
                another = await asyncio.to_thread(machine.pod, "bot", number=2)
                async with calling(world, another, MODEL) as said_there:
                    await until(lambda: said_there()[-5:] == ["PermissionError"] * 5, "so is what the workload starts now")
                running.kill()
                await asyncio.to_thread(running.wait, 30)
                count = len(said())
                await until(lambda: len(said()) > count + 5, "it has called again")
                assert set(said()[count:]) == {"PermissionError"}
            with machine.sensor(*options):
                await asyncio.to_thread(machine.quarantine, name, on=False)
                await until(lambda: said()[-1] == "ok", "it is let go")
                await until(lambda: condition(name) == ("False", "Released"), "the object says so")
    finally:
        enforcement.uninstall(pins)


async def test_who_only_looks_says_that_nothing_is_cut_off(machine: Machine, tmp_path: Path) -> None:
    pod = machine.pod("bot")
    async with ModelWorld(tmp_path, (MODEL, OTHER)) as world, calling(world, pod, MODEL) as said:
        with machine.sensor():
            [found] = await until(machine.shadows, "the shadow agent is told")
            await asyncio.to_thread(machine.quarantine, found["metadata"]["name"], on=True)
            [standing] = await until(lambda: machine.shadows()[0]["status"].get("conditions"), "the object says so")
            assert (standing["type"], standing["status"], standing["reason"]) == ("Quarantined", "False", "EnforcementOff")
            count = len(said())
            await until(lambda: len(said()) > count + 3, "it has called again")
            assert set(said()[count:]) == {"ok"}
