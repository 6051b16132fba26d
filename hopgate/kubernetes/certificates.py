"""hopgate's own authorities in a cluster and what they sign: what is there and what time it is → what is to be there.

Pure: `plan` is called again and again, by one process, and each call is given what the call before left. A new authority is made long
before the old one ends, and signs nothing before everybody has trusted it for a while (`Use` says how long); the old one stays trusted
until long after nothing of it serves. So at each moment every certificate that some process serves is trusted by whoever is shown it.
Only where what is kept can't be used at all (gone, unreadable, ended) does everything begin anew at once.

Kept in one Secret: `tls.crt` and `tls.key` are for the process that serves, or signs, with them, `ca.crt` is what to trust; the rest is
for this module and is mounted nowhere.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from hopgate.kubernetes.api import Manifest
from hopgate.resources.kinds import SecretValue

_DAY: Final = 86_400
# An authority lives for a year (`tokenmint.authority`): its successor is made with two months left, in which a person can notice that
# something stands against it. In the last of them it signs, whoever does not trust it: all others would be without, else.
AUTHORITY_RENEWAL_SECONDS: Final = 60 * _DAY
INSIST_SECONDS: Final = 30 * _DAY
# A certificate is renewed with a third of its life left.
LEAF_LIFE_SECONDS: Final = 30 * _DAY
LEAF_RENEWAL_SECONDS: Final = 10 * _DAY
# A certificate begins so long before it was made (`tokenmint.authority.SERVING_SKEW_SECONDS`).
_SKEW_SECONDS: Final = 300
# API servers see a changed webhook configuration within a second; one that was cut off from etcd has this long to catch up.
PUBLISH_SECONDS: Final = 600
# A mounted Secret follows within two minutes (kubelet's sync period and cache).
RETIRE_SECONDS: Final = _DAY

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
# cert-manager marks the Secrets that it writes, and is told by the other which configurations to write the bundle into.
CERT_MANAGER_SECRET: Final = "cert-manager.io/certificate-name"  # noqa: S105 - an annotation's name
CERT_MANAGER_INJECT: Final = "cert-manager.io/inject-ca-from"

# A certificate and its private key, PEM.
Pair = tuple[bytes, SecretValue]


class Mint(Protocol):
    """What makes and reads certificates (`tokenmint.authority`)."""

    def create_root(self, now: int) -> Pair:
        """A new authority."""

    def issue_serving(self, root: Pair, names: Iterable[str], now: int, life_seconds: int) -> Pair:
        """A server's certificate of an authority."""

    def examine(self, pair: Pair, root_pem: bytes | None = None) -> tuple[int, int, frozenset[str]] | None:
        """From when, to when, for which names; None for what is of no use, or not signed by `root_pem`."""

    def ends_at(self, certificate_pem: bytes) -> int | None:
        """When a certificate ends; None where it can't be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What an authority is for, and when it is replaced. All times are in seconds.

    `names` are those of the servers that its certificate is for; None: it is handed over itself, to sign elsewhere. With `renewal` left
    of its life its successor is made, which everybody must have trusted for `publish` before it signs. It does not sign with more than
    `handover` left, and with `insist` left it signs although somebody does not trust it.
    """

    names: frozenset[str] | None
    publish: int
    renewal: int = AUTHORITY_RENEWAL_SECONDS
    handover: int = AUTHORITY_RENEWAL_SECONDS
    insist: int = INSIST_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the Secret holds. `published` says since when (Unix seconds) everybody trusts `successor`.

    `serving` is None where the authority itself is what is handed over.
    """

    authority: Pair = field(repr=False)
    serving: Pair | None = field(repr=False)
    trusted: tuple[bytes, ...]
    successor: Pair | None = field(default=None, repr=False)
    published: int | None = None

    @property
    def handed(self) -> Pair:
        """`tls.crt` and `tls.key`."""
        return self.serving or self.authority

    @property
    def bundle(self) -> bytes:
        """What is to be trusted, PEM."""
        return b"".join(self.trusted)


def plan(kept: Kept | None, bundles: Iterable[bytes], use: Use, now: int, mint: Mint) -> Kept:
    """What is to be kept from now on. `bundles` are what everybody trusts as it is, PEM: `caBundle`s, keys of ConfigMaps.

    Whoever calls writes the result where it differs from `kept`, and then its `bundle` to everybody.
    """
    found = None if kept is None else mint.examine(kept.authority)
    if kept is None or found is None or found[1] <= now:
        return _begin(kept, use, now, mint)
    left = found[1] - now
    planned = _trust_own(kept)
    if planned.successor is None and left < use.renewal:
        planned = _announce(planned, now, mint)
    planned = _promote(_publish(planned, bundles, now, mint), left, use, now, mint)
    return _retire(_renew(planned, use, now, mint), now, mint)


def _begin(kept: Kept | None, use: Use, now: int, mint: Mint) -> Kept:
    """Everything new, at once. What was trusted stays so for a while: somebody may still serve it."""
    authority = mint.create_root(now)
    still = () if kept is None else tuple(each for each in kept.trusted if (mint.ends_at(each) or 0) > now)
    return Kept(authority=authority, serving=_serve(authority, use, now, mint), trusted=(authority[0], *still))


def _serve(authority: Pair, use: Use, now: int, mint: Mint) -> Pair | None:
    return None if use.names is None else mint.issue_serving(authority, use.names, now, LEAF_LIFE_SECONDS)


def _trust_own(kept: Kept) -> Kept:
    """Whatever somebody did to the Secret: the authority in use, and the next, are trusted."""
    own = (kept.authority[0],) if kept.successor is None else (kept.authority[0], kept.successor[0])
    return replace(kept, trusted=(*own, *(each for each in kept.trusted if each not in own)))


def _announce(kept: Kept, now: int, mint: Mint) -> Kept:
    successor = mint.create_root(now)
    return _trust_own(replace(kept, successor=successor, published=None))


def _publish(kept: Kept, bundles: Iterable[bytes], now: int, mint: Mint) -> Kept:
    """Note since when everybody trusts the successor; one who does not (any more) begins the wait anew."""
    if kept.successor is None:
        return kept
    found = mint.examine(kept.successor)
    if found is None or found[1] <= now:
        return replace(kept, successor=None, published=None)
    everywhere = all(kept.successor[0].strip() in bundle for bundle in bundles)
    since = kept.published if kept.published is not None and kept.published <= now else now
    return replace(kept, published=since if everywhere else None)


def _promote(kept: Kept, left: int, use: Use, now: int, mint: Mint) -> Kept:
    if kept.successor is None or not _may_sign(kept, kept.successor, left, use, now, mint):
        return kept
    serving = _serve(kept.successor, use, now, mint)
    return replace(kept, authority=kept.successor, serving=serving, successor=None, published=None)


def _may_sign(kept: Kept, successor: Pair, left: int, use: Use, now: int, mint: Mint) -> bool:
    """Whether the successor signs from now on. One that was made late gets its time also where it is insisted on."""
    if left > use.handover:
        return False
    if kept.published is not None and now - kept.published >= use.publish:
        return True
    found = mint.examine(successor)
    return left <= use.insist and found is not None and now - found[0] >= use.publish + _SKEW_SECONDS


def _renew(kept: Kept, use: Use, now: int, mint: Mint) -> Kept:
    """A certificate of the same authority needs no other bundle. One that ends with its authority is not made again and again."""
    if use.names is None:
        return replace(kept, serving=None)
    found = None if kept.serving is None else mint.examine(kept.serving, kept.authority[0])
    if found is not None and found[0] <= now and use.names <= found[2]:
        authority = mint.examine(kept.authority)
        last = authority is not None and found[1] == authority[1]
        if found[1] - now >= LEAF_RENEWAL_SECONDS or (last and found[1] > now):
            return kept
    return replace(kept, serving=_serve(kept.authority, use, now, mint))


def _retire(kept: Kept, now: int, mint: Mint) -> Kept:
    """Forget authorities that ended, and those before this one a while after the certificate in use was made.

    Of an authority that signs elsewhere nobody here knows what it signed last: the ones before it are trusted until they end.
    """
    own = {kept.authority[0]} if kept.successor is None else {kept.authority[0], kept.successor[0]}
    found = None if kept.serving is None else mint.examine(kept.serving, kept.authority[0])
    served_long = found is not None and now - found[0] >= RETIRE_SECONDS
    stay = (each for each in kept.trusted if each in own or (not served_long and (mint.ends_at(each) or 0) > now))
    return replace(kept, trusted=tuple(stay))


def read(secret: Manifest, use: Use) -> Kept | None:
    """What a Secret holds; None where something is missing or is no base64: then everything begins anew."""
    data = secret.get("data")
    if not isinstance(data, Mapping):
        return None
    try:
        values = {str(key): base64.b64decode(str(value), validate=True) for key, value in data.items()}
        published = values.get("successor-published")
        handed = (values["tls.crt"], SecretValue(values["tls.key"]))
        return Kept(
            authority=handed if use.names is None else (values["authority.crt"], SecretValue(values["authority.key"])),
            serving=None if use.names is None else handed,
            trusted=split(values["ca.crt"]),
            successor=(values["successor.crt"], SecretValue(values["successor.key"])) if "successor.crt" in values else None,
            published=None if published is None else int(published),
        )
    except (KeyError, ValueError, binascii.Error):
        return None


def serving_of(secret: Manifest) -> Pair | None:
    """The certificate and key of a Secret of type `kubernetes.io/tls`, whoever keeps it; None where they can't be read."""
    data = secret.get("data") or {}
    try:
        return base64.b64decode(data["tls.crt"], validate=True), SecretValue(base64.b64decode(data["tls.key"], validate=True))
    except (KeyError, ValueError, TypeError):
        return None


def write(kept: Kept) -> dict[str, str]:
    """The Secret's `data`."""
    values = {"tls.crt": kept.handed[0], "tls.key": kept.handed[1].reveal(), "ca.crt": kept.bundle}
    if kept.serving is not None:
        values |= {"authority.crt": kept.authority[0], "authority.key": kept.authority[1].reveal()}
    if kept.successor is not None:
        values |= {"successor.crt": kept.successor[0], "successor.key": kept.successor[1].reveal()}
    if kept.published is not None:
        values["successor-published"] = str(kept.published).encode()
    return {key: base64.b64encode(value).decode() for key, value in values.items()}


def split(bundle: bytes) -> tuple[bytes, ...]:
    """The certificates of a PEM bundle, each once."""
    found = (_BEGIN + part.rstrip() + b"\n" for part in bundle.split(_BEGIN)[1:])
    return tuple(dict.fromkeys(found))


def bundle_patch(configuration: Manifest, bundle: bytes) -> tuple[Mapping[str, Any], ...]:
    """The JSON Patch that gives every webhook of a configuration this `caBundle`; empty where there is nothing to do, or it is not ours."""
    if is_cert_managers(configuration):
        return ()
    wanted = base64.b64encode(bundle).decode()
    changes: list[Mapping[str, Any]] = []
    for place, webhook in enumerate(configuration.get("webhooks") or ()):
        if (webhook.get("clientConfig") or {}).get("caBundle") != wanted:
            changes.append({"op": "add", "path": f"/webhooks/{place}/clientConfig/caBundle", "value": wanted})
    if not changes:
        return ()
    # The places in the list are those of this version.
    return ({"op": "test", "path": "/metadata/resourceVersion", "value": configuration["metadata"]["resourceVersion"]}, *changes)


def bundles_of(configuration: Manifest) -> tuple[bytes, ...]:
    """The `caBundle` of each webhook of a configuration; an empty one where there is none."""
    found = ((webhook.get("clientConfig") or {}).get("caBundle") or "" for webhook in configuration.get("webhooks") or ())
    return tuple(base64.b64decode(each) for each in found)


def is_cert_managers(manifest: Manifest) -> bool:
    """Whether cert-manager looks after this Secret or configuration: then it is not touched."""
    annotations = (manifest.get("metadata") or {}).get("annotations") or {}
    return CERT_MANAGER_SECRET in annotations or CERT_MANAGER_INJECT in annotations
