"""How soon an edited policy is in force in every authz, and what edits cost the checks beside them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import grpc.aio

from authz.pb import ext_authz_pb2 as pb
from authz.server import METHOD
from bench import checks, cluster_world
from bench.figures import Figure, percentile
from hopgate.kubernetes.client import Client
from hopgate.resources import addresses
from hopgate.resources.kinds import Tls
from tests.authz.certificates import HOST, Mounted

EDITS = 40
# Checks without and with edits by turns, so that what else the machine does falls on both.
CHECKS_A_SECOND, TURNS, TURN_SECONDS, EDITS_A_SECOND = 200, 4, 2.5, 4
PAUSE_SECONDS = 0.15
LIMIT_MS = 8.0
SERVICE = "tools-0.bench-0.svc"


@dataclass(frozen=True, kw_only=True)
class Edited:
    """A policy of `bench-0` to edit, the processes that it should be in force in, and how many `others` namespaces there are to edit in."""

    client: Client
    ports: Sequence[int]
    mounted: Mounted
    token: str
    others: int

    def put(self, tool: str) -> None:
        """Let agent-0 call this tool and no other."""
        spec = cluster_world.rule("bench-0", "agent-0", "tools-0", tool)
        path = f"{cluster_world.API}/namespaces/bench-0/policies/agent-0"
        self.client.call("PATCH", path, {"spec": spec}, content_type="application/merge-patch+json")

    def touch(self, number: int) -> None:
        """Edit another object: by turns an agent and a policy."""
        namespace = f"bench-{1 + number % self.others}"
        kind, spec = ("agents", {"owner": f"team-{number}"})
        if number % 2:
            kind, spec = "policies", cluster_world.rule(namespace, "agent-3", "tools-3", ("third", "search")[number // 2 % 2])
        path = f"{cluster_world.API}/namespaces/{namespace}/{kind}/agent-3"
        self.client.call("PATCH", path, {"spec": spec}, content_type="application/merge-patch+json")


class Channels:
    """A connection to each process."""

    def __init__(self, edited: Edited, channels: Sequence[grpc.aio.Channel]) -> None:
        self._asks = [channel.unary_unary(METHOD) for channel in channels]
        self._metadata = (("authorization", f"Bearer {edited.token}"), ("x-hopgate-direction", "outbound"))
        address = addresses.allot({SERVICE: Tls.DISABLED}, {})[SERVICE]
        other = {**checks.CALL, "params": {"name": "other", "arguments": {}}}
        self._requests = {"search": checks.request(SERVICE, 80, address, checks.CALL), "other": checks.request(SERVICE, 80, address, other)}

    async def allows(self, process: int, tool: str) -> bool:
        answer = await self._asks[process](self._requests[tool], metadata=self._metadata, timeout=10)
        return bool(pb.CheckResponse.FromString(answer).status.code == 0)

    async def until(self, tool: str) -> None:
        """Until every process allows it."""
        async with asyncio.TaskGroup() as group:
            for process in range(len(self._asks)):
                group.create_task(self._until(process, tool))

    async def _until(self, process: int, tool: str) -> None:
        async with asyncio.timeout(20):
            while not await self.allows(process, tool):  # noqa: ASYNC110 - another process has no event to wait for
                await asyncio.sleep(0.002)

    async def load(self, seconds: float) -> list[float]:
        """Checks at a fixed rate, by turns to each process; milliseconds of each."""
        spent: list[float] = []

        async def one(number: int) -> None:
            started = time.perf_counter()
            await self.allows(number % len(self._asks), "search")
            spent.append((time.perf_counter() - started) * 1000)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * CHECKS_A_SECOND)):
                await asyncio.sleep(max(0.0, began + number / CHECKS_A_SECOND - time.perf_counter()))
                group.create_task(one(number))
        return spent


async def measure(edited: Edited, where: str) -> list[Figure]:
    """Without checks beside the edits, with them, and the checks without and with edits."""
    credentials = grpc.ssl_channel_credentials(edited.mounted.authority.certificate_pem)
    async with AsyncExitStack() as stack:
        opened = [
            grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=(("grpc.ssl_target_name_override", HOST),))
            for port in edited.ports
        ]
        channels = Channels(edited, [await stack.enter_async_context(channel) for channel in opened])
        await asyncio.to_thread(edited.put, "search")
        await channels.until("search")
        quiet = await _edits(edited, channels, EDITS)
        loading = asyncio.create_task(channels.load(EDITS))
        busy = await _edits(edited, channels, EDITS)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        without: list[float] = []
        beside: list[float] = []
        for turn in range(TURNS):
            without += await channels.load(TURN_SECONDS)
            touching = asyncio.create_task(_touch(edited, turn))
            beside += await channels.load(TURN_SECONDS)
            touching.cancel()
            await asyncio.gather(touching, return_exceptions=True)
    return [
        *_figures(f"{where}: an edit in force in both processes", quiet),
        *_figures(f"{where}: the same at {CHECKS_A_SECOND} checks a second", busy),
        _compared(f"{where}: checks", without, beside),
        Figure(
            what=f"{where}: checks over {LIMIT_MS:.0f} ms of {len(without)}, without edits / with {EDITS_A_SECOND} a second",
            value=f"{sum(each > LIMIT_MS for each in without)} / {sum(each > LIMIT_MS for each in beside)}",
            target="none more",
        ),
    ]


async def _edits(edited: Edited, channels: Channels, count: int) -> list[float]:
    """Milliseconds from the API server's answer to the last process's changed verdict."""
    spent = []
    for _, tool in zip(range(count), itertools.cycle(("other", "search")), strict=False):
        await asyncio.to_thread(edited.put, tool)
        started = time.perf_counter()
        await channels.until(tool)
        spent.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(PAUSE_SECONDS)
    return spent


async def _touch(edited: Edited, turn: int) -> None:
    for number in itertools.count(turn):
        await asyncio.to_thread(edited.touch, number)
        await asyncio.sleep(1 / EDITS_A_SECOND)


def _figures(what: str, spent: Sequence[float]) -> list[Figure]:
    shown = f"{percentile(spent, 0.5):.0f} / {percentile(spent, 0.95):.0f} / {percentile(spent, 0.99):.0f} ms"
    return [Figure(what=f"{what}, p50 / p95 / p99", value=shown, target="p99 1000 ms")]


def _compared(what: str, without: Sequence[float], beside: Sequence[float]) -> Figure:
    shown = " ".join(f"{percentile(each, 0.5):.1f}/{percentile(each, 0.99):.1f}/{max(each):.0f}" for each in (without, beside))
    return Figure(what=f"{what} without edits, with: p50/p99/max", value=f"{shown} ms")
