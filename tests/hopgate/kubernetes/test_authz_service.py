"""The cluster addresses of a Service."""

from __future__ import annotations

from typing import Any

import pytest

from hopgate.kubernetes import authz_service


@pytest.mark.parametrize(
    ("spec", "addresses"),
    [
        ({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"]}, ("10.96.0.9", "fd00::9")),
        ({"clusterIP": "10.96.0.9"}, ("10.96.0.9",)),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, ()),
        ({"type": "ExternalName", "externalName": "authz.example.com"}, ()),
        ({}, ()),
    ],
    ids=["both families", "one", "headless", "a name outside", "not given yet"],
)
def test_addresses_of_a_service(spec: dict[str, Any], addresses: tuple[str, ...]) -> None:
    assert authz_service.addresses_of({"spec": spec}) == addresses
