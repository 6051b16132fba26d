"""What a gate needs of the machine before it starts, and who the program's user is."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hopgate.local.errors import LocalError

# name of the program → the Debian package that has it
TOOLS = {"bwrap": "bubblewrap", "setpriv": "util-linux"}


class RightsError(LocalError):
    """The caller may not do this, or a tool that does it is absent."""

    code = "MissingRight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user a program runs as."""

    uid: int
    gid: int
    name: str
    home: Path
    shell: str


def require_root(what: str) -> None:
    """Raise RightsError unless this process may make network namespaces and plug Envoy into them."""
    if os.geteuid() != 0:
        raise RightsError(f"expected `{what}` to run as root, got user {os.geteuid()}", remedy=f"run it as `sudo {what} …`")


def require_tools() -> None:
    """Raise RightsError naming each absent tool and its package."""
    absent = [name for name in TOOLS if shutil.which(name) is None]
    if absent:
        packages = " ".join(sorted({TOOLS[name] for name in absent}))
        raise RightsError(f"expected the programs {', '.join(absent)}, found none of that name", remedy=f"apt-get install {packages}")


def calling_user(environment: Mapping[str, str], uid: int | None) -> Account:
    """The account of `--uid`, else of who called sudo, else of this process. Raises RightsError for an unknown user."""
    wanted = uid if uid is not None else int(environment.get("SUDO_UID", os.getuid()))
    try:
        entry = pwd.getpwuid(wanted)
    except KeyError as error:
        raise RightsError(f"expected the id of a user of this machine, got `{wanted}`", remedy="give another --uid") from error
    return Account(uid=entry.pw_uid, gid=entry.pw_gid, name=entry.pw_name, home=Path(entry.pw_dir), shell=entry.pw_shell or "/bin/sh")
