"""One gate for the tests of this folder that don't break it, with its outside world."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from hopgate.demo import credentials
from hopgate.demo.credentials import Issuer
from tests.end_to_end import manifests
from tests.end_to_end.gates import DEADLINE_SECONDS, HOPGATE, Gate, wait
from tests.end_to_end.upstreams import Steps, Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A gate and what is around it. `raw` and `web` keep what they were sent; `model` is the demo's API."""

    gate: Gate
    raw: Upstream
    web: Upstream
    issuer: Issuer


def build(folder: Path, stack: ExitStack, *options: str) -> World:
    """The world in `folder`; everything ends with `stack`. `options` go to `hopgate up`."""
    made = credentials.server_certificate("api.openai.com", datetime.datetime.now(datetime.UTC), "web.example.com", "api.anthropic.com")
    outside = folder / "outside"
    outside.mkdir(mode=0o700)
    (outside / "certificate.pem").write_bytes(made.certificate_pem)
    (outside / "key.pem").write_bytes(made.key_pem)
    (outside / "model-key").write_text(manifests.MARKER)
    listen = ("tickets=127.0.0.1:0", "model=127.0.0.1:0", "--folder", str(outside), "--ports", str(outside / "ports.json"))
    services = subprocess.Popen((sys.executable, "-m", "hopgate.demo.services", *listen))
    stack.callback(services.wait, DEADLINE_SECONDS)
    stack.callback(services.terminate)
    steps = Steps()
    stack.callback(steps.close)
    raw, web = Upstream(), Upstream((outside / "certificate.pem", outside / "key.pem"))
    message = {"type": "text", "text": "hello"}
    usage = {"input_tokens": 1, "output_tokens": 1}
    answer = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude-small",
        "content": [message],
        "stop_reason": "end_turn",
        "usage": usage,
    }
    anthropic = Upstream((outside / "certificate.pem", outside / "key.pem"), answer)
    stack.callback(anthropic.close)
    stack.callback(raw.close)
    stack.callback(web.close)
    wait((outside / "ports.json").exists, "the services listen")
    ports = {
        **json.loads((outside / "ports.json").read_text()),
        "raw": raw.port,
        "steps": steps.port,
        "web": web.port,
        "anthropic": anthropic.port,
    }
    issuer = Issuer("https://login.example")
    gate = Gate(folder, manifests.world(ports=ports, authority_pem=made.authority_pem, jwks=issuer.jwks()), *options)
    stack.callback(gate.stop)
    gate.start()
    return World(gate=gate, raw=raw, web=web, issuer=issuer)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        made = build(tmp_path_factory.mktemp("world"), stack)
        yield made
        made.gate.stop()
        # Whatever the tests had it decide: the same policies say the same again.
        command = (HOPGATE, "replay", "--policies", str(made.gate.resources), "--data", str(made.gate.data), "--json")
        again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS)
        assert again.returncode == 0, again.stdout + again.stderr
        told = json.loads(again.stdout)
        assert (told["unreadable"], told["judged"] > 0) == (0, True)


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    """A world that a test may break."""
    with ExitStack() as stack:
        yield build(tmp_path, stack)
