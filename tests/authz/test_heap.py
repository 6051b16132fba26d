from __future__ import annotations

import gc
import subprocess
import sys

from tests.hopgate.kubernetes import cluster_objects
from tests.hopgate.kubernetes.cluster_objects import manifest

ALL = [
    manifest("Agent", "planner"),
    manifest("ToolServer", "tools", {"protocol": "MCP", "hosts": ["tools.example.org"], "tools": [{"name": "search"}]}),
    manifest("Policy", "planner", {"cedar": 'permit (principal == Hopgate::Agent::"demo/planner", action, resource);'}),
]


def test_what_is_alive_is_set_aside_and_what_comes_later_is_not() -> None:
    program = (
        "import gc; from authz import heap; kept = [[] for _ in range(5000)]; heap.set_aside(); later = [[] for _ in range(50)]; "
        "print(gc.get_freeze_count() >= 5000, len(gc.get_objects()) < 5000, gc.isenabled())"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]


def test_a_replaced_snapshot_needs_no_collector() -> None:
    """Else what was set aside and then replaced would stay for ever."""
    built = cluster_objects.build(ALL)
    gc.collect()
    gc.disable()
    try:
        built = cluster_objects.build([*ALL, manifest("Agent", "writer")], before=built)
        built = cluster_objects.build(ALL, before=built)
        del built
        assert gc.collect() == 0
    finally:
        gc.enable()
