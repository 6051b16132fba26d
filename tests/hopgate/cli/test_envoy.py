"""`hopgate envoy config`: which authz it tells an Envoy of, and what is wrong usage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from hopgate.cli.envoy import group

FILES = ("--authorities", "/a.pem", "--certificate", "/c.pem", "--key", "/k.pem")


def printed(*options: str) -> dict[str, Any]:
    done = CliRunner().invoke(group, ["config", "--json", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.output))


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("hopgate-authz.hopgate.svc:8444", "hopgate-authz.hopgate.svc", 8444),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
    ],
)
def test_a_clusters_authz_is_asked_over_tls_in_the_name_of_a_certificate(address: str, host: str, port: int) -> None:
    parts = printed("--address", address, *FILES)
    [cluster] = parts["clusters"]
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": host, "port_value": port}
    tls = cluster["transport_socket"]["typed_config"]
    [own] = tls["common_tls_context"]["tls_certificates"]
    assert own == {"certificate_chain": {"filename": "/c.pem"}, "private_key": {"filename": "/k.pem"}}
    verified = tls["common_tls_context"]["validation_context"]
    assert verified["trusted_ca"] == {"filename": "/a.pem"}
    assert verified["match_typed_subject_alt_names"] == [{"san_type": "DNS", "matcher": {"exact": host}}]
    assert tls["sni"] == host
    assert "secrets" not in parts


def test_the_name_of_authz_may_be_another_than_where_it_is() -> None:
    [cluster] = printed("--address", "192.0.2.1:8444", "--server-name", "hopgate-authz.hopgate.svc", *FILES)["clusters"]
    tls = cluster["transport_socket"]["typed_config"]
    [name] = tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    assert tls["sni"] == name["matcher"]["exact"] == "hopgate-authz.hopgate.svc"


def test_both_gates_are_asked_the_same_way_but_for_the_connection() -> None:
    here, there = printed(), printed("--address", "authz.example.com:8444", *FILES)
    assert "transport_socket" not in here["clusters"][0]
    assert "http_filters" not in json.dumps(there["clusters"])
    for parts in (here, there):
        parts.pop("clusters")
    assert here.pop("secrets")
    assert here == there


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--address", "authz.example.com:8444"), "together"),
        (("--address", "authz.example.com:8444", *FILES[:4]), "together"),
        (FILES, "together"),
        (("--server-name", "authz.example.com"), "together"),
        (("--address", "authz.example.com", *FILES), "HOST:PORT"),
        (("--address", "authz.example.com:65536", *FILES), "HOST:PORT"),
        (("--address", "authz.example.com:0", *FILES), "HOST:PORT"),
        (("--address", "2001:db8::1:8444", *FILES), "HOST:PORT"),
        (("--address", "https://authz.example.com:8444", *FILES), "HOST:PORT"),
    ],
)
def test_half_an_authz_is_wrong_usage(options: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(group, ["config", *options])
    assert done.exit_code == 2
    assert said in done.output
    assert printed("--address", "authz.example.com:8444", *FILES)
