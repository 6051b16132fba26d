"""Runs one command in a sandbox as `hopgate run` does, with a plugged namespace and no gate behind it.

Called as a process with one JSON argument (see `_Wanted`), so that the program's streams, terminal and signals are real. Ends
as the program did; an error before it started is a JSON line on standard error and exit code 125.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TypedDict

from hopgate.local import namespace, sandbox
from hopgate.local.errors import LocalError
from hopgate.local.rights import Account

INSIDE = Path("/run/hopgate")


class _Wanted(TypedDict):
    """`pids`: a file that gets the sandbox's first process id and the program's, as this machine sees them.

    `early_signal` is sent before the program begins; None: none is.
    """

    uid: int
    home: str
    command: list[str]
    working_directory: str
    environment: dict[str, str]
    hidden: list[str]
    binds: list[str]
    allow_sockets: list[str]
    pids: str | None
    early_signal: int | None


def main(wanted: _Wanted) -> int:
    """Run it; the exit code, or minus the signal."""
    entry = pwd.getpwuid(wanted["uid"])
    account = Account(uid=entry.pw_uid, gid=entry.pw_gid, name=entry.pw_name, home=Path(wanted["home"]), shell=entry.pw_shell)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as unrelated:
        unrelated.set_inheritable(True)  # a descriptor that its owner forgot to keep to itself
        Path(folder).chmod(0o755)
        process = sandbox.spawn(
            sandbox.SandboxSpec(
                command=tuple(wanted["command"]),
                working_directory=Path(wanted["working_directory"]),
                account=account,
                environment=wanted["environment"],
                hidden=tuple(map(Path, wanted["hidden"])),
                binds=tuple(map(Path, wanted["binds"])),
                allow_sockets=tuple(map(Path, wanted["allow_sockets"])),
                inside=(Path(folder), INSIDE),
            )
        )
        try:
            namespace.plug(f"/proc/{process.pid}/ns/net")
            signal.signal(signal.SIGINT, lambda *_: None)
            signal.signal(signal.SIGTERM, lambda received, _: process.signal(received))
            if wanted["early_signal"] is not None:
                os.kill(os.getpid(), wanted["early_signal"])
            process.release()
            if wanted["pids"] is not None:
                written = Path(wanted["pids"] + ".new")
                written.write_text(json.dumps([process.pid, process.program_pid]), encoding="utf-8")
                written.rename(wanted["pids"])
            return process.wait()
        finally:
            process.kill()


if __name__ == "__main__":
    try:
        code = main(json.loads(sys.argv[1]))
    except LocalError as error:
        sys.stderr.write(json.dumps({"code": error.code, "message": str(error), "remedy": error.remedy}) + "\n")
        sys.exit(125)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
