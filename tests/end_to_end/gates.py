"""A real `hopgate up` on manifests of a test's own, real `hopgate run`s at it, and the records read from the spool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

from hopgate.local import envoy_process, folders

PROGRAMS = Path(__file__).parent / "programs"
HOPGATE = str(Path(sys.executable).with_name("hopgate"))
# Generous: the condition is what is waited for, this only ends a test that would never.
DEADLINE_SECONDS = 30.0


def wait(done: Callable[[], Any], what: str) -> Any:
    """What `done` gives once it is true. Fails after the deadline."""
    end = time.monotonic() + DEADLINE_SECONDS
    pause = __import__("threading").Event()
    while not (found := done()):
        assert time.monotonic() < end, f"{what}: not so after {DEADLINE_SECONDS:.0f} s"
        pause.wait(0.02)
    return found


class Gate:
    """A folder of manifests, a data folder, and the gate that serves them."""

    def __init__(self, folder: Path, manifests: Mapping[str, str], *options: str) -> None:
        """`options` go to `hopgate up`."""
        self._options = options
        self.resources, self.data = folder / "resources", folder / "data"
        self.stderr = folder / "gate.stderr"
        self.resources.mkdir(mode=0o700)
        for name, text in manifests.items():
            (self.resources / name).write_text(text)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = (HOPGATE, "up", "--resources", str(self.resources), "--data", str(self.data), *self._options)
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, env=environment())
        wait(self.status, "the gate is up")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(DEADLINE_SECONDS)

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            (HOPGATE, "status", "--json", "--data", str(self.data)), capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
        )
        return json.loads(done.stdout.splitlines()[0]) if done.stdout else {}

    def command(self, agent: str, program: str, *arguments: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
        given = ("--resources", str(self.resources), "--data", str(self.data), "--bind", sys.prefix, *options)
        script = () if program.startswith("/") else (sys.executable, str(PROGRAMS / program))
        return (HOPGATE, "run", "--agent", agent, *given, "--", *(script or (program,)), *arguments)

    def run(
        self, agent: str, program: str, *arguments: str, options: tuple[str, ...] = (), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of `programs/` (or one by its absolute path) as a governed agent, to its end."""
        return subprocess.run(
            self.command(agent, program, *arguments, options=options),
            cwd=PROGRAMS,
            env=more.pop("env", environment()),
            input=more.pop("input", ""),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_SECONDS,
            **more,
        )

    @contextmanager
    def running(self, agent: str, program: str, *arguments: str, options: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
        """A program that goes on until the block ends, with pipes to talk to it."""
        process = subprocess.Popen(
            self.command(agent, program, *arguments, options=options),
            cwd=PROGRAMS,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=DEADLINE_SECONDS)

    def json(self, agent: str, program: str, *arguments: str, options: tuple[str, ...] = (), **more: Any) -> Any:
        """The JSON that a program printed. Fails when it did not end well."""
        done = self.run(agent, program, *arguments, options=options, **more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def records(self, table: str = "decisions") -> list[dict[str, Any]]:
        """Every whole record of a table, writer by writer in their order."""
        lines = [line for path in sorted((self.data / "spool" / table).glob("*.jsonl")) for line in path.read_bytes().split(b"\n")[:-1]]
        return [json.loads(line)["record"] for line in lines]

    def run_folders(self) -> list[Path]:
        base = folders.run_base(self.data)
        return sorted(base.iterdir()) if base.is_dir() else []


def environment(**more: str) -> dict[str, str]:
    """The environment of hopgate's own processes."""
    return {**os.environ, "ENVOY_BIN": str(envoy_process.install()), **more}


def render(template: str, **values: object) -> str:
    """Manifests with their `${placeholders}` filled in."""
    return Template(template).substitute(values)
