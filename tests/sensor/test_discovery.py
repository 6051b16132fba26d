"""Events and first bytes to sightings: who, what, why, how often, and how much is kept."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from ipaddress import ip_address

import pytest

from sensor import containers, data, discovery
from sensor.arguments import CommandLine
from sensor.classify import Likelihood, SightingClass
from sensor.discovery import Discovery
from sensor.events import TCP, Endpoint, Event, Operation
from sensor.evidence import EvidenceKind
from sensor.handshakes import http_head
from sensor.handshakes.client_hello import Ech, NameState
from sensor.handshakes.dns_answer import Address, DnsAnswer
from sensor.handshakes.names import Names
from sensor.handshakes.seen import Answer, Hello, Origin, Request
from sensor.processes import Process
from sensor.providers import Providers
from sensor.sightings import Sighting
from sensor.verdict import Governance, Governed

K = EvidenceKind
SECOND = 10**9
CONTAINER = "/docker/" + "0123456789abcdef" * 4
SDK_JA4 = "t13d1812h1_85036bcba153_d41ae481755e"
CHROMIUM_JA4 = "t13d1516h2_8daaf6152771_02713d6af862"


def process(
    number: int = 7, *, executable: str = "/usr/bin/python3.11", script: str = "agent.py", cgroup: str = "/", uid: int = 1000
) -> Process:
    name = executable.rpartition("/")[2]
    return Process(
        process=number,
        started_ns=SECOND,
        parent=1,
        name=name,
        executable=executable,
        command=CommandLine(shown=f"{name} {script}".strip(), script=script),
        uid=uid,
        user="ann",
        placement=containers.place(cgroup),
        variables=(),
        packages=(),
        readable=True,
    )


@pytest.fixture(scope="module")
def known() -> Providers:
    return data.built_in()


def hello(origin: Origin, name: str = "api.openai.com", ja4: str = SDK_JA4) -> Hello:
    return Hello(
        origin=origin,
        server_name=name,
        name_state=NameState.HOST_NAME,
        alpn=(),
        supported_versions=(),
        ja4=ja4,
        ech=Ech.ABSENT,
        quic=False,
    )


class Machine:
    """Processes and cgroups of a machine, and what its kernel tells."""

    def __init__(self, known: Providers) -> None:
        self.processes: dict[int, Process] = {}
        self.cgroups: dict[int, str] = {1: "/"}
        self.reads = 0
        self.names = Names()
        self.now_ns = 100 * SECOND
        self._cookies = itertools.count(1)
        self.discovery = Discovery(
            providers=known,
            read_process=self._read,
            cgroup_path=lambda number: self.cgroups.get(number, ""),
            names_of=self.names.of,
            wall_ns=lambda at: at,
        )

    def _read(self, number: int, started_ns: int) -> Process | None:
        self.reads += 1
        found = self.processes.get(number)
        return found if found is not None and started_ns in (0, found.started_ns) else None

    def run(self, found: Process) -> Process:
        self.processes[found.process] = found
        return found

    def connect(
        self, number: int = 7, *, cgroup_id: int = 1, command: str = "python3", remote: str = "192.0.2.1", port: int = 443
    ) -> Event:
        made = Event(
            operation=Operation.CONNECT,
            time_ns=self.now_ns,
            protocol=TCP,
            cookie=next(self._cookies),
            cgroup_id=cgroup_id,
            netns_cookie=1,
            process=number,
            started_ns=SECOND,
            uid=1000,
            command=command,
            remote=Endpoint(ip_address(remote), port),
        )
        self.discovery.add_event(made)
        return made

    def origin(self, event: Event) -> Origin:
        return Origin(cookie=event.cookie, cgroup_id=event.cgroup_id, process=0, remote=event.remote, time_ns=self.now_ns)

    def hello(self, event: Event, name: str = "api.openai.com", ja4: str = SDK_JA4) -> None:
        self.discovery.add_seen(hello(self.origin(event), name, ja4))

    def call(self, number: int = 7, name: str = "api.openai.com", **fields: object) -> None:
        self.hello(self.connect(number, **fields), name)  # type: ignore[arg-type]  # handed on as they are

    def only(self) -> Sighting:
        [found] = self.discovery.sightings()
        return found


@pytest.fixture
def machine(known: Providers) -> Machine:
    return Machine(known)


def kinds(sighting: Sighting) -> set[EvidenceKind]:
    return {piece.kind for piece in sighting.evidence}


def test_a_call_names_its_program(machine: Machine) -> None:
    machine.run(process())
    machine.call()
    found = machine.only()
    assert (found.program.executable, found.program.script, found.program.user, found.process) == (
        "/usr/bin/python3.11",
        "agent.py",
        "ann",
        7,
    )
    assert [(place.host, place.provider, place.connections) for place in found.reached] == [("api.openai.com", "OpenAI", 1)]
    assert (found.kind, found.likelihood) == (SightingClass.SHADOW, Likelihood.POSSIBLE)


def test_another_host_is_no_sighting(machine: Machine) -> None:
    machine.run(process())
    machine.call(name="api.example.com")
    assert machine.discovery.sightings() == []


def test_a_thousand_connections_of_one_program_to_one_host_are_one_line(machine: Machine) -> None:
    for number in range(1000):
        machine.run(process(number % 10 + 1))
        machine.call(number % 10 + 1)
    found = machine.only()
    assert [place.connections for place in found.reached] == [1000]
    assert (found.connections, found.processes) == (1000, 10)
    assert K.REPEATED in kinds(found)


@pytest.mark.parametrize(
    "other",
    [process(8, script="other.py"), process(8, uid=1001), process(8, executable="/usr/bin/python3.12"), process(8, cgroup=CONTAINER)],
    ids=["script", "user", "program", "container"],
)
def test_programs_that_differ_in_one_fact_are_two_lines_and_the_same_is_one(machine: Machine, other: Process) -> None:
    machine.run(process(7))
    machine.run(process(9))
    machine.call(7)
    machine.call(9)
    assert len(machine.discovery.sightings()) == 1
    machine.run(other)
    machine.call(8)
    assert len(machine.discovery.sightings()) == 2


def test_a_browser_is_none_and_what_greets_like_one_is(machine: Machine) -> None:
    machine.run(process(7, executable="/usr/lib/firefox/firefox", script=""))
    machine.hello(machine.connect(7), ja4=CHROMIUM_JA4)
    assert machine.only().kind is SightingClass.NOTHING
    machine.run(process(8))
    machine.hello(machine.connect(8), ja4=CHROMIUM_JA4)
    first = machine.discovery.sightings()[0]
    assert first.kind is SightingClass.SHADOW
    assert K.BORROWED_HELLO in kinds(first)


def test_curl_once_is_none_and_again_and_again_is(machine: Machine) -> None:
    machine.run(process(7, executable="/usr/bin/curl", script=""))
    for _ in range(4):
        machine.call(7)
    assert machine.only().kind is SightingClass.NOTHING
    machine.call(7)
    assert machine.only().kind is SightingClass.SHADOW


def test_a_process_that_is_gone_is_told_by_what_the_kernel_said(machine: Machine) -> None:
    machine.cgroups[5] = CONTAINER
    machine.discovery.add_executed(7, "/usr/local/bin/agent")
    machine.call(7, cgroup_id=5, command="agent")
    found = machine.only()
    assert (found.program.executable, found.program.name) == ("/usr/local/bin/agent", "agent")
    assert found.program.placement.runtime == "docker"
    assert K.UNATTENDED in kinds(found)
    assert found.kind is SightingClass.SHADOW


def test_a_process_id_that_is_used_again_is_not_described(machine: Machine) -> None:
    machine.run(dataclasses.replace(process(7), started_ns=50 * SECOND))
    machine.call(7, command="gone")
    assert (machine.only().program.executable, machine.only().program.name) == ("", "gone")


def test_nobody_known_is_unattributable(machine: Machine) -> None:
    machine.discovery.add_seen(hello(Origin(cookie=99, cgroup_id=1, process=0, remote=None, time_ns=1)))
    assert machine.only().kind is SightingClass.UNATTRIBUTABLE


def test_a_container_alone_is_known(machine: Machine) -> None:
    machine.cgroups[5] = CONTAINER
    machine.discovery.add_seen(hello(Origin(cookie=99, cgroup_id=5, process=0, remote=None, time_ns=1)))
    assert machine.only().kind is SightingClass.SHADOW


def test_a_short_process_is_read_when_it_connects(machine: Machine) -> None:
    machine.run(process(7))
    event = machine.connect(7)
    machine.processes.clear()
    machine.now_ns += 3 * SECOND
    machine.hello(event)
    assert machine.only().program.script == "agent.py"


def test_a_process_that_begins_is_read_at_once_and_again_when_it_connects(machine: Machine, known: Providers) -> None:
    machine.run(process(7))
    began = Event(operation=Operation.EXECUTED, time_ns=machine.now_ns, process=7, started_ns=SECOND, cgroup_id=1)
    machine.discovery.add_event(began)
    assert machine.reads == 1
    machine.run(dataclasses.replace(process(7), packages=(known.packages[0],)))
    event = machine.connect(7)
    machine.processes.clear()
    machine.hello(event)
    assert K.SDK_IN_USE in kinds(machine.only())
    assert machine.discovery.counters.unread == 0


def test_what_a_process_loads_later_is_seen_with_its_next_call(machine: Machine, known: Providers) -> None:
    machine.run(process(7))
    machine.call(7)
    assert K.SDK_IN_USE not in kinds(machine.only())
    machine.run(dataclasses.replace(process(7), packages=(known.packages[0],)))
    machine.now_ns += 2 * SECOND
    machine.call(7)
    assert K.SDK_IN_USE in kinds(machine.only())


def test_another_program_in_the_same_process_is_read_anew(machine: Machine) -> None:
    machine.run(process(7))
    event = machine.connect(7)
    machine.run(process(7, executable="/usr/bin/curl", script=""))
    machine.discovery.add_event(dataclasses.replace(event, operation=Operation.EXECUTED, cookie=0))
    machine.call(7)
    assert machine.only().program.executable == "/usr/bin/curl"


def test_many_new_processes_are_not_all_read_at_once(machine: Machine) -> None:
    for number in range(1, 5000):
        machine.run(process(number))
        machine.connect(number)
    assert machine.reads == discovery._READS_PER_SECOND
    machine.call(4999)
    assert machine.only().program.script == "agent.py"


def test_a_governed_agent_is_registered_and_its_neighbour_is_not(machine: Machine) -> None:
    machine.discovery.govern(Governance(agents=(Governed(agent="demo/planner", cgroups=frozenset({5})),)))
    machine.cgroups |= {5: "/system.slice/a.service", 6: "/system.slice/b.service"}
    machine.run(process(7, cgroup="/system.slice/a.service"))
    machine.run(process(8, cgroup="/system.slice/b.service"))
    machine.call(7, cgroup_id=5)
    machine.call(8, cgroup_id=6)
    found = {sighting.process: sighting for sighting in machine.discovery.sightings()}
    assert (found[7].kind, found[7].agent) == (SightingClass.REGISTERED, "demo/planner")
    assert (found[8].kind, found[8].agent) == (SightingClass.SHADOW, "")


def test_the_gates_own_calls_are_no_sighting(machine: Machine) -> None:
    machine.discovery.govern(Governance(gate_processes=frozenset({7})))
    machine.run(process(7))
    machine.run(process(8, script="other.py"))
    machine.call(7)
    machine.call(8)
    assert machine.only().process == 8


def test_who_is_told_of_later_counts_for_what_was_seen_before(machine: Machine) -> None:
    for number, script in ((7, "agent.py"), (8, "gate.py"), (9, "shadow.py")):
        machine.run(process(number, script=script))
        machine.call(number, cgroup_id=number)
    machine.discovery.changed(machine.now_ns)
    machine.discovery.govern(Governance(agents=(Governed(agent="demo/planner", cgroups=frozenset({7})),), gate_processes=frozenset({8})))
    assert {seen.process: seen.agent for seen in machine.discovery.sightings()} == {7: "demo/planner", 9: ""}
    assert [seen.process for seen in machine.discovery.changed(machine.now_ns)] == [7]
    machine.discovery.govern(Governance())
    assert {seen.process: seen.agent for seen in machine.discovery.sightings()} == {7: "demo/planner", 9: ""}


def answer(machine: Machine, event: Event, name: str, address: str) -> None:
    found = DnsAnswer(name=name, aliases=(), addresses=(Address(ip=ip_address(address), ttl=60),), exists=True, whole=True)
    machine.names.learn(event.cgroup_id, found, machine.now_ns)
    machine.discovery.add_seen(Answer(origin=machine.origin(event), answer=found))


def ask(machine: Machine, event: Event, text: str) -> None:
    machine.discovery.add_seen(Request(origin=machine.origin(event), head=http_head.read(text.replace("\n", "\r\n").encode())))


def establish(machine: Machine, event: Event) -> None:
    machine.discovery.add_event(dataclasses.replace(event, operation=Operation.ESTABLISHED, process=0))


def test_an_address_that_dns_gave_counts_when_no_handshake_named_another(machine: Machine) -> None:
    machine.run(process(7))
    resolver = machine.connect(7, port=53)
    answer(machine, resolver, "api.openai.com", "192.0.2.1")
    silent, spoken = machine.connect(7), machine.connect(7)
    establish(machine, silent)
    establish(machine, spoken)
    machine.hello(spoken, "www.example.com")
    machine.discovery.settle(machine.now_ns)
    assert kinds(machine.only()) == {K.MODEL_NAME}
    machine.discovery.settle(machine.now_ns + 5 * SECOND)
    assert kinds(machine.only()) == {K.MODEL_NAME, K.MODEL_ADDRESS}
    assert {place.host: place.connections for place in machine.only().reached} == {"api.openai.com": 1, "www.example.com": 1}


def test_a_lookup_alone_is_no_agent_and_another_name_is_nothing(machine: Machine) -> None:
    machine.run(process(7))
    answer(machine, machine.connect(7, port=53), "api.example.com", "192.0.2.1")
    assert machine.discovery.sightings() == []
    answer(machine, machine.connect(7, port=53), "api.openai.com", "192.0.2.1")
    assert machine.only().kind is SightingClass.NOTHING


def test_a_request_in_clear(machine: Machine) -> None:
    machine.run(process(7))
    event = machine.connect(7, remote="127.0.0.1", port=11434)
    ask(machine, event, "GET / HTTP/1.1\nhost: 127.0.0.1:11434\n\n")
    assert machine.discovery.sightings() == []
    ask(machine, event, "POST /api/chat HTTP/1.1\nhost: 127.0.0.1:11434\n\n")
    assert [place.host for place in machine.only().reached] == ["127.0.0.1:11434"]
    assert machine.only().kind is SightingClass.SHADOW


def test_a_tunnel_is_to_the_model_not_to_the_proxy(machine: Machine) -> None:
    machine.run(process(7))
    ask(machine, machine.connect(7, port=3128), "CONNECT api.openai.com:443 HTTP/1.1\n\n")
    assert [place.host for place in machine.only().reached] == ["api.openai.com"]


def test_what_runs_already_is_told_by_its_files(machine: Machine, known: Providers) -> None:
    plain = dataclasses.replace(process(7), variables=("OPENAI_API_KEY",))
    machine.discovery.add_running(plain, machine.now_ns, lambda: 1)
    assert machine.discovery.sightings() == []
    machine.discovery.add_running(dataclasses.replace(plain, packages=(known.packages[0],)), machine.now_ns, lambda: 1)
    assert (machine.only().kind, machine.only().has_called, machine.only().processes) == (SightingClass.SHADOW, False, 1)
    machine.discovery.add_open(plain, "192.0.2.1:443", machine.now_ns)
    machine.discovery.add_open(process(8, script="other.py"), "192.0.2.2:443", machine.now_ns)
    assert [place.host for place in machine.only().reached] == ["192.0.2.1:443"]


def test_what_runs_in_an_agents_namespace_is_registered_and_next_to_it_not(machine: Machine, known: Providers) -> None:
    machine.discovery.govern(Governance(agents=(Governed(agent="demo/planner", namespaces=frozenset({5})),)))
    for namespace, expected in ((5, SightingClass.REGISTERED), (6, SightingClass.NOTHING)):
        found = dataclasses.replace(process(namespace, script=f"{namespace}.py"), packages=(known.packages[0],))
        assert machine.discovery.add_running(found, machine.now_ns, functools.partial(int, namespace))
        assert {seen.process: seen.kind for seen in machine.discovery.sightings()}[namespace] is expected


def test_the_same_process_found_running_and_then_calling_is_one(machine: Machine, known: Providers) -> None:
    found = machine.run(dataclasses.replace(process(7), packages=(known.packages[0],)))
    machine.discovery.add_running(found, machine.now_ns, lambda: 1)
    machine.call(7)
    assert machine.only().processes == 1


def test_what_is_new_is_told_once_and_numbers_after_a_while(machine: Machine) -> None:
    machine.run(process(7))
    machine.call(7)
    assert len(machine.discovery.changed(machine.now_ns)) == 1
    assert machine.discovery.changed(machine.now_ns) == []
    machine.call(7)
    assert machine.discovery.changed(machine.now_ns + SECOND) == []
    assert [told.connections for told in machine.discovery.changed(machine.now_ns + 6 * SECOND)] == [2]
    machine.call(7, name="api.anthropic.com")
    assert len(machine.discovery.changed(machine.now_ns + 6 * SECOND)) == 1


def test_memory_is_bounded_and_what_is_likely_an_agent_stays(machine: Machine, known: Providers) -> None:
    machine.run(dataclasses.replace(process(1), packages=(known.packages[0],), variables=("OPENAI_API_KEY",)))
    machine.call(1)
    for number in range(2, discovery.MAX_SIGHTINGS + 50):
        machine.run(process(number, script=f"{number}.py"))
        machine.call(number)
    found = machine.discovery.sightings()
    assert len(found) == discovery.MAX_SIGHTINGS
    assert found[0].process == 1
    assert machine.discovery.counters.evicted == 49


def test_places_and_evidence_are_bounded_and_the_rest_counted(machine: Machine) -> None:
    machine.run(process(7))
    for number in range(200):
        machine.call(7, name=f"r{number}.api.openai.com")
    found = machine.only()
    assert (len(found.reached), found.others, found.connections) == (discovery.MAX_REACHED, 200 - discovery.MAX_REACHED, 200)
    assert len(found.evidence) <= discovery.MAX_EVIDENCE + len(EvidenceKind)
    assert K.REPEATED in kinds(found)


def test_times_are_of_the_first_and_the_last(machine: Machine) -> None:
    machine.run(process(7))
    machine.call(7)
    first = machine.now_ns
    machine.now_ns += 90 * SECOND
    machine.call(7)
    assert (machine.only().first_seen_ns, machine.only().last_seen_ns) == (first, machine.now_ns)
