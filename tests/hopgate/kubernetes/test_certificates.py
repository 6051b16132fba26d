"""What is kept of certificates over years, with a clock that the tests turn, and certificates that are real."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography import x509

from hopgate.kubernetes import certificates
from hopgate.kubernetes.certificates import (
    AUTHORITY_RENEWAL_SECONDS,
    LEAF_LIFE_SECONDS,
    LEAF_RENEWAL_SECONDS,
    PUBLISH_SECONDS,
    RETIRE_SECONDS,
    Kept,
    Use,
)
from hopgate.resources.kinds import SecretValue
from tokenmint import authority
from tokenmint.authority import AUTHORITY_LIFE_SECONDS

NAMES = frozenset({"hopgate-webhooks.hopgate-system.svc", "127.0.0.1"})
USE = Use(names=NAMES, publish=PUBLISH_SECONDS)
START = 1_800_000_000
DAY = 86_400


def plan(kept: Kept | None, now: int, *bundles: bytes, names: frozenset[str] = NAMES) -> Kept:
    return certificates.plan(kept, bundles, Use(names=names, publish=PUBLISH_SECONDS), now, authority)


@pytest.fixture(scope="module")
def first() -> Kept:
    return plan(None, START, b"")


def signed_by(kept: Kept, trusted: bytes) -> bool:
    return any(authority.examine(kept.handed, root) is not None for root in certificates.split(trusted))


def announced(first: Kept) -> tuple[Kept, int]:
    now = START + AUTHORITY_LIFE_SECONDS - AUTHORITY_RENEWAL_SECONDS + 1
    return plan(first, now, first.bundle), now


def test_from_nothing_an_authority_and_a_certificate_for_the_names_are_made(first: Kept) -> None:
    found = authority.examine(first.handed, first.authority[0])

    assert found is not None
    assert found[2] == NAMES
    assert found[1] == START + LEAF_LIFE_SECONDS
    assert (first.trusted, first.successor) == ((first.authority[0],), None)
    # A clock that is two minutes behind takes it already.
    assert found[0] <= START - 120


@pytest.mark.parametrize("later", [0, 1, LEAF_LIFE_SECONDS - LEAF_RENEWAL_SECONDS])
def test_what_is_good_stays_as_it_is(first: Kept, later: int) -> None:
    assert plan(first, START + later, first.bundle) == first


def test_a_certificate_is_renewed_by_the_same_authority(first: Kept) -> None:
    renewed = plan(first, START + LEAF_LIFE_SECONDS - LEAF_RENEWAL_SECONDS + 1, first.bundle)

    assert renewed.handed != first.handed
    assert (renewed.authority, renewed.bundle) == (first.authority, first.bundle)


def test_a_new_name_gives_a_new_certificate_and_a_name_less_does_not(first: Kept) -> None:
    more = plan(first, START, first.bundle, names=NAMES | {"other.hopgate-system.svc"})

    assert more.handed != first.handed
    assert plan(more, START, more.bundle) == more


def test_a_successor_is_trusted_before_it_serves(first: Kept) -> None:
    found, now = announced(first)

    assert found.successor is not None
    assert found.trusted == (first.authority[0], found.successor[0])
    assert found.authority == first.authority
    assert authority.examine(found.handed, first.authority[0]) is not None
    assert found.published is None
    assert plan(first, now - 2, first.bundle).successor is None


def test_the_wait_begins_when_every_configuration_trusts_it_and_begins_anew_when_one_does_not(first: Kept) -> None:
    found, now = announced(first)

    assert plan(found, now + 1, found.bundle, first.bundle).published is None
    published = plan(found, now + 2, found.bundle, found.bundle)
    assert published.published == now + 2
    assert plan(published, now + 2 + PUBLISH_SECONDS, found.bundle, first.bundle).published is None
    assert plan(published, now + 1 + PUBLISH_SECONDS, found.bundle, found.bundle).authority == first.authority
    promoted = plan(published, now + 2 + PUBLISH_SECONDS, found.bundle, found.bundle)
    assert promoted.authority == found.successor
    assert promoted.successor is None
    assert authority.examine(promoted.handed, promoted.authority[0]) is not None


def test_the_one_before_is_trusted_until_long_after(first: Kept) -> None:
    found, now = announced(first)
    published = plan(found, now, found.bundle)
    promoted = plan(published, now + PUBLISH_SECONDS, found.bundle)
    later = now + PUBLISH_SECONDS + RETIRE_SECONDS

    assert first.authority[0] in plan(promoted, later - 400, promoted.bundle).trusted
    assert plan(promoted, later, promoted.bundle).trusted == (promoted.authority[0],)


def test_over_three_years_each_certificate_that_may_be_served_is_trusted_where_it_may_be_checked() -> None:
    """Looked at every six hours: what a mounted Secret was a look ago, and what configurations were a look ago, still fit."""
    kept = plan(None, START, b"")
    seen_bundle, served = kept.bundle, kept
    authorities = {kept.authority[0]}
    for now in range(START, START + 3 * 366 * DAY, DAY // 4):
        planned = plan(kept, now, seen_bundle)
        for bundle in (seen_bundle, planned.bundle):
            assert signed_by(served, bundle)
            assert signed_by(planned, bundle)
        for serving in (served, planned):
            found = authority.examine(serving.handed)
            assert found is not None
            assert found[0] <= now < found[1]
        assert len(planned.trusted) <= 3
        kept, seen_bundle, served = planned, planned.bundle, planned
        authorities.add(kept.authority[0])
    assert len(authorities) == 4


@pytest.mark.parametrize("later", [AUTHORITY_LIFE_SECONDS, AUTHORITY_LIFE_SECONDS + 400 * DAY])
def test_after_years_without_anybody_looking_everything_begins_anew(first: Kept, later: int) -> None:
    found = plan(first, START + later, first.bundle)

    assert found.authority != first.authority
    assert signed_by(found, found.bundle)
    assert found.trusted == (found.authority[0],)


def broken_key(kept: Kept) -> Kept:
    return replace(kept, authority=(kept.authority[0], SecretValue(b"nothing")))


def others_key(kept: Kept) -> Kept:
    return replace(kept, authority=(kept.authority[0], authority.create_root(START)[1]))


@pytest.mark.parametrize("spoil", [broken_key, others_key])
def test_an_authority_that_can_sign_nothing_is_replaced_and_stays_trusted(first: Kept, spoil: object) -> None:
    assert callable(spoil)
    found = plan(spoil(first), START + 1, first.bundle)

    assert found.authority != first.authority
    assert first.authority[0] in found.trusted
    assert plan(first, START + 1, first.bundle) == first


def test_a_certificate_of_somebody_else_is_replaced(first: Kept) -> None:
    other = plan(None, START, b"")
    found = plan(replace(first, serving=other.serving), START + 1, first.bundle)

    assert authority.examine(found.handed, first.authority[0]) is not None


def test_whatever_the_secret_trusts_the_authority_in_use_is_trusted(first: Kept) -> None:
    assert first.authority[0] in plan(replace(first, trusted=()), START + 1, b"").trusted


def test_what_is_kept_is_read_back_from_the_secret(first: Kept) -> None:
    found, now = announced(first)
    found = plan(found, now, found.bundle)
    read = certificates.read({"data": certificates.write(found)}, USE)

    assert read is not None
    assert certificates.write(read) == certificates.write(found)
    assert read.published == now
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize("key", ["authority.crt", "authority.key", "tls.crt", "tls.key", "ca.crt"])
def test_a_secret_that_lacks_a_part_is_no_secret_of_ours(first: Kept, key: str) -> None:
    data = certificates.write(first)
    assert certificates.read({"data": data}, USE) is not None
    assert certificates.read({"data": {name: value for name, value in data.items() if name != key}}, USE) is None
    assert certificates.read({"data": {**data, key: "no base64!"}}, USE) is None


def configuration(*bundles: str | None, annotations: dict[str, str] | None = None) -> dict[str, object]:
    webhooks = [{"clientConfig": {} if bundle is None else {"caBundle": bundle}} for bundle in bundles]
    return {"metadata": {"name": "hopgate", "resourceVersion": "7", "annotations": annotations or {}}, "webhooks": webhooks}


def test_the_bundle_is_written_where_it_is_another_of_this_version_alone(first: Kept) -> None:
    right = base64.b64encode(first.bundle).decode()

    assert certificates.bundle_patch(configuration(right, right), first.bundle) == ()
    assert certificates.bundle_patch(configuration(right, None, "b2xk"), first.bundle) == (
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": right},
        {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": right},
    )
    cert_managers = configuration(None, annotations={certificates.CERT_MANAGER_INJECT: "hopgate-system/webhooks"})
    assert certificates.bundle_patch(cert_managers, first.bundle) == ()


def test_serving_certificates_are_what_a_server_of_a_cluster_needs(first: Kept) -> None:
    leaf = x509.load_pem_x509_certificate(first.handed[0])
    root = x509.load_pem_x509_certificate(first.authority[0])

    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
