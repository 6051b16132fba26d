"""What is shown of a command line: names, and never a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor import arguments

SECRET = "zq7hunter2"


@pytest.mark.parametrize(
    ("executable", "words", "shown", "script", "module"),
    [
        ("/usr/bin/curl", ["curl", "-H", f"Authorization: Bearer {SECRET}", "https://a.example.com"], "curl -H …", "", ""),
        ("/usr/bin/curl", ["curl", f"-u{SECRET}", "x"], "curl -u… …", "", ""),
        ("/usr/bin/curl", ["curl", f"--user={SECRET}", "--user", SECRET], "curl --user=… --user …", "", ""),
        ("/usr/bin/mysql", ["mysql", f"-p{SECRET}"], "mysql -p…", "", ""),
        ("/usr/bin/python3.11", ["python3", "agent.py", "--key", SECRET], "python3.11 agent.py --key …", "agent.py", ""),
        ("/usr/bin/python3.11", ["python3", "-m", "aider.main", SECRET], "python3.11 -m aider.main …", "", "aider.main"),
        ("/usr/bin/python3.11", ["python3", "-c", SECRET], "python3.11 -c …", "", ""),
        ("/usr/bin/python3.11", ["python3", "-m", f"{SECRET}!"], "python3.11 -m …", "", ""),
        ("/usr/bin/node", ["node", "--eval", SECRET], "node --eval …", "", ""),
        ("/usr/bin/node", ["node", "--title", SECRET, "/app/agent.js", SECRET], "node --title … /app/agent.js …", "/app/agent.js", ""),
        ("/usr/bin/bash", ["bash", "-c", f"KEY={SECRET} run"], "bash -c …", "", ""),
        ("/usr/bin/env", ["env", f"KEY={SECRET}", "agent.py"], "env …", "", ""),
        ("/opt/agent", [SECRET, SECRET], "agent …", "", ""),
        ("/opt/agent", ["agent", "--", f"--{SECRET}"], "agent -- …", "", ""),
        ("/opt/agent", ["agent", f"-{SECRET}"], "agent -z…", "", ""),
        ("/opt/agent", ["agent", "-", "--", "x"], "agent … -- …", "", ""),
        ("/opt/agent", [], "agent", "", ""),
    ],
)
def test_a_command_line(executable: str, words: list[str], shown: str, script: str, module: str) -> None:
    found = arguments.read(executable, words, {"agent.py", "/app/agent.js"}.__contains__)
    assert (found.shown, found.script, found.module) == (shown, script, module)
    assert SECRET not in found.shown


def test_a_file_of_an_interpreter_is_its_script_and_another_programs_is_not() -> None:
    assert arguments.read("/usr/bin/python3", ["python3", "a.py"], {"a.py"}.__contains__).script == "a.py"
    assert arguments.read("/usr/bin/python3", ["python3", "a.py"], set[str]().__contains__).script == ""
    assert arguments.read("/usr/bin/cat", ["cat", "a.py"], {"a.py"}.__contains__).script == ""


def test_a_long_line_is_cut() -> None:
    found = arguments.read("/usr/bin/a", ["a", *[f"--option-{number}" for number in range(200)]], set[str]().__contains__)
    assert len(found.shown) == arguments.MAX_SHOWN
    assert found.shown.endswith("…")


_WORD = st.one_of(st.text(min_size=1, max_size=40), st.sampled_from(["-c", "-m", "--key", "--", "-", "-x", "agent.py", "--a=b"]))


@given(
    st.sampled_from(["/usr/bin/python3", "/usr/bin/node", "/bin/sh", "/opt/agent"]),
    st.lists(_WORD, max_size=8),
    st.lists(_WORD, max_size=8),
    st.sampled_from(["{}", "--key={}", "KEY={}", "-k{}", "Bearer {}", "https://u:{}@h/"]),
)
def test_no_value_is_ever_shown(executable: str, before: list[str], after: list[str], form: str) -> None:
    """A value that is no file's and no module's name, wherever it stands and in whatever form, is not in what is shown."""
    value = "Zq7+hunter/2="
    found = arguments.read(executable, ["x", *before, form.format(value), *after], {"agent.py"}.__contains__)
    assert value not in found.shown
    assert "hunter" not in found.shown
