"""A governed agent's surroundings on the real kernel, weakened where a test needs a way around the gate, and the real sensor process.

    agent's namespace ── veth ── outside: a server on every address
      │ a gate of the test's own listens on loopback; rules turn TCP and DNS to it, but for user 1337

The agent, the gate and a stranger have a cgroup each. Nothing is left behind: namespaces are known by descriptors, cgroups are removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from hopgate import kernel
from hopgate.local import cgroups
from hopgate.local.cgroups import Cgroup
from hopgate.local.sensor_process import SensorProcess
from sensor.events import TCP, UDP
from sensor.state import GateListener, GovernedAgent, State
from tests.network_namespaces import Namespace

CALLER = Path(__file__).parent / "programs" / "caller.py"
PROXY_PORT, DNS_PORT, PORT = 15001, 15053, 8443
EXEMPT_USER = 1337
OUTSIDE = {4: "198.51.100.1", 6: "2001:db8:51::1"}
RULES = f"""
table inet gate {{
  chain output {{
    type nat hook output priority -100;
    meta skuid {EXEMPT_USER} accept
    udp dport 53 redirect to :{DNS_PORT}
    tcp dport 53 redirect to :{DNS_PORT}
    oifname != "lo" meta l4proto tcp redirect to :{PROXY_PORT}
  }}
}}
"""


class Watched:
    """`inside` is the agent's network namespace, `outside` a stranger's."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self._stack = stack
        self.data = folder
        self.inside, self.outside = Namespace(), Namespace()
        stack.callback(self.inside.close)
        stack.callback(self.outside.close)
        self.without_cgroups = False
        self.agent, self.gate, self.stranger = (self._cgroup(name) for name in ("agent", "gate", "stranger"))
        self._link()
        self.start("serve", f"{OUTSIDE[4]}+{OUTSIDE[6]}", PORT, cgroup=self.stranger, namespace=self.outside)

    def turn(self, *, gate: bool = True) -> None:
        """Put the rules in force, and a gate where they lead."""
        self.inside.run("nft", "-f", "-", stdin=RULES)
        if not gate:
            return
        self.start("serve", "127.0.0.1+::1", PROXY_PORT, cgroup=self.gate)
        self.start("serve", "127.0.0.1+::1", DNS_PORT, cgroup=self.gate)

    def state(self, sequence: int = 1) -> State:
        """What a gate would tell the sensor."""
        listening = ((TCP, PROXY_PORT), (TCP, DNS_PORT), (UDP, DNS_PORT))
        agent = GovernedAgent(
            agent="demo/planner",
            cgroup_id=0 if self.without_cgroups else self.agent.id,
            netns_cookie=kernel.within(self.inside.descriptor, kernel.netns_cookie),
            listeners=tuple(
                GateListener(protocol=protocol, ip=ip, port=port, cgroup_id=self.gate.id)
                for protocol, port in listening
                for ip in ("127.0.0.1", "::1")
            ),
        )
        return State(sequence=sequence, agents=(agent,), gate_cgroups=(self.gate.id,))

    @contextlib.asynccontextmanager
    async def sensor(self, said: list[str] | None = None) -> AsyncIterator[SensorProcess]:
        """The sensor, told the state; it has written everything when the block has ended."""
        process = SensorProcess(self.data, (said if said is not None else []).append, wanted=True)
        await process.update(self.state())
        process.begin(pause_seconds=0)
        try:
            await process.started()
            await process.update(self.state())  # it is there when this returns
            yield process
        finally:
            await process.stop()

    def call(self, way: str, address: str, port: int = PORT, count: int = 1, *more: str, **how: Any) -> None:
        """Run the agent's program to its end."""
        done = subprocess.run(
            **self._command(way, address, port, count, more, **how), capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr

    def start(self, way: str, address: str, port: int = PORT, count: int = 1, *more: str, **how: Any) -> subprocess.Popen[str]:
        """Run a program that has said its first line and goes on."""
        process = subprocess.Popen(**self._command(way, address, port, count, more, **how), stdin=-1, stdout=-1, text=True)
        self._stack.callback(end, process)
        assert process.stdout is not None
        assert process.stdout.readline() != ""
        return process

    def flows(self) -> list[dict[str, Any]]:
        """Every flow that was written."""
        lines = [line for path in sorted((self.data / "spool" / "flows").glob("*.jsonl")) for line in path.read_bytes().splitlines()]
        return [json.loads(line)["record"] for line in lines]

    def _command(
        self,
        way: str,
        address: str,
        port: int,
        count: int,
        more: tuple[str, ...],
        *,
        cgroup: Cgroup | None = None,
        namespace: Namespace | None = None,
        user: int = 0,
    ) -> dict[str, Any]:
        """As which cgroup, in which namespace and as which user: the agent's own unless it is said."""
        entered = (self.inside if namespace is None else namespace).descriptor
        script = 'echo 0 > "$1"; shift; exec "$@"'
        command = ("sh", "-c", script, "sh", str((cgroup or self.agent).processes), "nsenter", f"--net=/proc/self/fd/{entered}", "--")
        as_user = ("setpriv", f"--reuid={user}", "--clear-groups", "--") if user else ()
        called = (sys.executable, "-S", str(CALLER), way, address, str(port), str(count), *more)
        return {"args": (*command, *as_user, *called), "pass_fds": (entered,)}

    def _cgroup(self, name: str) -> Cgroup:
        made = cgroups.make(f"hopgate-test-{os.getpid()}-{id(self)}-{name}")
        assert made is not None
        self._stack.callback(cgroups.remove, made.path)
        return made

    def _link(self) -> None:
        for namespace in (self.inside, self.outside):
            namespace.raise_loopback()
        self.inside.run(
            "ip", "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", f"/proc/{os.getpid()}/fd/{self.outside.descriptor}"
        )
        for namespace, name, last in ((self.inside, "out", 2), (self.outside, "in", 1)):
            namespace.run("ip", "address", "add", f"198.51.100.{last}/24", "dev", name)
            namespace.run("ip", "address", "add", f"2001:db8:51::{last}/64", "dev", name, "nodad")
            namespace.run("ip", "link", "set", name, "up")


def end(process: subprocess.Popen[str]) -> None:
    """End a program by its standard input."""
    process.communicate(timeout=30)


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """The surroundings, without rules."""
    with contextlib.ExitStack() as stack:
        yield Watched(stack, folder)
