"""`make demo`: two agents behind one gate, and a table of every decision. A composition root.

Everything is made in a temporary folder and ended before the table is printed; nothing is left behind.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hopgate.demo import credentials
from hopgate.demo.credentials import Issuer

HERE = Path(__file__).resolve().parent
# Each part starts in a second or two; a loaded machine may need many times that.
DEADLINE_SECONDS = 40.0
RESEARCHER = "http://researcher.demo.svc:8080"
TICKETS = "http://tickets.demo.svc/mcp"


class DemoError(RuntimeError):
    """A part of the demo did not start or did not end as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """Where the demo's parts are."""

    folder: Path
    resources: Path
    data: Path
    issuer: Issuer


def main() -> int:
    """Run the demo. Exit code 0 when everything went as the policies say."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hopgate-demo-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        demo = Demo(folder=folder, resources=folder / "resources", data=folder / "data", issuer=Issuer())
        _say("Starting the outside world: a ticket server (MCP) and a model API (TLS, wants a key), on loopback.")
        _render(demo, stack.enter_context(_outside_world(demo)))
        _say("Starting the gate:           hopgate up --resources … --data …")
        stack.enter_context(_running(demo, "up", "--resources", str(demo.resources)))
        _wait(lambda: _quietly(demo, "status"), "the gate")
        _say("Starting the researcher:     hopgate run --agent demo/researcher --listen 8080 -- python researcher.py …")
        stack.enter_context(_running(demo, *_run("researcher", demo, "--listen", "8080"), "8080", RESEARCHER + "/", TICKETS))
        _wait(lambda: "demo/researcher" in _output(demo, "status"), "the researcher")
        _say("The planner works:           hopgate run --agent demo/planner -- python planner.py …\n")
        user = demo.issuer.user_token(int(time.time()))
        planner = _finish(demo, *_run("planner", demo), RESEARCHER, TICKETS, user)
        _say("\nNow the planner tries to leave by other ways:\n")
        with _listening_socket() as path:
            runaway = _finish(demo, *_run("planner", demo, program="runaway"), str(path))
        seconds = time.monotonic() - started
        _say("\nEvery decision, read from the records:\n")
        _finish(demo, "audit", "list", "--oldest-first", "--limit", "200")
        whole = _finish(demo, "audit", "verify")
        _say("\nWhy the planner's wider search was denied:    hopgate explain ID --policies …\n")
        explained = _finish(demo, "explain", _denied_call(demo), "--policies", str(demo.resources))
    _say(f"\nThat took {seconds:.0f} s. Now try an agent of your own (README, five minutes):")
    _say("  hopgate run --agent NAMESPACE/NAME --resources FOLDER -- COMMAND…")
    _say("  hopgate audit --verdict Deny      hopgate explain ID --policies FOLDER      hopgate replay --policies FOLDER")
    return planner or runaway or whole or explained


def _run(agent: str, demo: Demo, *options: str, program: str | None = None) -> tuple[str, ...]:
    script = str(HERE / "agents" / f"{program or agent}.py")
    # The environment is bound in case the checkout is below /tmp, which is empty inside.
    given = ("--resources", str(demo.resources), "--bind", sys.prefix, *options)
    return ("run", "--agent", f"demo/{agent}", *given, "--", sys.executable, script)


def _command(demo: Demo, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """`hopgate` with the demo's data folder, put after the command's words and before its options."""
    words = next((at for at, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    return (str(Path(sys.executable).with_name("hopgate")), *arguments[:words], "--data", str(demo.data), *arguments[words:])


@contextlib.contextmanager
def _running(demo: Demo, *arguments: str) -> Iterator[None]:
    """A hopgate command that goes on until the block ends."""
    process = subprocess.Popen(_command(demo, arguments), cwd=HERE / "agents")
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _finish(demo: Demo, *arguments: str) -> int:
    return subprocess.run(_command(demo, arguments), cwd=HERE / "agents", check=False, timeout=DEADLINE_SECONDS).returncode


def _output(demo: Demo, *arguments: str) -> str:
    return subprocess.run(_command(demo, arguments), check=False, capture_output=True, text=True, timeout=DEADLINE_SECONDS).stdout


def _denied_call(demo: Demo) -> str:
    """The id of the first tool call that no policy permitted."""
    chosen = ("--reason", "NoPermit", "--action", "CallTool", "--oldest-first", "--limit", "1", "--json")
    return str(json.loads(_output(demo, "audit", "list", *chosen))["id"])


def _quietly(demo: Demo, *arguments: str) -> bool:
    return subprocess.run(_command(demo, arguments), check=False, capture_output=True, timeout=DEADLINE_SECONDS).returncode == 0


def _wait(done: Callable[[], bool], what: str) -> None:
    """Ask until it is so. Raises DemoError after the deadline."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not done():
        if time.monotonic() > end:
            raise DemoError(f"{what} was not ready after {DEADLINE_SECONDS:.0f} s: see what it said above")
        time.sleep(0.1)


@contextlib.contextmanager
def _outside_world(demo: Demo) -> Iterator[dict[str, str]]:
    """The services; gives what the manifests' placeholders stand for."""
    outside, ports = demo.folder / "outside", demo.folder / "ports.json"
    outside.mkdir(mode=0o700)
    model = credentials.new_model(datetime.datetime.now(datetime.UTC))
    for name, content in model.files().items():
        (outside / name).write_text(content)
    places = ("tickets=127.0.0.1:0", "model=127.0.0.1:0")
    process = subprocess.Popen((sys.executable, "-m", "hopgate.demo.services", *places, "--folder", str(outside), "--ports", str(ports)))
    try:
        _wait(ports.exists, "the outside world")
        at = json.loads(ports.read_text())
        yield {
            "tickets_address": f"127.0.0.1:{at['tickets']}",
            "model_address": f"127.0.0.1:{at['model']}",
            **model.values(),
            "jwks": json.dumps(demo.issuer.jwks()),
        }
    finally:
        process.terminate()
        process.wait(DEADLINE_SECONDS)


def _render(demo: Demo, values: dict[str, str]) -> None:
    demo.resources.mkdir(mode=0o700)
    for name, text in credentials.resources(values).items():
        (demo.resources / name).write_text(text)


@contextlib.contextmanager
def _listening_socket() -> Iterator[Path]:
    """A Unix socket of the machine's, such as a container engine's, where programs look for it."""
    with tempfile.TemporaryDirectory(prefix="hopgate-demo-", dir="/run") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "engine.sock"
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        yield path


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
