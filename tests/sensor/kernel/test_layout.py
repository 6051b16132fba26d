"""The structs of `bpf/events.h` are those of `sensor/events.py`, byte by byte: the compiler is asked."""

from __future__ import annotations

import struct
import subprocess

import pytest

from sensor.events import EVENT, PAYLOAD, Flag, Kind, Operation
from sensor.objects import SOURCES

pytestmark = pytest.mark.bpf

FIELDS = {
    "event": (
        EVENT,
        "operation:B family:B flags:Bx protocol:Hxx uid:I process:I other_process:I interface:I time_ns:Q cookie:Q cgroup_id:Q "
        "netns_cookie:Q started_ns:Q sent_bytes:Q received_bytes:Q remote:16s local:16s "
        "asked:16s remote_port:H local_port:H asked_port:Hxx command:16s",
    ),
    "payload": (
        PAYLOAD,
        "kind:B family:B flags:Bx size:I sequence:I process:I time_ns:Q cookie:Q cgroup_id:Q local:16s remote:16s "
        "local_port:H remote_port:H protocol:Hxx",
    ),
}
NUMBERS = [*Operation, *Flag, *(("KIND_" + kind.name, kind.value) for kind in Kind)]


def assertions(*, moved: int = 0) -> str:
    """C that compiles only when each field is where Python reads it. `moved` moves what is expected, to see that it counts."""
    lines = []
    for name, (whole, fields) in FIELDS.items():
        before = "="
        for field in fields.split():
            of, _, code = field.partition(":")
            lines.append(f'_Static_assert(__builtin_offsetof(struct {name}, {of}) == {struct.calcsize(before) + moved}, "{name}.{of}");')
            before += code
        assert struct.calcsize(before) == whole.size
        lines.append(f'_Static_assert(sizeof(struct {name}) == {whole.size}, "{name}");')
    named = [each if isinstance(each, tuple) else (each.name, each.value) for each in NUMBERS]
    lines += [f'_Static_assert({name} == {value}, "{name}");' for name, value in named]
    return "\n".join(lines)


def compiled(source: str) -> bool:
    text = f'#include <linux/types.h>\n#include "{SOURCES / "events.h"}"\n{source}\n'
    command = ("clang", "-x", "c", "-fsyntax-only", "-Werror", "-")
    return subprocess.run(command, input=text, text=True, capture_output=True, check=False).returncode == 0


def test_both_sides_have_one_layout() -> None:
    assert compiled(assertions())
    assert not compiled(assertions(moved=8))


def test_the_fields_are_named_as_they_are_read() -> None:
    for whole, fields in FIELDS.values():
        codes = "".join(field.partition(":")[2] for field in fields.split())
        assert struct.calcsize("=" + codes) == whole.size
        assert struct.Struct("=" + codes).unpack(bytes(range(whole.size))) == whole.unpack(bytes(range(whole.size)))
