"""`v1 Secret`: base64 in one spelling, `stringData` over `data`, keys as Kubernetes has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hopgate.resources.fields import Path
from hopgate.resources.kinds import Secret, SecretValue
from hopgate.resources.parse import parse

Manifest = dict[str, Any]
Change = Callable[[str, Path, object], Manifest]


def test_string_data_wins_over_data(change: Change) -> None:
    manifest = change("Secret", ("data",), {"a": "YQ==", "b": "AP8="})
    manifest["stringData"] = {"a": "plain ü"}
    secret = parse(manifest).resource

    assert isinstance(secret, Secret)
    assert secret.data == {"a": SecretValue("plain ü".encode()), "b": SecretValue(b"\x00\xff")}


@pytest.mark.parametrize(
    ("path", "bad", "code", "allowed"),
    [
        pytest.param(("data", "k"), "YQ", "InvalidBase64", "YQ==", id="padding missing"),
        pytest.param(("data", "k"), "YR==", "InvalidBase64", "YQ==", id="another spelling of the same bytes"),
        pytest.param(("data", "k"), "YQ==\n", "InvalidBase64", "YQ==", id="line break"),
        pytest.param(("data", "k"), "_w==", "InvalidBase64", "/w==", id="URL alphabet"),
        pytest.param(("data", "k"), "é", "InvalidBase64", "", id="not ASCII"),
        pytest.param(("data", "k"), 5, "WrongType", "AAAA", id="a number"),
        pytest.param(("data", "a b"), "YQ==", "InvalidName", ..., id="key with a blank"),
        pytest.param(("stringData", "k/l"), "x", "InvalidName", ..., id="key with a slash"),
        pytest.param(("stringData", "k"), True, "WrongType", "true", id="true without quotes"),
        pytest.param(("stringData", "k"), "\ud800", "InvalidValue", "\U0001f600", id="half a surrogate pair"),
        pytest.param(("type",), 1, "WrongType", "kubernetes.io/tls", id="type a number"),
        pytest.param(("immutable",), "true", "WrongType", True, id="immutable a string"),
        pytest.param(("spec",), {}, "UnknownField", ..., id="a spec"),
    ],
)
def test_a_mistake_names_its_field(change: Change, path: Path, bad: object, code: str, allowed: object) -> None:
    refused = parse(change("Secret", path, bad))

    assert [(mistake.path, mistake.code) for mistake in refused.mistakes] == [(path, code)]
    if allowed is not ...:
        assert parse(change("Secret", path, allowed)).mistakes == ()
