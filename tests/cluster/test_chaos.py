"""What breaks around the gate gives no wrong verdict: everything runs as in a cluster, under checks whose right answers are known."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import kubernetes.client
import pytest
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from hopgate.audit import verify
from tests.cluster.api_server import ApiServer, ClusterError, eventually
from tests.cluster.installation import SYSTEM, Authz, Installation, Tenant, installed, tool_call
from tests.cluster.steady import Expected, Question, Steady, compact
from tests.cluster.test_webhook_process import NAME, NAMESPACE
from tests.cluster.webhooks import try_apply

# No answer, two edits at one moment, or the API server or a webhook that is not there yet.
_MOMENTARY = frozenset({0, 403, 409, 429, 500, 503})

# What is put before a program's arguments to run it with a clock that is so many seconds off. gRPC reckons deadlines from its own clock
# in C, and keeps the one in Python that goes with it.
CLOCK = """
import runpy, sys, time, types
import grpc._cython.cygrpc
real, real_ns = time.time, time.time_ns
grpc._cython.cygrpc.time = types.SimpleNamespace(time=real)
time.time, time.time_ns = lambda: real() + {0}, lambda: real_ns() + {0} * 10**9
sys.argv = [{1!r}, *sys.argv[1:]]
runpy.run_module({1!r}, run_name="__main__", alter_sys=True)
"""


def with_clock(module: str, seconds: int) -> tuple[str, ...]:
    return (sys.executable, "-c", CLOCK.format(seconds, module))


def permit(namespace: str, tool: str, effect: str = "permit") -> dict[str, str]:
    principal, resource = f'Hopgate::Agent::"{namespace}/planner"', f'Hopgate::Tool::"{namespace}/tickets/{tool}"'
    return {"cedar": f'{effect} (principal == {principal}, action == Hopgate::Action::"CallTool", resource == {resource});'}


@dataclass(frozen=True)
class Chaos:
    """A namespace whose agent may search, may never delete, and may or may not use the tool `edited`, as `put` says."""

    installation: Installation
    tenant: Tenant
    token: str
    edited: Expected

    @property
    def server(self) -> ApiServer:
        return self.installation.server

    @property
    def authz(self) -> Authz:
        return self.installation.authz

    def questions(self) -> dict[str, Question]:
        always, never = Expected(allowed=True), Expected(allowed=False)
        space = self.tenant.namespace
        return {
            "search": Question(request=tool_call(space, "search"), token=self.token, expected=always),
            "delete": Question(request=tool_call(space, "delete"), token=self.token, expected=never),
            "nobody's": Question(request=tool_call(space, "search"), token="nobody", expected=never),
            "edited": Question(request=tool_call(space, "edited"), token=self.token, expected=self.edited),
        }

    def load(self, authz: Authz | None = None) -> Steady:
        return Steady(authz or self.authz, self.questions())

    def put(self, *, allowed: bool) -> None:
        """Permit or forbid the tool `edited`, and say so to whoever judges answers."""
        spec = permit(self.tenant.namespace, "edited", "permit" if allowed else "forbid")
        self.edited.change(lambda: self.insist(spec), allowed=allowed)

    def insist(self, spec: dict[str, str]) -> None:
        """Write the policy, as often as it takes."""
        eventually(lambda: self._write(spec), "the policy is written")

    def _write(self, spec: dict[str, str]) -> bool:
        try:
            self.tenant.objects.edit("Policy", "edited", spec)
        except ApiException as error:
            if error.status not in _MOMENTARY:
                raise
            return False
        except (HTTPError, OSError):
            return False
        return True

    def follow(self, steady: Steady) -> None:
        """An edit, and back: both are in force."""
        for allowed in (True, False):
            self.put(allowed=allowed)
            steady.settle("edited", allowed=allowed)

    def never_open(self) -> None:
        """Nothing was let through because something had failed, by the records."""
        allowed = [each for each in self.authz.decisions() if each["verdict"] == "Allow"]
        assert allowed
        assert [each for each in allowed if each["reason"] != "Permitted" or each["errors"]] == []


@pytest.fixture(scope="module")
def running(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("chaos")
    with ApiServer(cluster_binaries, folder / "server") as server, installed(server, folder) as found:
        yield found


@pytest.fixture(scope="module")
def chaos(running: Installation) -> Chaos:
    tenant = running.tenant()
    _, token = tenant.agent("planner")
    tenant.tool_server()
    tools = [{"name": name} for name in ("search", "delete", "edited")]
    assert tenant.edit("ToolServer", "tickets", {"tools": tools}) == ""
    assert tenant.attempt("Policy", "search", permit(tenant.namespace, "search")) == ""
    assert tenant.attempt("Policy", "edited", permit(tenant.namespace, "edited", "forbid")) == ""
    found = Chaos(running, tenant, token, Expected(allowed=False))
    eventually(lambda: running.authz.allows(tool_call(tenant.namespace, "search"), token), "the policies are in force")
    return found


def test_the_load_notices_a_wrong_verdict(chaos: Chaos) -> None:
    """What the other tests stand on: an edit that nobody told it of."""
    with chaos.load() as steady:
        steady.more()
        assert steady.is_right()
        chaos.insist(permit(chaos.tenant.namespace, "edited"))
        eventually(lambda: not steady.is_right(), "the wrong verdict is noticed")
        chaos.insist(permit(chaos.tenant.namespace, "edited", "forbid"))
        steady.settle("edited", allowed=False)
    assert {each.partition(":")[0] for each in steady.wrong} == {"edited"}


def test_the_api_server_is_killed_and_comes_back(chaos: Chaos) -> None:
    with chaos.load() as steady:
        chaos.follow(steady)
        for _ in range(2):
            chaos.server.kill()
            steady.more(200)
            chaos.server.start()
            chaos.follow(steady)
    assert (steady.wrong, steady.unanswered) == ([], 0)
    chaos.never_open()


def test_etcd_is_compacted_and_every_revision_is_too_old(chaos: Chaos) -> None:
    with chaos.load() as steady:
        chaos.follow(steady)
        compact(chaos.server)
        chaos.follow(steady)
        chaos.server.kill()
        chaos.server.start()
        compact(chaos.server)
        chaos.follow(steady)
    assert (steady.wrong, steady.unanswered) == ([], 0)
    chaos.never_open()


def test_the_webhooks_are_killed_and_come_back(chaos: Chaos) -> None:
    webhooks, bad = chaos.installation.webhooks, {"cedar": "permit ("}
    with chaos.load() as steady:
        chaos.follow(steady)
        webhooks.kill()
        # Nothing passes that nobody judged, neither good nor bad.
        for spec in (bad, permit(chaos.tenant.namespace, "search")):
            assert "failed calling webhook" in chaos.tenant.attempt("Policy", "unjudged", spec)
        steady.more(200)
        webhooks.start()
        eventually(lambda: "(InvalidSyntax)" in chaos.tenant.attempt("Policy", "unjudged", bad), "the webhooks judge again")
        chaos.follow(steady)
    assert (steady.wrong, steady.unanswered) == ([], 0)
    assert verify.verify(webhooks.spool).faults == ()
    chaos.never_open()


def test_the_certificates_of_the_webhooks_are_made_anew(chaos: Chaos) -> None:
    """Their Secret is deleted: the hardest of all rotations, for which calls may fail and none may pass unjudged."""
    webhooks = chaos.installation.webhooks
    before = webhooks.certificate()
    webhooks.kill()
    webhooks.start((sys.executable, "-c", SOON))
    with chaos.load() as steady:
        eventually(lambda: "(InvalidSyntax)" in chaos.tenant.attempt("Policy", "unjudged", {"cedar": "permit ("}), "the webhooks judge")
        chaos.server.kubectl("delete", "secret", NAME, "-n", NAMESPACE)
        eventually(lambda: _secret(chaos.server), "there is another Secret")
        webhooks.await_certificate(before)
        said = eventually(lambda: _judged(chaos), "they are asked again")
        assert "(InvalidSyntax)" in said
        chaos.follow(steady)
    assert (steady.wrong, steady.unanswered) == ([], 0)
    chaos.never_open()


# Looks after the certificates each half second instead of each minute.
SOON = """
import runpy, sys
import hopgate.cluster.webhooks
hopgate.cluster.webhooks.KEEP_SECONDS = 0.5
runpy.run_module("hopgate.cluster", run_name="__main__")
"""


def _secret(server: ApiServer) -> str:
    try:
        return server.kubectl("get", "secret", NAME, "-n", NAMESPACE, "-o", "jsonpath={.data.tls\\.crt}")
    except ClusterError:
        return ""


def _judged(chaos: Chaos) -> str:
    """What is said of a policy that can't be read, once somebody judged it; it must not be accepted in between."""
    said = chaos.tenant.attempt("Policy", "unjudged", {"cedar": "permit ("})
    assert said
    return "" if "failed calling webhook" in said else said


def test_the_certificate_of_authz_is_rotated_and_no_check_is_lost(chaos: Chaos) -> None:
    with chaos.load() as steady:
        for _ in range(5):
            chaos.installation.mounted.rotate()
            steady.more(100)
        chaos.follow(steady)
    assert (steady.wrong, steady.unanswered) == ([], 0)


def test_authz_is_killed_and_comes_back(chaos: Chaos) -> None:
    with chaos.load() as steady:
        for allowed in (True, False):
            steady.more()
            chaos.authz.kill()
            # Edited while nobody watches.
            chaos.put(allowed=allowed)
            chaos.authz.start()
            steady.settle("edited", allowed=allowed)
            steady.more()
    assert steady.wrong == []
    assert steady.unanswered > 0
    chaos.never_open()


def test_five_hundred_edits_at_once(chaos: Chaos) -> None:
    """From eight writers, of other policies and of the one that the checks are about."""
    edits, others = 500, 10
    space = chaos.tenant.namespace
    for number in range(others):
        assert chaos.tenant.make("Policy", f"other-{number}", permit(space, "search")) == ""

    def edit(number: int) -> str:
        effect = "permit" if number // others % 2 else "forbid"
        return chaos.tenant.edit(
            "Policy", f"other-{number % others}", {"cedar": permit(space, "delete", "forbid")["cedar"] + f"// {effect} {number}"}
        )

    with chaos.load() as steady, ThreadPoolExecutor(8) as writers:
        began = time.monotonic()
        done = writers.map(edit, range(edits))
        for _ in range(5):
            chaos.put(allowed=True)
            chaos.put(allowed=False)
        assert [each for each in done if each and "modified" not in each] == []
        assert time.monotonic() - began < 30
        chaos.follow(steady)
        steady.more()
    assert (steady.wrong, steady.unanswered) == ([], 0)
    chaos.never_open()
    for number in range(others):
        chaos.tenant.objects.delete("Policy", f"other-{number}")


@pytest.mark.parametrize("seconds", [120, -120])
def test_the_clock_of_the_webhooks_is_off(chaos: Chaos, seconds: int) -> None:
    webhooks = chaos.installation.webhooks
    webhooks.kill()
    webhooks.start(with_clock("hopgate.cluster", seconds))
    with chaos.load() as steady:
        eventually(lambda: "(InvalidSyntax)" in chaos.tenant.attempt("Policy", "unjudged", {"cedar": "permit ("}), "the webhooks judge")
        chaos.follow(steady)
    webhooks.kill()
    webhooks.start()
    eventually(lambda: "(InvalidSyntax)" in chaos.tenant.attempt("Policy", "unjudged", {"cedar": "permit ("}), "the webhooks judge")
    assert (steady.wrong, steady.unanswered) == ([], 0)


def test_the_clock_of_authz_is_ahead(chaos: Chaos) -> None:
    chaos.authz.kill()
    chaos.authz.start(with_clock("authz", 120))
    try:
        with chaos.load() as steady:
            chaos.follow(steady)
    finally:
        chaos.authz.kill()
        chaos.authz.start()
    assert (steady.wrong, steady.unanswered) == ([], 0)
    chaos.never_open()


def test_the_clock_of_authz_is_behind(chaos: Chaos) -> None:
    """A token that is not valid yet by its clock is refused, and nothing else is different: what it knew nobody of stays out."""
    tenant = chaos.tenant
    chaos.authz.kill()
    chaos.authz.start(with_clock("authz", -120))
    try:
        fresh = tenant.place.token(tenant.place.pod("planner-2", "planner"), account="planner")
        assert "TokenNotYetValid" in chaos.authz.denies(tool_call(tenant.namespace), fresh)
        assert "UnknownCaller" in chaos.authz.denies(tool_call(tenant.namespace), "nobody")
    finally:
        chaos.authz.kill()
        chaos.authz.start()
    assert chaos.authz.allows(tool_call(tenant.namespace), fresh)
    chaos.never_open()


def test_a_pod_that_was_deleted_during_an_outage_is_refused_after_it(chaos: Chaos) -> None:
    tenant = chaos.tenant
    token = tenant.place.token(tenant.place.pod("planner-3", "planner"), account="planner")
    request = tool_call(tenant.namespace)
    eventually(lambda: chaos.authz.allows(request, token), "the pod is known")
    with chaos.load() as steady:
        chaos.server.kill()
        steady.more()
        assert chaos.authz.allows(request, token)
        chaos.server.start()
        kubernetes.client.CoreV1Api(chaos.server.client()).delete_namespaced_pod("planner-3", tenant.namespace)
        gone = time.monotonic()
        eventually(lambda: "PodUnknown" in chaos.authz.denies(request, token), "the pod is refused", 5.0)
        assert time.monotonic() - gone < 5.0
    assert (steady.wrong, steady.unanswered) == ([], 0)


def test_two_authz_agree_after_everything(chaos: Chaos) -> None:
    second = Authz(chaos.server, chaos.installation.folder, chaos.installation.mounted, "authz-2")
    try:
        second.start()
        with chaos.load() as first_load, chaos.load(second) as second_load:
            for allowed in (True, False, True, False):
                chaos.put(allowed=allowed)
                for each in (first_load, second_load):
                    each.settle("edited", allowed=allowed)
            chaos.server.kubectl("delete", "pod", "authz-2", "-n", SYSTEM)
            first_load.more()
        assert (first_load.wrong, second_load.wrong) == ([], [])
    finally:
        second.close()


def test_what_was_refused_before_is_refused_now(chaos: Chaos) -> None:
    assert "(InvalidSyntax)" in try_apply(chaos.server, chaos.tenant.namespace, "Policy", "unjudged", {"cedar": "permit ("})
    with pytest.raises(ClusterError, match="not found"):
        chaos.server.kubectl("get", "policy", "unjudged", "-n", chaos.tenant.namespace)
