"""The options that say how pods are injected: `python -m hopgate.cluster webhooks`, and whoever reads its command line."""

from __future__ import annotations

import argparse
import json

from hopgate.cluster.webhooks import Injecting
from hopgate.identity import names
from hopgate.identity.errors import InvalidNameError
from hopgate.identity.names import ObjectName
from hopgate.kubernetes import injection_settings
from hopgate.kubernetes.injection_settings import Settings, SettingsError


def add(parser: argparse.ArgumentParser) -> None:
    """Teach a parser the options."""
    option = parser.add_argument
    option("--proxy-image", help="the image with Envoy and capture; without it no pod is injected")
    option("--proxy-pull-policy", default="IfNotPresent", help="when that image is pulled (default: %(default)s)")
    option("--proxy-user", type=int, default=1337, help="the user that Envoy runs as (default: %(default)s)")
    option("--proxy-heap-mebibytes", type=int, default=160, help="what Envoy may use before it turns requests away (default: %(default)s)")
    option("--proxy-resources", type=_resources, default=injection_settings.proxy_resources(), metavar="JSON", help="of Envoy's container")
    option("--capture-resources", type=_resources, default=injection_settings.capture_resources(), metavar="JSON", help="of capture's")
    option("--drain-seconds", type=int, default=20, help="how long Envoy lets connections end when its pod does (default: %(default)s)")
    option("--refuse-unknown-users", action="store_true", help="refuse containers that don't say their user by number")
    option("--audience", default="hopgate", help="the audience of sidecars' tokens (default: %(default)s)")
    option(
        "--token-seconds",
        type=int,
        default=injection_settings.LONGEST_TOKEN_SECONDS,
        help="how long such a token lives (default: %(default)s)",
    )
    option(
        "--authz-service",
        type=_service,
        metavar="NAMESPACE/NAME",
        help="authz's Service, whose addresses go into pods; the name in authz's certificate is NAME.NAMESPACE.svc",
    )
    option("--authz-port", type=int, default=8443, help="where authz answers checks (default: %(default)s)")
    option("--resolver-port", type=int, default=8053, help="where authz answers names (default: %(default)s)")


def read(given: argparse.Namespace) -> Injecting | None:
    """What was given; None without an image. Raises SettingsError."""
    if given.proxy_image is None:
        return None
    service: ObjectName | None = given.authz_service
    if service is None:
        raise SettingsError("expected --authz-service NAMESPACE/NAME beside --proxy-image, got none")
    settings = Settings(
        image=given.proxy_image,
        authz_name=f"{service.name}.{service.namespace}.svc",
        authz_port=given.authz_port,
        resolver_port=given.resolver_port,
        audience=given.audience,
        token_seconds=given.token_seconds,
        proxy_uid=given.proxy_user,
        image_pull_policy=given.proxy_pull_policy,
        capture_resources=given.capture_resources,
        proxy_resources=given.proxy_resources,
        max_heap_bytes=given.proxy_heap_mebibytes << 20,
        drain_seconds=given.drain_seconds,
        refuse_unknown_users=given.refuse_unknown_users,
    )
    return Injecting(settings=settings, authz=service)


def _service(text: str) -> ObjectName:
    try:
        return names.parse(text)
    except InvalidNameError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _resources(text: str) -> dict[str, dict[str, str]]:
    """A container's `resources`."""
    try:
        given = json.loads(text)
        if set(given) <= {"requests", "limits"}:
            return {kind: {name: str(quantity) for name, quantity in each.items()} for kind, each in given.items()}
    except (ValueError, TypeError, AttributeError):
        pass
    raise argparse.ArgumentTypeError(f'expected {{"requests": {{…}}, "limits": {{…}}}} as JSON, got `{text}`')
