"""A folder becomes one snapshot or the list of all its mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots
from hopgate.manifests.snapshots import SnapshotError

NOW = 1_800_000_000
POLICY = """apiVersion: hopgate.dev/v1alpha1
kind: {kind}
metadata: {{name: {name}{namespace}}}
spec:
  cedar: |
    @id("a")
    {cedar}
"""
PERMIT = 'permit (principal == Hopgate::Agent::"demo/planner", action == Hopgate::Action::"SendMessage", resource);'


def policy(name: str, cedar: str, kind: str = "Policy") -> str:
    namespace = ", namespace: demo" if kind == "Policy" else ""
    return POLICY.format(kind=kind, name=name, namespace=namespace, cedar=cedar)


@pytest.fixture
def folder(tmp_path: Path, repository: Path) -> Path:
    shutil.copy(repository / "tests" / "world" / "resources.yaml", tmp_path / "world.yaml")
    return tmp_path


def mistakes(folder: Path) -> tuple[str, ...]:
    with pytest.raises(SnapshotError) as refused:
        snapshots.load(folder, previous=None, now=NOW)
    assert refused.value.code == "FolderHasMistakes"
    assert len(refused.value.found) == len(refused.value.mistakes)
    return refused.value.mistakes


def test_a_good_folder_is_a_snapshot(folder: Path) -> None:
    snapshot = snapshots.load(folder, previous=None, now=NOW)
    assert snapshot.loaded_at == NOW
    assert ObjectName("demo", "planner") in snapshot.registry.agents
    assert snapshot.policies.size > 0
    assert len(snapshot.digest) == 64
    assert "sk-marker-secret" not in repr(snapshot)


def test_the_digest_names_the_resources_and_not_the_moment(folder: Path) -> None:
    first = snapshots.load(folder, previous=None, now=NOW)
    assert snapshots.load(folder, previous=None, now=NOW + 1).digest == first.digest
    (folder / "more.yaml").write_text(policy("more", PERMIT), encoding="utf-8")
    assert snapshots.load(folder, previous=None, now=NOW).digest != first.digest


def test_virtual_addresses_stay_when_others_come_and_go(folder: Path) -> None:
    first = snapshots.load(folder, previous=None, now=NOW)
    (folder / "a.yaml").write_text(
        "apiVersion: hopgate.dev/v1alpha1\nkind: ToolServer\nmetadata: {name: aaa, namespace: demo}\n"
        "spec:\n  protocol: HTTP\n  hosts: [aaa.example.com]\n",
        encoding="utf-8",
    )
    second = snapshots.load(folder, previous=first, now=NOW)
    kept = {host: endpoint.address for host, endpoint in second.registry.by_host.items() if host in first.registry.by_host}
    assert kept == {host: endpoint.address for host, endpoint in first.registry.by_host.items()}
    assert second.registry.by_host["aaa.example.com"].address not in kept.values()


@pytest.mark.parametrize(
    ("kind", "cedar", "line"),
    [("Policy", "permit (", 7), ("ClusterPolicy", "forbid (principal, action, resource", 7)],
    ids=["a policy", "a cluster policy"],
)
def test_a_mistake_of_cedar_is_told_with_its_line_in_the_file(folder: Path, kind: str, cedar: str, line: int) -> None:
    (folder / "bad.yaml").write_text(policy("bad", cedar, kind), encoding="utf-8")
    [mistake] = mistakes(folder)
    assert mistake.startswith(f"{folder / 'bad.yaml'}:{line}: spec.cedar: ")
    assert mistake.endswith("(InvalidSyntax)")


def test_a_failed_test_of_a_policy_is_told_with_its_own_line(folder: Path) -> None:
    who, what = 'Hopgate::Agent::"demo/planner"', 'Hopgate::ToolServer::"demo/tickets"'
    asked = f'principal: {who}, action: Hopgate::Action::"ListTools", resource: {what}'
    text = policy("tested", "permit (principal, action, resource);")
    text += "  tests:\n" + "".join(
        f"  - {{name: {name}, {asked}, expect: {expect}}}\n" for name, expect in (("good", "Allow"), ("bad", "Deny"))
    )
    (folder / "tested.yaml").write_text(text, encoding="utf-8")
    [mistake] = mistakes(folder)
    line = text.splitlines().index(next(line for line in text.splitlines() if "bad" in line)) + 1
    assert mistake.startswith(f"{folder / 'tested.yaml'}:{line}: spec.tests[1]: ")
    assert mistake.endswith("(TestFailed)")


def test_all_mistakes_are_told_sorted(folder: Path) -> None:
    for name in ("b", "a", "c"):
        (folder / f"{name}.yaml").write_text(policy(name, "permit ("), encoding="utf-8")
    assert [Path(mistake.partition(":")[0]).name for mistake in mistakes(folder)] == ["a.yaml", "b.yaml", "c.yaml"]
