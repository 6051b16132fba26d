"""The options that say how pods are injected."""

from __future__ import annotations

import argparse

import pytest

from hopgate.cluster import injection_options
from hopgate.cluster.webhooks import Injecting
from hopgate.identity.names import ObjectName
from hopgate.kubernetes.injection_settings import Settings, SettingsError

IMAGE = ("--proxy-image", "proxy:1")
AUTHZ = ("--authz-service", "gate/hopgate-authz")


def read(*arguments: str) -> Injecting | None:
    parser = argparse.ArgumentParser()
    injection_options.add(parser)
    return injection_options.read(parser.parse_args(arguments))


def test_what_is_not_said_is_as_in_the_settings() -> None:
    settings = Settings(image="proxy:1", authz_name="hopgate-authz.gate.svc", authz_port=8443, resolver_port=8053, audience="hopgate")
    assert read(*IMAGE, *AUTHZ) == Injecting(settings=settings, authz=ObjectName("gate", "hopgate-authz"))
    assert read(*AUTHZ) is None


def test_every_option_counts() -> None:
    found = read(
        *IMAGE,
        *AUTHZ,
        *("--proxy-pull-policy=Always", "--proxy-user=4000", "--proxy-heap-mebibytes=64", "--token-seconds=600", "--drain-seconds=5"),
        *("--refuse-unknown-users", "--audience=gate", "--authz-port=1", "--resolver-port=2"),
        '--proxy-resources={"limits": {"cpu": 2}}',
        "--capture-resources={}",
    )
    assert found is not None
    assert found.settings == Settings(
        image="proxy:1",
        authz_name="hopgate-authz.gate.svc",
        authz_port=1,
        resolver_port=2,
        audience="gate",
        token_seconds=600,
        proxy_uid=4000,
        image_pull_policy="Always",
        proxy_resources={"limits": {"cpu": "2"}},
        capture_resources={},
        max_heap_bytes=64 << 20,
        drain_seconds=5,
        refuse_unknown_users=True,
    )


@pytest.mark.parametrize(
    "given",
    [
        "--authz-service=gate",
        "--authz-service=gate/a/b",
        "--proxy-resources=lots",
        '--proxy-resources={"limit": {}}',
        "--proxy-resources=[]",
    ],
)
def test_what_cant_be_read_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(*IMAGE, *AUTHZ, given)
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [IMAGE, (*IMAGE, *AUTHZ, "--token-seconds=7200"), (*IMAGE, *AUTHZ, "--proxy-user=0")])
def test_what_is_not_safe_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError):
        read(*arguments)
