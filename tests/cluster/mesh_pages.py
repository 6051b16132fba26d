"""The pages on Istio and Envoy Gateway, read: their manifests, and the chart's values that they give."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

PAGES = ("istio.md", "envoy-gateway.md")
_FOLDER = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def manifests(page: str) -> list[dict[str, Any]]:
    """Every manifest of a page, in its order."""
    return [found for block in _blocks(page, "yaml") for found in yaml.safe_load_all(block)]


def manifest(page: str, kind: str) -> dict[str, Any]:
    """The one of its kind."""
    [found] = [each for each in manifests(page) if each["kind"] == kind]
    return found


def values(page: str) -> dict[str, Any]:
    """The chart's values of a page."""
    [block] = _blocks(page, "yaml values")
    return dict(yaml.safe_load(block))


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (_FOLDER / page).read_text(), re.MULTILINE | re.DOTALL)


def sidecar_parts() -> dict[str, Any]:
    """What the page on Istio puts into a sidecar, under the names that `hopgate envoy config` prints."""
    filters: list[dict[str, Any]] = []
    parts: dict[str, Any] = {"http_filters": filters, "clusters": []}
    for patch in manifest("istio.md", "EnvoyFilter")["spec"]["configPatches"]:
        assert patch["match"]["context"] == "SIDECAR_INBOUND"
        value = patch["patch"]["value"]
        match patch["applyTo"], patch["patch"]["operation"]:
            case "CLUSTER", "ADD":
                parts["clusters"].append(value)
            case "NETWORK_FILTER", "MERGE":
                parts["http_connection_manager"] = {key: item for key, item in value["typed_config"].items() if key != "@type"}
            case "HTTP_FILTER", "INSERT_FIRST":
                filters.insert(0, value)
            case "HTTP_ROUTE", "MERGE":
                parts["route"] = value
            case other:
                raise AssertionError(other)
    return parts
