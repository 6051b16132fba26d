"""The bootstrap: filled as a tree, read strictly by envoy-data-plane, taken by Envoy in every variant."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz import wire
from hopgate.local import envoy_process, namespace
from hopgate.proxy import bootstrap
from hopgate.proxy.bootstrap import DIAL_PATTERN, BootstrapError, BootstrapSpec
from hopgate.resources import addresses
from hopgate.resources.kinds import DialAddress, Tls
from hopgate.resources.private_authorities import PrivateAuthority
from tokenmint.authority import Authority

PRIVATE = tuple(
    PrivateAuthority(addresses=named, pem=Authority.create(int(time.time())).certificate_pem.decode())
    for named in (("198.18.0.8", "198.18.0.9"), ("198.18.0.10",))
)

SPEC = BootstrapSpec(
    agent="demo/planner",
    workload_token="MARKER-token",
    namespace="/proc/self/ns/net",
    authz_socket=Path("/run/hopgate/a.sock"),
    certificates_socket=Path("/run/hopgate/c.sock"),
    admin_socket=Path("/run/hopgate/admin.sock"),
    trusted_ca=Path("/etc/ssl/certs/ca-certificates.crt"),
)

VARIANTS = {
    "outbound alone": SPEC,
    "with a way in": replace(SPEC, app_port=8000),
    "with a way in at a fixed port": replace(SPEC, app_port=8000, inbound_port=45000),
    "with one private authority": replace(SPEC, private_authorities=PRIVATE[:1]),
    "with everything": replace(SPEC, app_port=8000, private_authorities=PRIVATE, check_timeout_seconds=0.25),
}


def built(spec: BootstrapSpec = SPEC) -> Any:
    return json.loads(bootstrap.build(spec))


def every(tree: Any, key: str) -> list[Any]:
    """Every value under `key`, wherever it is."""
    if isinstance(tree, dict):
        return [value for name, value in tree.items() if name == key] + [found for value in tree.values() for found in every(value, key)]
    return [found for item in tree for found in every(item, key)] if isinstance(tree, list) else []


@pytest.mark.envoy
@pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS)
def test_envoy_takes_every_variant_without_a_warning(spec: BootstrapSpec, tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    path.write_bytes(bootstrap.build(spec))
    command = (envoy_process.find(), "--mode", "validate", "--disable-hot-restart", "--log-level", "warning", "--config-path", path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "[warning]" in line]) == (0, []), done.stderr


@pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS)
def test_envoy_data_plane_knows_every_field(spec: BootstrapSpec) -> None:
    bootstrap.check(bootstrap.build(spec))


def _unknown_at_the_top(tree: Any) -> None:
    tree["unknown"] = 1


def _unknown_in_a_message_that_travels_as_any(tree: Any) -> None:
    every(tree, "typed_config")[0]["unknown"] = 1


def _unknown_enum_value(tree: Any) -> None:
    tree["static_resources"]["clusters"][0]["type"] = "UNKNOWN"


def _unknown_type(tree: Any) -> None:
    every(tree, "typed_config")[0]["@type"] = "type.googleapis.com/envoy.unknown.v3.Unknown"


@pytest.mark.parametrize(
    "change", [_unknown_at_the_top, _unknown_in_a_message_that_travels_as_any, _unknown_enum_value, _unknown_type], ids=lambda f: f.__name__
)
def test_what_envoy_data_plane_does_not_know_is_refused(change: Callable[[Any], None]) -> None:
    tree = built()
    change(tree)
    with pytest.raises(BootstrapError) as caught:
        bootstrap.check(json.dumps(tree).encode())
    assert caught.value.code == "BootstrapInvalid"


HOSTILE = ["$pieces", "$namespace", '"}, "a": {"', "{$piece: nowhere}", "a\nb: c", "%FILE_CONTENT(/etc/passwd)%"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_value_never_becomes_configuration(text: str) -> None:
    tree = built(replace(SPEC, agent=text, private_authorities=(PrivateAuthority(addresses=("198.18.0.8",), pem=text),)))
    plain = built(replace(SPEC, agent="x", private_authorities=(PrivateAuthority(addresses=("198.18.0.8",), pem="x"),)))
    assert tree["node"]["id"] == text
    assert every(tree, "inline_string") == [text]
    tree["node"]["id"] = "x"
    assert json.loads(json.dumps(tree).replace(json.dumps(text), '"x"')) == plain


def test_no_placeholder_is_left() -> None:
    for spec in VARIANTS.values():
        assert not re.search(rb'"\$', bootstrap.build(spec))


def test_failure_is_never_an_allow() -> None:
    tree = built(VARIANTS["with everything"])
    checks = [part for part in every(tree, "typed_config") if part["@type"].endswith(".ext_authz.v3.ExtAuthz")]
    assert len(checks) == 13
    assert {part["failure_mode_allow"] for part in checks} == {False}
    assert not {"filter_enabled", "filter_enabled_metadata", "clear_route_cache"} & {key for part in checks for key in part}


def test_every_cluster_that_dials_an_answer_is_behind_a_guard() -> None:
    tree = built(VARIANTS["with everything"])
    dialling = {cluster["name"] for cluster in tree["static_resources"]["clusters"] if cluster["type"] == "ORIGINAL_DST"}
    assert dialling == {"upstream_plain", "upstream_tls", "upstream_sealed", "upstream_tls_private_0", "upstream_tls_private_1"}
    for listener in tree["static_resources"]["listeners"]:
        for chain in (*listener["filter_chains"], listener.get("default_filter_chain", {"filters": []})):
            if dialling & set(every(chain, "cluster")):
                assert any(name.endswith(".rbac") for name in every(chain, "name")), chain["name"]


def test_every_upstream_certificate_is_verified_anew_and_by_one_authority() -> None:
    contexts = [part for part in every(built(VARIANTS["with everything"]), "typed_config") if part["@type"].endswith("UpstreamTlsContext")]
    assert [part["max_session_keys"] for part in contexts] == [0, 0, 0]
    trusted = [part["common_tls_context"]["validation_context"]["trusted_ca"] for part in contexts]
    assert trusted == [{"filename": str(SPEC.trusted_ca)}, *({"inline_string": authority.pem} for authority in PRIVATE)]


@pytest.mark.parametrize("tls", list(Tls))
def test_the_ranges_are_those_of_the_registrys_addresses(tls: Tls) -> None:
    chains = built()["static_resources"]["listeners"][0]["filter_chains"]
    expected = {Tls.OPEN: "open_tls", Tls.SEALED: "sealed", Tls.DISABLED: "plain_http"}[tls]
    (chain,) = [chain for chain in chains if chain["name"] == expected]
    (prefix,) = chain["filter_chain_match"]["prefix_ranges"]
    assert ipaddress.ip_network(f"{prefix['address_prefix']}/{prefix['prefix_len']}") == addresses.RANGES[tls]


def test_the_listeners_port_is_the_one_that_the_namespace_leads_to() -> None:
    assert bootstrap.CAPTURE_PORT == namespace.PROXY_PORT


def test_the_answers_key_is_the_one_that_the_clusters_read() -> None:
    paths = every(every(built(), "metadata_key"), "path") + every(every(built(), "metadata_matcher"), "path")
    assert {json.dumps(path) for path in paths} == {json.dumps([{"key": wire.DIAL_KEY}])}


def test_a_way_in_at_the_gates_own_port_is_refused() -> None:
    with pytest.raises(BootstrapError, match="15001"):
        bootstrap.build(replace(SPEC, app_port=15001))
    bootstrap.build(replace(SPEC, app_port=15002))


@pytest.mark.parametrize("address", ["2001:db8::1", "198.18.0.0/17", "198.18.128.1", "198.19.0.1", "203.0.113.9", "api.test", ""])
def test_a_private_authority_is_for_single_addresses_of_opened_tls(address: str) -> None:
    with pytest.raises(BootstrapError, match=re.escape(str(addresses.RANGES[Tls.OPEN]))):
        bootstrap.build(replace(SPEC, private_authorities=(PrivateAuthority(addresses=(address,), pem="x"),)))


def test_the_credential_is_in_the_checks_metadata_and_in_no_repr() -> None:
    assert "MARKER" not in repr(SPEC)
    tree = built()
    assert json.dumps(tree).count("MARKER-token") == len(every(tree, "initial_metadata"))


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_address_that_authz_can_name_passes_the_guard(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    assert re.fullmatch(DIAL_PATTERN, str(DialAddress(ip=str(address), port=port)))


@given(st.from_regex(DIAL_PATTERN, fullmatch=True))
def test_what_passes_the_guard_is_an_address(text: str) -> None:
    ip, _, port = text.rpartition(":")
    ipaddress.ip_address(ip.removeprefix("[").removesuffix("]"))
    assert 1 <= int(port) <= 65535
