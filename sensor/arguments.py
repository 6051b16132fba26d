"""A command line that may be shown: what is certainly a name stays, every value is left out. Pure.

Keys, passwords and prompts stand on command lines in any form, so nothing is looked for and masked; only these are shown: the program,
an interpreter's script (where a file of that name exists) or module, names of long options, the letter of short ones. All else is `…`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

HIDDEN: Final = "…"
# As much as fits a line of a wide terminal beside the other columns.
MAX_SHOWN: Final = 120
_INTERPRETER = re.compile(r"(?:python|pypy|node|nodejs|deno|bun|ruby|perl|php|bash|sh|dash|zsh|java|electron)[0-9.]*")
_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*")
_LONG_OPTION = re.compile(r"--[A-Za-z][A-Za-z0-9-]{0,30}")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}(?:\.[A-Za-z_][A-Za-z0-9_]{0,60}){0,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """`shown` is for people. `script` is the file, `module` the Python module, that an interpreter runs; empty where there is none."""

    shown: str
    script: str = ""
    module: str = ""


def read(executable: str, arguments: Sequence[str], is_file: Callable[[str], bool]) -> CommandLine:
    """What may be shown of a command line. `executable` is the path of the file that runs, `is_file` asks in the process's own folder."""
    name = executable.rpartition("/")[2]
    interpreter = _INTERPRETER.fullmatch(name) is not None
    words, script, module = [name], "", ""
    expects_module = plain = False
    for argument in arguments[1:]:
        if expects_module:
            expects_module = False
            module = argument if _MODULE.fullmatch(argument) else ""
            words.append(module or HIDDEN)
        elif interpreter and not script and not module and not argument.startswith("-") and is_file(argument):
            script = argument
            words.append(argument)
        elif plain or not argument.startswith("-"):
            words.append(HIDDEN)
        elif argument == "--":
            plain = True
            words.append(argument)
        else:
            words.append(_option(argument))
            expects_module = argument == "-m" and not script and not module and _PYTHON.fullmatch(name) is not None
    return CommandLine(shown=_cut(_joined(words)), script=script, module=module)


def _option(argument: str) -> str:
    option, equals, _ = argument.partition("=")
    if _LONG_OPTION.fullmatch(option):
        return option + (f"={HIDDEN}" if equals else "")
    # `-pSECRET` and `-name` look alike: the letter is what both certainly have.
    return argument[:2] + (HIDDEN if len(argument) > 2 else "") if argument[1:2].isalpha() and argument.isascii() else HIDDEN


def _joined(words: Sequence[str]) -> str:
    kept = [word for at, word in enumerate(words) if word != HIDDEN or at == 0 or words[at - 1] != HIDDEN]
    return " ".join(kept)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + HIDDEN
