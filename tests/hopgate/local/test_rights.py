"""What a gate needs of the machine is said before it starts, with what to do about it."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from hopgate.local import rights
from hopgate.local.rights import RightsError

AS_NOBODY = """
import os, sys
os.setuid(65534)
from hopgate.local import rights
try:
    rights.require_root("hopgate run")
except rights.RightsError as error:
    print(error.code, error, error.remedy, sep="|")
"""


@pytest.mark.root
def test_root_is_required() -> None:
    rights.require_root("hopgate run")
    script = AS_NOBODY.replace("os.setuid(65534)\nfrom hopgate.local import rights", "from hopgate.local import rights\nos.setuid(65534)")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=30)
    assert ran.stdout == "MissingRight|expected `hopgate run` to run as root, got user 65534|run it as `sudo hopgate run …`\n"


def test_each_absent_tool_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RightsError, match="bwrap, setpriv") as refused:
        rights.require_tools()
    assert refused.value.remedy == "apt-get install bubblewrap util-linux"
    for tool in ("bwrap", "setpriv"):
        (tmp_path / tool).touch(mode=0o755)
    rights.require_tools()


USERS = {
    "who is named": ({"SUDO_UID": "65534"}, 0, 0),
    "else who called sudo": ({"SUDO_UID": "65534"}, None, 65534),
    "else who runs this": ({}, None, os.getuid()),
}


@pytest.mark.parametrize(("environment", "uid", "expected"), USERS.values(), ids=USERS)
def test_the_program_runs_as(environment: dict[str, str], uid: int | None, expected: int) -> None:
    account, entry = rights.calling_user(environment, uid), pwd.getpwuid(expected)
    assert (account.uid, account.gid, account.name, account.home) == (entry.pw_uid, entry.pw_gid, entry.pw_name, Path(entry.pw_dir))
    assert account.shell


def test_a_user_that_is_none_is_refused() -> None:
    with pytest.raises(RightsError, match="got `4000000000`") as refused:
        rights.calling_user({}, 4_000_000_000)
    assert refused.value.remedy == "give another --uid"
