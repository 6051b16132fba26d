"""Whom pods' Envoys trust for destinations with a `caBundle` of their own, as text: the controller publishes it, capture reads it.

A JSON list of `{"addresses": [IPv4…], "pem": TEXT}` in the ConfigMap of the authorities. Like the app's own trust it is read once, when
the pod starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from hopgate import strict_json
from hopgate.resources.private_authorities import PrivateAuthority

# A ConfigMap holds 1 MiB at most (Kubernetes API); the rest is for the other authorities and what is around them.
MAX_BYTES: Final = 700_000


class PrivateAuthoritiesError(ValueError):
    """The text is not what `encode` gives."""


def encode(authorities: Iterable[PrivateAuthority]) -> tuple[str, tuple[PrivateAuthority, ...]]:
    """The text, and those that there was no room for: their destinations' certificates are not trusted."""
    parts: list[str] = []
    left: list[PrivateAuthority] = []
    size = 2
    for authority in authorities:
        part = json.dumps({"addresses": list(authority.addresses), "pem": authority.pem}, separators=(",", ":"))
        if size + len(part) + 1 > MAX_BYTES:
            left.append(authority)
        else:
            parts.append(part)
            size += len(part) + 1
    return f"[{','.join(parts)}]", tuple(left)


def decode(text: bytes) -> tuple[PrivateAuthority, ...]:
    """What `encode` was given. Raises PrivateAuthoritiesError."""
    try:
        found = strict_json.parse(text)
        return tuple(_read(each) for each in _list(found))
    except (ValueError, KeyError) as error:
        raise PrivateAuthoritiesError(f"expected a list of addresses and their authorities, got something else: {error}") from error


def _read(value: object) -> PrivateAuthority:
    if not isinstance(value, dict) or not isinstance(value["pem"], str):
        raise PrivateAuthoritiesError("an entry has no `pem`")
    addresses = _list(value["addresses"])
    if not all(isinstance(address, str) for address in addresses):
        raise PrivateAuthoritiesError("an address is no text")
    return PrivateAuthority(addresses=tuple(str(address) for address in addresses), pem=value["pem"])


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise PrivateAuthoritiesError("a list is missing")
    return value
