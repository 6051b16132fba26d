"""A folder read whole: its resources, or every mistake with file, line and field."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from hopgate.identity.names import ObjectName
from hopgate.manifests import folder
from hopgate.manifests.folder import Loaded, Mistake, Refused
from hopgate.resources.kinds import SecretKey, SecretValue

AGENT = """\
apiVersion: hopgate.dev/v1alpha1
kind: Agent
metadata: {name: planner, namespace: demo}
spec:
  owner: team-a
"""
MODEL = """\
apiVersion: hopgate.dev/v1alpha1
kind: ModelProvider
metadata:
  name: openai
  namespace: demo
spec:
  provider: OpenAI
  hosts:
  - api.openai.com
  credential:
    secretRef: {name: openai, key: apiKey}
    header: authorization
    prefix: "Bearer "
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: openai, namespace: demo}
stringData:
  apiKey: sk-marker-7f3a
  other: sk-marker-unused
"""
POLICY = """\
apiVersion: hopgate.dev/v1alpha1
kind: Policy
metadata: {name: rules, namespace: demo}
spec:
  cedar: |
    permit (principal, action, resource)
    when { context.now > 0 };
"""
FLOOR = """\
apiVersion: hopgate.dev/v1alpha1
kind: ClusterPolicy
metadata: {name: floor}
spec: {cedar: "forbid (principal, action, resource);"}
"""
PROVIDER = """\
apiVersion: hopgate.dev/v1alpha1
kind: IdentityProvider
metadata: {name: idp}
spec: {issuer: "https://idp.example.com", audiences: [hopgate], jwksURI: "https://idp.example.com/keys"}
"""


def _write(where: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (where / f"{name}.yaml").write_text(text)
    return where


def _load(where: Path) -> Loaded:
    result = folder.load(where)
    assert isinstance(result, Loaded), result
    return result


def _refuse(where: Path) -> list[str]:
    """The mistakes as printed, without the folder's own name."""
    result = folder.load(where)
    assert isinstance(result, Refused)
    return [str(mistake).replace(f"{where}/", "") for mistake in result.mistakes]


def test_a_good_folder_gives_all_that_a_snapshot_is_made_of(tmp_path: Path) -> None:
    loaded = _load(_write(tmp_path, a=AGENT + "---\n" + MODEL, b=SECRET, c=POLICY + "---\n" + FLOOR, d=PROVIDER))

    assert len(loaded.resources) == 6
    assert ObjectName("demo", "planner") in loaded.registry.agents
    assert "api.openai.com" in loaded.registry.by_host
    key = SecretKey(secret=ObjectName("demo", "openai"), key="apiKey")
    assert loaded.secrets == {key: SecretValue(b"sk-marker-7f3a")}
    assert list(loaded.identity_providers) == ["https://idp.example.com"]
    assert [str(policy) for policy in loaded.policies] == ["demo/rules", "floor"]


def test_json_is_read_as_yaml_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{\n\t"apiVersion": "hopgate.dev/v1alpha1",\n\t"kind": "Agent",\n\t"metadata": {"name": "planner"}\n}\n'
    )

    assert ObjectName("default", "planner") in _load(tmp_path).registry.agents


def test_nothing_that_is_loaded_prints_a_secret(tmp_path: Path) -> None:
    encoded = base64.b64encode(b"sk-marker-7f3a").decode()
    loaded = _load(
        _write(
            tmp_path,
            a=MODEL,
            b=SECRET.replace("stringData", "data").replace("sk-marker-7f3a", encoded).replace("sk-marker-unused", encoded),
        )
    )

    assert list(loaded.secrets.values()) == [SecretValue(b"sk-marker-7f3a")]
    for printed in (repr(loaded), repr(dict(loaded.origins)), str(loaded.secrets)):
        assert "sk-marker" not in printed
        assert encoded not in printed


def test_the_digest_names_names_and_bytes(tmp_path: Path) -> None:
    def digest(name: str, **texts: str) -> str:
        (tmp_path / name).mkdir()
        return _load(_write(tmp_path / name, **texts)).digest

    first = digest("first", a=AGENT, b=FLOOR)
    assert first == digest("same", a=AGENT, b=FLOOR)
    assert (
        len(
            {
                first,
                digest("renamed", a=AGENT, c=FLOOR),
                digest("edited", a=AGENT + "# x\n", b=FLOOR),
                digest("joined", a=AGENT + "---\n" + FLOOR),
            }
        )
        == 4
    )


def test_an_address_stays_across_loads_and_is_the_same_in_another_process(tmp_path: Path) -> None:
    first = _load(_write(tmp_path, a=MODEL, b=SECRET)).registry
    again = folder.load(_write(tmp_path, c=AGENT), first)

    assert isinstance(again, Loaded)
    assert again.registry.by_host["api.openai.com"].address == first.by_host["api.openai.com"].address
    assert _load(tmp_path).registry.by_address.keys() == first.by_address.keys()


def test_a_line_of_cedar_is_found_in_its_file(tmp_path: Path) -> None:
    loaded = _load(_write(tmp_path, a=AGENT + "---\n" + POLICY, b=FLOOR))
    file = str(tmp_path / "a.yaml")

    assert loaded.locate("Policy", "demo", "rules", ("spec", "cedar")) == (file, 11)
    assert loaded.locate("Policy", "demo", "rules", ("spec", "cedar"), line_offset=1) == (file, 13)
    assert loaded.locate("ClusterPolicy", None, "floor", ("spec", "cedar"), line_offset=3) == (str(tmp_path / "b.yaml"), 4)
    assert loaded.locate("Agent", "demo", "planner", ("spec", "owner")) == (file, 5)
    with pytest.raises(KeyError):
        loaded.locate("Agent", "demo", "absent", ())


@pytest.mark.parametrize(
    ("text", "replaced", "by", "expected"),
    [
        pytest.param(AGENT, "owner: team-a", "ownr: team-a", (5, "spec.ownr", "UnknownField"), id="unknown field"),
        pytest.param(AGENT, "owner: team-a", "owner: 5", (5, "spec.owner", "WrongType"), id="wrong type"),
        pytest.param(AGENT, "name: planner", "name: Planner", (3, "metadata.name", "InvalidName"), id="bad name"),
        pytest.param(AGENT, "name: planner, ", "", (3, "metadata.name", "MissingField"), id="missing field"),
        pytest.param(AGENT, "  owner: team-a", "  []", (4, "spec", "WrongType"), id="spec a list"),
        pytest.param(AGENT, "kind: Agent", "kind: ConfigMap", (2, "kind", "UnknownKind"), id="unknown kind"),
        pytest.param(AGENT, "hopgate.dev/v1alpha1", "hopgate.dev/v1", (1, "apiVersion", "UnknownVersion"), id="unknown version"),
        pytest.param(
            FLOOR, "name: floor", "name: floor, namespace: a", (3, "metadata.namespace", "ClusterScoped"), id="a namespace too many"
        ),
        pytest.param(MODEL, "- api.openai", "- eu.openai.com\n  - API.openai", (10, "spec.hosts[1]", "InvalidHost"), id="bad host"),
        pytest.param(MODEL, "provider: OpenAI", "provider: OpenAI\n  port: 0", (8, "spec.port", "InvalidPort"), id="bad port"),
        pytest.param(
            MODEL, "provider: OpenAI", "provider: OpenAI\n  address: '::'", (8, "spec.address", "InvalidAddress"), id="bad address"
        ),
        pytest.param(MODEL, "authorization", "host", (12, "spec.credential.header", "InvalidHeader"), id="bad header"),
        pytest.param(MODEL, '"Bearer "', '"Bearer\\n"', (13, "spec.credential.prefix", "InvalidHeader"), id="bad prefix"),
        pytest.param(MODEL, "provider: OpenAI", "provider: openai", (7, "spec.provider", "InvalidValue"), id="bad choice"),
        pytest.param(
            MODEL, "provider: OpenAI", "provider: OpenAI\n  caBundle: x", (8, "spec.caBundle", "InvalidCertificate"), id="bad certificate"
        ),
        pytest.param(
            MODEL, "provider: OpenAI", "provider: OpenAI\n  models: [a, a]", (8, "spec.models[1]", "Repeated"), id="repeated item"
        ),
        pytest.param(
            MODEL, "provider: OpenAI", "provider: OpenAI\n  tls: Sealed", (11, "spec.credential", "Contradiction"), id="contradiction"
        ),
        pytest.param(
            MODEL, "key: apiKey", "key: keys", (11, "spec.credential.secretRef.key", "MissingSecretKey"), id="missing key of a secret"
        ),
        pytest.param(MODEL, "{name: openai", "{name: open", (11, "spec.credential.secretRef.name", "MissingSecret"), id="missing secret"),
        pytest.param(SECRET, "stringData", "data", (5, "data.apiKey", "InvalidBase64"), id="not base64"),
        pytest.param(POLICY, "  cedar: |", "  cedar: |\n  cedar: |", (6, "spec", "DuplicateKey"), id="repeated key"),
        pytest.param(POLICY, "spec:", "spec: &x", (4, "spec", "UnsupportedAnchor"), id="anchor"),
        pytest.param(POLICY, "cedar: |", "cedar: !x |", (5, "spec.cedar", "UnsupportedTag"), id="tag"),
        pytest.param(POLICY, "spec:", "spec: [", (5, "spec[0].cedar", "InvalidSyntax"), id="broken YAML"),
        pytest.param(AGENT, AGENT, "just text\n", (1, "", "WrongType"), id="not a mapping"),
    ],
)
def test_each_mistake_has_file_line_and_field(tmp_path: Path, text: str, *, replaced: str, by: str, expected: tuple[int, str, str]) -> None:
    assert text.count(replaced) == 1
    good_secret = "" if text == SECRET else SECRET
    _load(_write(tmp_path, a=text, z=good_secret))

    result = folder.load(_write(tmp_path, a=text.replace(replaced, by)))

    assert isinstance(result, Refused)
    found = {(mistake.file, mistake.line, mistake.field, mistake.code) for mistake in result.mistakes}
    assert (str(tmp_path / "a.yaml"), *expected) in found
    assert len(found) == 1 or expected[2] == "InvalidBase64"


@pytest.mark.parametrize(
    ("text", "replaced", "by", "expected"),
    [
        (AGENT, "owner", "ownr", "a.yaml:5: spec.ownr: unknown field `ownr`; did you mean `owner`? (UnknownField)"),
        (AGENT, "team-a", "5", "a.yaml:5: spec.owner: expected a string, got a number: put it in quotes (WrongType)"),
        (
            MODEL,
            "key: apiKey",
            "key: keys",
            "a.yaml:11: spec.credential.secretRef.key: expected the key `keys` in Secret demo/openai, which has no such key (z.yaml:3) "
            "(MissingSecretKey)",
        ),
        (
            MODEL,
            "{name: openai",
            "{name: open",
            "a.yaml:11: spec.credential.secretRef.name: expected the Secret demo/open, which does not exist: "
            "add it, in the namespace of what refers to it (MissingSecret)",
        ),
        (
            POLICY,
            "  cedar: |",
            "  cedar: |\n  cedar: |",
            "a.yaml:6: spec: expected each key once, got `cedar` again: it stands in line 5 already (DuplicateKey)",
        ),
    ],
    ids=["unknown field", "wrong type", "missing key", "missing secret", "repeated key"],
)
def test_a_mistake_says_what_was_expected_and_what_to_do(tmp_path: Path, text: str, *, replaced: str, by: str, expected: str) -> None:
    assert _refuse(_write(tmp_path, a=text.replace(replaced, by), z=SECRET)) == [expected]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param(
            AGENT.replace("owner: team-a", "serviceAccountName: x"),
            "b.yaml:3: metadata.name: the name `planner` belongs to Agent demo/planner already (a.yaml:3) (DuplicateName)",
            id="two objects of one name",
        ),
        pytest.param(
            AGENT.replace("name: planner", "name: other").replace("owner: team-a", "serviceAccountName: planner"),
            "b.yaml:5: spec.serviceAccountName: the service account `planner` of namespace `demo` belongs to Agent demo/planner already "
            "(a.yaml:4) (DuplicateServiceAccount)",
            id="two agents of one service account",
        ),
        pytest.param(
            MODEL.replace("name: openai\n  namespace: demo", "name: copy").partition("  credential")[0],
            "b.yaml:8: spec.hosts[0]: the host `api.openai.com` belongs to ModelProvider demo/openai already (a2.yaml:9) (DuplicateHost)",
            id="one host of two records",
        ),
    ],
)
def test_a_conflict_names_both_places(tmp_path: Path, second: str, expected: str) -> None:
    _load(_write(tmp_path, a=AGENT, a2=MODEL, z=SECRET))

    assert _refuse(_write(tmp_path, b=second)) == [expected]


def test_all_mistakes_of_all_files_come_at_once_in_order(tmp_path: Path) -> None:
    bad_agent = AGENT.replace("owner", "ownr").replace("planner", "Planner")
    _write(tmp_path, a=bad_agent, b="x: [\n", c=MODEL.replace("apiKey", "apiKeys"), d=SECRET + "---\n" + FLOOR + "---\n" + FLOOR)
    (tmp_path / "e.yaml").symlink_to("absent")

    assert [mistake.split(" ")[0] + mistake.rpartition("(")[2] for mistake in _refuse(tmp_path)] == [
        "a.yaml:3:InvalidName)",
        "a.yaml:5:UnknownField)",
        "b.yaml:2:InvalidSyntax)",
        "c.yaml:11:MissingSecretKey)",
        "d.yaml:15:DuplicateName)",
        "e.yaml:FileUnreadable)",
    ]


@pytest.mark.parametrize(
    "broken",
    [SECRET.replace("stringData", "stringdata"), SECRET + "x: [", SECRET.replace("kind: Secret", "kind: Secrets")],
    ids=["a mistake in a field", "broken YAML", "a mistake in the kind"],
)
def test_a_secret_that_has_a_mistake_is_not_said_to_be_missing(tmp_path: Path, broken: str) -> None:
    mistakes = _refuse(_write(tmp_path, a=MODEL, b=broken))

    assert mistakes
    assert not any("MissingSecret" in mistake for mistake in mistakes)


def test_a_secret_is_missing_whatever_else_is_wrong_elsewhere(tmp_path: Path) -> None:
    mistakes = _refuse(_write(tmp_path, a=MODEL, b=AGENT.replace("owner", "ownr")))

    assert [mistake.rpartition("(")[2] for mistake in mistakes] == ["MissingSecret)", "UnknownField)"]


@pytest.mark.parametrize("content", [None, "", "# nothing\n---\n"], ids=["no file", "an empty file", "comments alone"])
def test_a_folder_without_a_manifest_says_what_to_do(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        _write(tmp_path, a=content)

    result = folder.load(tmp_path)

    assert isinstance(result, Refused)
    (mistake,) = result.mistakes
    expected = "expected at least one manifest (`*.yaml`, `*.yml` or `*.json`), got none: add one, or name another folder"
    assert str(mistake) == f"{tmp_path}: {expected} (FolderEmpty)"


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    result = folder.load(tmp_path / "absent")

    assert isinstance(result, Refused)
    (mistake,) = result.mistakes
    assert (mistake.code, mistake.file) == ("FolderUnreadable", str(tmp_path / "absent"))
    assert "create it, or name another with --resources" in mistake.message


@pytest.mark.parametrize(
    ("mistake", "shown"),
    [
        (Mistake(file="a.yaml", line=3, column=1, field="spec.x", code="C", message="m"), "a.yaml:3: spec.x: m (C)"),
        (Mistake(file="a.yaml", line=3, column=1, field="", code="C", message="m"), "a.yaml:3: m (C)"),
        (Mistake(file="a.yaml", line=0, column=0, field="", code="C", message="m"), "a.yaml: m (C)"),
    ],
    ids=["of a field", "of a document", "of a file"],
)
def test_a_mistake_is_one_line(mistake: Mistake, shown: str) -> None:
    assert str(mistake) == shown


def test_mistakes_around_a_secret_do_not_show_it(tmp_path: Path) -> None:
    for text in (
        SECRET.replace("sk-marker-7f3a", "[sk-marker-7f3a]"),
        SECRET.replace("stringData:\n  apiKey: sk-marker-7f3a", "stringData: sk-marker-7f3a\nx:"),
        SECRET.replace("sk-marker-7f3a", "*sk-marker-7f3a"),
        SECRET.replace("sk-marker-7f3a", "!sk-marker-7f3a"),
        SECRET.replace("sk-marker-7f3a", "'sk-marker-7f3a"),
        SECRET.replace("sk-marker-7f3a", "sk-marker-7f3a: x"),
        SECRET.replace("stringData", "data"),
        SECRET.replace("sk-marker-7f3a", '"sk-marker-7f3a\\n"') + "---\n" + MODEL,
    ):
        mistakes = _refuse(_write(tmp_path, a=text))
        assert mistakes
        assert "sk-marker" not in "".join(mistakes)
