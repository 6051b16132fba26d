"""The authorities of authz and of opened TLS over years, with gaps in which nobody looks and namespaces that somebody changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopgate.kubernetes import authorities, certificates
from hopgate.kubernetes.certificates import Kept, Use
from hopgate.kubernetes.sidecar import AUTHORITIES_CONFIG_MAP, AUTHZ_AUTHORITY_KEY
from tokenmint import authority
from tokenmint.authority import AUTHORITY_LIFE_SECONDS, LEAF_LIFE_SECONDS, Authority

START = 1_800_000_000
DAY = 86_400
YEARS = 2 * 366 * DAY
AUTHZ = authorities.authz_use("hopgate-authz.hopgate.svc")
OPEN_TLS = authorities.OPEN_TLS
# How long nobody may look: less than what is left of a certificate when it is renewed, and of an authority when it is insisted.
GAP = 5 * DAY
# How long a pod may run with the bundle that it read when it started.
POD_LIFE = OPEN_TLS.renewal - OPEN_TLS.handover - GAP

# Again and again; the last of them is long, so that the years don't take a million looks.
gaps = st.lists(st.integers(60, GAP), max_size=4).map(lambda waits: [*waits, GAP])
# Which look finds a namespace that lacks what was published last.
spoilt = st.frozensets(st.integers(0, 100), max_size=30)


@dataclass(frozen=True)
class Look:
    """What was kept, and what the namespaces were told, from `at` on; `lacking` says that one had been changed just before."""

    at: int
    kept: Kept
    bundle: bytes
    lacking: bool


@dataclass
class History:
    looks: list[Look] = field(default_factory=list)

    def pairs(self) -> Iterator[tuple[Look, Look]]:
        return itertools.pairwise(self.looks)


def lived(use: Use, waits: list[int], spoilt: frozenset[int]) -> History:
    """Years of looks at two namespaces, one of which somebody changes now and then."""
    history, now = History(), START
    kept: Kept | None = None
    for number, wait in enumerate(itertools.cycle(waits)):
        lacking = number % 101 in spoilt
        found = [] if kept is None else [kept.bundle, b"nonsense" if lacking else kept.bundle]
        kept = certificates.plan(kept, found, use, now, authority)
        history.looks.append(Look(now, kept, kept.bundle, lacking))
        now += wait
        if now > START + YEARS:
            return history
    raise AssertionError


@settings(max_examples=5)
@given(gaps, spoilt)
def test_what_authz_serves_is_trusted_by_every_sidecar_at_each_moment(waits: list[int], changed: frozenset[int]) -> None:
    """Whether the process or the sidecar has followed already, or not yet; the Secret is written before the ConfigMaps."""
    history = lived(AUTHZ, waits, changed)
    for before, after in history.pairs():
        for serving, trusting in itertools.product((before, after), repeat=2):
            assert any(authority.examine(serving.kept.handed, root) for root in certificates.split(trusting.bundle))
        found = authority.examine(after.kept.handed)
        assert found is not None
        assert found[0] <= after.at
        assert found[1] > after.at + GAP
    assert len({look.kept.authority[0] for look in history.looks}) > 2


@settings(max_examples=5)
@given(gaps, spoilt)
def test_what_programs_are_shown_is_trusted_by_those_that_started_half_a_year_ago(waits: list[int], changed: frozenset[int]) -> None:
    history = lived(OPEN_TLS, waits, changed)
    for number, (before, after) in enumerate(history.pairs()):
        for started in history.looks[: number + 2]:
            if started.at >= after.at - POD_LIFE:
                for signer in (before, after):
                    assert signer.kept.authority[0] in started.bundle
        # A certificate that was signed a day ago is shown still, also to a program that starts now.
        shown = [look for look in history.looks[: number + 1] if look.at >= before.at - LEAF_LIFE_SECONDS]
        assert all(look.kept.authority[0] in after.bundle for look in shown)
        found = authority.examine(after.kept.authority)
        assert found is not None
        assert found[1] > after.at + GAP
    assert len({look.kept.authority[0] for look in history.looks}) > 2


@pytest.mark.parametrize("use", [AUTHZ, OPEN_TLS], ids=["authz", "open TLS"])
@settings(max_examples=5)
@given(waits=gaps, changed=spoilt)
def test_nothing_signs_before_everybody_had_it_long_enough(use: Use, waits: list[int], changed: frozenset[int]) -> None:
    looks = lived(use, waits, changed).looks
    for number, (before, after) in enumerate(itertools.pairwise(looks)):
        signer = after.kept.authority[0]
        if signer == before.kept.authority[0]:
            continue
        announced = next(look.at for look in looks if signer in look.bundle)
        lacked = max((look.at for look in looks[: number + 2] if look.lacking and look.at > announced), default=announced)
        end = authority.ends_at(before.kept.authority[0])
        assert end is not None
        assert end - after.at <= use.handover
        assert after.at - announced >= use.publish
        assert after.at - lacked >= use.publish or end - after.at <= use.insist


def test_a_namespace_that_is_changed_again_and_again_puts_it_off_no_longer_than_that() -> None:
    looks = lived(AUTHZ, [DAY // 2], frozenset(range(101))).looks
    changes = [(before, after) for before, after in itertools.pairwise(looks) if before.kept.authority != after.kept.authority]
    assert len(changes) == 2
    for before, after in changes:
        assert (authority.ends_at(before.kept.authority[0]) or 0) - after.at in range(AUTHZ.insist - DAY // 2, AUTHZ.insist + 1)


def test_an_authority_of_opened_tls_is_handed_over_itself_and_signs() -> None:
    kept = certificates.plan(None, [], OPEN_TLS, START, authority)
    data = certificates.write(kept)
    leaf = Authority.load(*kept.handed).issue("api.example.com", START)

    assert set(data) == {"tls.crt", "tls.key", "ca.crt"}
    assert authority.examine((leaf.certificate_pem, leaf.private_key_pem), kept.bundle) is not None
    read = certificates.read({"data": data}, OPEN_TLS)
    assert read is not None
    assert certificates.write(read) == data
    assert certificates.read({"data": {**data, "tls.key": ""}}, OPEN_TLS) is not None
    assert certificates.read({"data": {key: value for key, value in data.items() if key != "tls.key"}}, OPEN_TLS) is None


def test_after_its_end_everything_begins_anew_and_what_is_left_stays_trusted() -> None:
    kept = certificates.plan(None, [], OPEN_TLS, START, authority)
    later = certificates.plan(kept, [kept.bundle], OPEN_TLS, START + AUTHORITY_LIFE_SECONDS, authority)
    assert later.authority != kept.authority
    assert later.trusted == (later.authority[0],)


def namespace(name: str, *, label: str | None = "enabled", deleted: bool = False) -> dict[str, object]:
    metadata = {"name": name, "labels": {} if label is None else {"hopgate.dev/inject": label}}
    return {"metadata": {**metadata, "deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else metadata}


def config_map(namespace: str, *, ours: bool = True, name: str = AUTHORITIES_CONFIG_MAP) -> dict[str, object]:
    labels = {authorities.MANAGED_BY: authorities.MANAGER} if ours else {}
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels, "resourceVersion": "7"}}


@pytest.mark.parametrize(
    ("given_namespace", "given_map", "wanted"),
    [
        pytest.param(namespace("demo"), None, True, id="labelled"),
        pytest.param(namespace("demo", label="disabled"), None, False, id="labelled otherwise"),
        pytest.param(namespace("demo", label=None), None, False, id="not labelled"),
        pytest.param(namespace("demo", label=None), config_map("demo"), True, id="not labelled any more"),
        pytest.param(namespace("demo", label=None), config_map("demo", ours=False), False, id="somebody else's"),
        pytest.param(namespace("demo"), config_map("demo", ours=False), True, id="labelled, somebody else's"),
        pytest.param(namespace("demo", label=None), config_map("demo", name="other"), False, id="another name"),
        pytest.param(namespace("demo", deleted=True), config_map("demo"), False, id="on its way out"),
        pytest.param(namespace("hopgate", label=None), None, True, id="hopgate's own, for gateways"),
        pytest.param(namespace("hopgate", deleted=True), None, False, id="hopgate's own on its way out"),
        pytest.param(namespace("kube-system"), None, False, id="the cluster's own"),
    ],
)
def test_which_namespaces_are_told(given_namespace: dict[str, object], given_map: dict[str, object] | None, wanted: bool) -> None:
    found = authorities.places([given_namespace], [] if given_map is None else [given_map], "hopgate")
    assert bool(found) is wanted


def test_what_is_not_there_keeps_nobody_waiting_and_what_lacks_it_does() -> None:
    assert authorities.published([None], AUTHZ_AUTHORITY_KEY) == ()
    assert authorities.published([config_map("demo")], AUTHZ_AUTHORITY_KEY) == (b"",)


@pytest.mark.parametrize("data", [None, {}, {"ca.crt": "no base64!"}], ids=["nothing", "no such key", "no base64"])
def test_a_secret_of_cert_manager_without_an_authority_says_nothing(data: dict[str, str] | None) -> None:
    assert authorities.of_cert_manager({"data": data}) == b""
    assert authorities.of_cert_manager({"data": {"ca.crt": "eA=="}}) == b"x"
