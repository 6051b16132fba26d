"""Nobody takes over what another's object has: tried by people of one namespace, before, after and at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from kubernetes.client import ApiException

from tests.cluster.api_server import eventually, message_of
from tests.cluster.installation import Installation, Tenant, get

ROUNDS = 50
# On the public internet, so that no right is needed to name it; nothing is ever sent there.
ADDRESS = "8.8.8.8"
PERMIT = 'permit (principal, action == Hopgate::Action::"HttpRequest", resource);'


def tool(host: str, address: str | None = ADDRESS, port: int = 80) -> dict[str, Any]:
    given = {} if address is None else {"address": f"{address}:{port}"}
    return {"protocol": "HTTP", "hosts": [host], "tls": "Disabled", "port": 80, **given}


@dataclass(frozen=True)
class Rivals:
    """Two people with a namespace each. Their agent may call every tool server of its own namespace."""

    installation: Installation
    mine: Tenant
    theirs: Tenant
    token: str

    def is_theirs(self, host: str) -> bool:
        """Whether authz leads this host to an object of theirs: only then it is their policies' to permit."""
        return self.installation.authz.allows(get(host), self.token)


@pytest.fixture(scope="module")
def rivals(installation: Installation) -> Rivals:
    mine, theirs = installation.tenant(), installation.tenant()
    _, token = theirs.agent("planner")
    assert theirs.attempt("Policy", "planner", {"cedar": PERMIT}) == ""
    return Rivals(installation, mine, theirs, token)


@pytest.mark.parametrize(
    ("code", "theirs", "taken", "free"),
    [
        ("DuplicateHost", tool("a.example.com", None), tool("a.example.com", None), tool("b.example.com", None)),
        (
            "DuplicateAddress",
            tool("c.example.com", ADDRESS, 4001),
            tool("d.example.com", ADDRESS, 4001),
            tool("d.example.com", ADDRESS, 4002),
        ),
    ],
    ids=["host", "address"],
)
def test_what_another_namespaces_object_has_is_not_taken_by_a_new_or_an_older_one(
    rivals: Rivals, code: str, theirs: dict[str, Any], taken: dict[str, Any], free: dict[str, Any]
) -> None:
    name = code.lower()
    older = {**free, "hosts": [f"{name}.example.com"], "address": f"{ADDRESS}:4999"}
    assert rivals.mine.make("ToolServer", "older", older) == ""
    assert rivals.theirs.make("ToolServer", name, theirs) == ""
    for said in (rivals.mine.make("ToolServer", "new", taken), rivals.mine.edit("ToolServer", "older", {"hosts": older["hosts"], **taken})):
        assert f"({code})" in said
        assert rivals.theirs.namespace not in said
    assert rivals.mine.make("ToolServer", "new", free) == ""
    assert rivals.mine.edit("ToolServer", "older", {"port": 8080}) == ""
    for each in ("older", "new"):
        rivals.mine.objects.delete("ToolServer", each)
    # Once its owner gives it up it may be had.
    rivals.theirs.objects.delete("ToolServer", name)
    assert rivals.mine.make("ToolServer", "new", taken) == ""
    rivals.mine.objects.delete("ToolServer", "new")


@pytest.mark.parametrize(
    ("kind", "code", "spec", "free"),
    [
        ("Agent", "DuplicateServiceAccount", {"serviceAccountName": "shared"}, {"serviceAccountName": "other"}),
        ("Agent", "DuplicateService", {"service": {"name": "shared", "port": 80}}, {"service": {"name": "other", "port": 80}}),
    ],
    ids=["service account", "service"],
)
def test_what_is_of_one_namespace_is_not_taken_within_it(
    rivals: Rivals, kind: str, code: str, spec: dict[str, Any], free: dict[str, Any]
) -> None:
    """Another namespace can't name it at all."""
    colleague = rivals.installation.tenant(namespace=rivals.theirs.namespace)
    assert colleague.make(kind, "older", {}) == ""
    assert rivals.theirs.make(kind, "first", spec) == ""
    assert f"({code})" in colleague.make(kind, "second", spec)
    assert f"({code})" in colleague.edit(kind, "older", spec)
    if code == "DuplicateService":
        assert f"({code})" in colleague.make("ToolServer", "second", {"protocol": "HTTP", **spec})
    assert colleague.make(kind, "second", free) == ""
    assert rivals.mine.make(kind, "first", spec) == ""
    for tenant, names in ((rivals.mine, ("first",)), (rivals.theirs, ("older", "first", "second"))):
        for name in names:
            tenant.objects.delete(kind, name)


def test_an_issuer_is_not_taken_over(rivals: Rivals) -> None:
    def provider(issuer: str) -> dict[str, Any]:
        return {"issuer": issuer, "audiences": ["hopgate"], "jwksURI": f"{issuer}/keys"}

    first, second = rivals.installation.tenant(), rivals.installation.tenant()
    assert "is forbidden" in first.make("IdentityProvider", "first", provider("https://login.example.com"))
    for each in (first, second):
        rivals.installation.grant(each.user, None, (("hopgate.dev", "identityproviders", "get,create,patch,delete"),))
    eventually(lambda: first.make("IdentityProvider", "first", provider("https://login.example.com")) == "", "the right is in force")
    assert "(DuplicateIssuer)" in second.make("IdentityProvider", "second", provider("https://login.example.com"))
    assert second.make("IdentityProvider", "second", provider("https://other.example.com")) == ""
    for name in ("first", "second"):
        first.objects.delete("IdentityProvider", name)


def test_a_name_of_the_inside_is_no_host(rivals: Rivals) -> None:
    for host in (
        f"tickets.{rivals.theirs.namespace}.svc",
        f"tickets.{rivals.theirs.namespace}.svc.cluster.local",
        "kubernetes.default.svc",
    ):
        assert "hosts" in rivals.mine.make("ToolServer", "inside", tool(host, None))
    assert rivals.mine.make("ToolServer", "inside", tool("inside.example.com", None)) == ""
    rivals.mine.objects.delete("ToolServer", "inside")


def test_another_namespaces_service_is_not_dialled_by_its_address(rivals: Rivals) -> None:
    """It would be a tool server of this namespace's own, and so this namespace's policies' to permit."""
    mine, theirs = rivals.mine, rivals.theirs
    theirs.tool_server("tickets")
    found: Any = theirs.objects.core.read_namespaced_service("tickets", theirs.namespace)
    address = found.spec.cluster_ip
    said = mine.make("ToolServer", "past", tool("past.example.com", address))
    assert "(AddressNotAllowed)" in said
    for inside in ("127.0.0.1", "10.96.0.1", "192.168.0.1"):
        assert "(AddressNotAllowed)" in mine.make("ToolServer", "past", tool("past.example.com", inside))
    assert mine.make("ToolServer", "past", tool("past.example.com", "8.8.4.4")) == ""
    assert "(AddressNotAllowed)" in mine.edit("ToolServer", "past", {"address": f"{address}:80"})
    # The right is the whole cluster's: a Role of a namespace doesn't hold it.
    right = (("hopgate.dev", "toolservers", "dial-inside"),)
    rivals.installation.grant(mine.user, mine.namespace, right)
    assert "(AddressNotAllowed)" in mine.edit("ToolServer", "past", {"address": f"{address}:80"})
    rivals.installation.grant(mine.user, None, right)
    eventually(lambda: mine.edit("ToolServer", "past", {"address": f"{address}:80"}) == "", "the right is in force")
    mine.objects.delete("ToolServer", "past")


def test_an_address_is_not_written_into_a_status_by_hand(rivals: Rivals) -> None:
    """Whose name stands in `status.addresses` is believed when authz starts."""
    mine, theirs = rivals.mine, rivals.theirs
    host = "status.example.com"
    status = {"addresses": [{"host": host, "address": "198.19.7.7"}]}
    assert mine.make("ToolServer", "older", tool("mine.example.com", ADDRESS, 4100)) == ""
    assert theirs.make("ToolServer", "status", tool(host, ADDRESS, 4101)) == ""
    with pytest.raises(ApiException, match="Forbidden"):
        mine.objects.set_status("ToolServer", "older", status)
    custom: Any = mine.objects._custom
    given = ("hopgate.dev", "v1alpha1", mine.namespace, "toolservers")
    custom.patch_namespaced_custom_object(*given, "older", {"status": status})
    body = {"apiVersion": "hopgate.dev/v1alpha1", "kind": "ToolServer", "metadata": {"name": "newer"}, "status": status}
    made = custom.create_namespaced_custom_object(*given, {**body, "spec": tool("newer.example.com", ADDRESS, 4102)})
    assert "status" not in made
    assert "addresses" not in custom.get_namespaced_custom_object(*given, "older").get("status", {})
    rivals.installation.grant(mine.user, mine.namespace, (("hopgate.dev", "toolservers/status", "patch"),))
    eventually(lambda: not _refused(lambda: mine.objects.set_status("ToolServer", "older", status)), "who has the right may")
    # Even then the status of an object that doesn't want the name is worth nothing.
    rivals.installation.authz.kill()
    rivals.installation.authz.start()
    assert rivals.is_theirs(host)
    for name in ("older", "newer"):
        mine.objects.delete("ToolServer", name)
    theirs.objects.delete("ToolServer", "status")


def _refused(call: Callable[[], object]) -> str:
    try:
        call()
    except ApiException as error:
        return message_of(error)
    return ""


def test_who_was_first_by_a_moment_has_it(rivals: Rivals) -> None:
    """Theirs is written, and at once an older object of mine wants the same: before any watch has told of it."""
    mine, theirs = rivals.mine, rivals.theirs
    assert mine.make("ToolServer", "older", tool("first.example.com", ADDRESS, 4200)) == ""
    said = []
    for number in range(ROUNDS):
        wanted = tool(f"moment-{number}.example.com", ADDRESS, 5000 + number)
        assert theirs.make("ToolServer", f"moment-{number}", wanted) == ""
        said.append(mine.edit("ToolServer", "older", wanted))
    assert [each for each in said if "(DuplicateHost)" not in each] == []
    assert mine.edit("ToolServer", "older", tool("neighbour.example.com", ADDRESS, 4999)) == ""
    eventually(lambda: rivals.is_theirs(f"moment-{ROUNDS - 1}.example.com"), "theirs are in force")
    assert all(rivals.is_theirs(f"moment-{number}.example.com") for number in range(ROUNDS))
    _clean(rivals)


def test_of_two_that_want_it_one_has_it_also_after_a_restart(rivals: Rivals) -> None:
    """Of four rounds two are sent at one moment, in one theirs is sent first and in one mine; mine is an edit of an older object."""
    mine, theirs, authz = rivals.mine, rivals.theirs, rivals.installation.authz
    for number in range(ROUNDS):
        assert mine.make("ToolServer", f"older-{number}", tool(f"older-{number}.example.com", ADDRESS, 7000 + number)) == ""
    is_theirs: dict[str, bool] = {}
    with ThreadPoolExecutor(2) as writers:
        for number in range(ROUNDS):
            host = f"same-{number}.example.com"
            spec = tool(host, ADDRESS, 6000 + number)
            make = partial(theirs.make, "ToolServer", f"same-{number}", spec)
            edit = partial(mine.edit, "ToolServer", f"older-{number}", spec)
            if number % 4 == 2:
                assert make() == ""
                is_theirs[host] = edit() != ""
                assert is_theirs[host]
            elif number % 4 == 3:
                assert edit() == ""
                is_theirs[host] = make() == ""
                assert not is_theirs[host]
            else:
                refused = _at_one_moment(writers, make, edit)
                assert sorted(bool(each) for each in refused) == [False, True], refused
                is_theirs[host] = not refused[0]
    for _ in range(2):
        eventually(lambda: {host: rivals.is_theirs(host) for host in is_theirs} == is_theirs, "whoever was accepted has it")
        authz.kill()
        authz.start()
    _clean(rivals)


def _at_one_moment(writers: Executor, *calls: Callable[[], str]) -> tuple[str, ...]:
    barrier = threading.Barrier(len(calls))

    def after_all_stand(call: Callable[[], str]) -> str:
        barrier.wait()
        return call()

    return tuple(writers.map(after_all_stand, calls))


def _clean(rivals: Rivals) -> None:
    for tenant in (rivals.mine, rivals.theirs):
        tenant.objects.delete_all("ToolServer")
