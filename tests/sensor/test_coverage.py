"""The table of `hopgate coverage` from what probes found: pure, each case beside a neighbour that differs in one fact."""

from __future__ import annotations

import pytest

from sensor import coverage
from sensor.coverage import Answer, Outcome, Probed, Row, Tried

EVENT = frozenset({"event"})


def row(key: str, free: Tried | None, quarantined: Tried | None = None, governed: Tried | None = None) -> Row:
    made = coverage.rows(
        Probed(
            free={key: free} if free else None,
            quarantined={key: quarantined} if quarantined else None,
            governed={key: governed} if governed else None,
            not_free="no root",
        )
    )
    return next(each for each in made if each.key == key)


@pytest.mark.parametrize(
    ("key", "seen", "answer", "fault"),
    [
        ("tcp4", EVENT, Answer.YES, False),
        ("tcp4", frozenset(), Answer.NO, True),
        ("tls", EVENT | {"name"}, Answer.YES, False),
        ("tls", EVENT, Answer.PART, False),
        ("ech", EVENT | {"ech"}, Answer.PART, False),
        ("unix", frozenset(), Answer.NO, False),
        ("unix", EVENT, Answer.YES, False),
    ],
)
def test_what_was_told_decides(key: str, seen: frozenset[str], answer: Answer, fault: bool) -> None:
    found = row(key, Tried(outcome=Outcome.DONE, seen=seen))
    assert (found.seen, found.fault) == (answer, fault)
    assert bool(found.why) == (answer is not Answer.YES)


def test_what_did_not_go_through_is_not_known_and_what_the_kernel_lacks_is_absent() -> None:
    failed = row("tcp4", Tried(outcome=Outcome.FAILED, why="no answer in time"))
    assert (failed.seen, failed.fault, failed.why) == (Answer.UNKNOWN, True, "the probe did not go through: no answer in time")
    absent = row("tcp4", Tried(outcome=Outcome.ABSENT, why="Protocol not supported"))
    assert (absent.seen, absent.fault) == (Answer.ABSENT, False)


def test_without_probes_the_reason_stands_in_each_line() -> None:
    found = row("tcp4", None)
    assert (found.seen, found.quarantine, found.gate, found.why) == (Answer.UNKNOWN, Answer.UNKNOWN, Answer.UNKNOWN, "no root")


@pytest.mark.parametrize(
    ("outcome", "quarantine", "gate"),
    [
        (Outcome.REFUSED, Answer.YES, Answer.YES),
        (Outcome.DONE, Answer.NO, Answer.PART),
        (Outcome.ABSENT, Answer.UNKNOWN, Answer.YES),
        (Outcome.FAILED, Answer.UNKNOWN, Answer.UNKNOWN),
    ],
)
def test_what_stops_it(outcome: Outcome, quarantine: Answer, gate: Answer) -> None:
    found = row("tcp4", Tried(outcome=Outcome.DONE, seen=EVENT), Tried(outcome=outcome), Tried(outcome=outcome))
    assert (found.quarantine, found.gate) == (quarantine, gate)


def test_the_summary_counts_every_line() -> None:
    table = coverage.rows(Probed(free={"tcp4": Tried(outcome=Outcome.DONE, seen=EVENT)}, quarantined=None, governed=None))
    hidden = sum(each.how == "no probe can show it" for each in table)
    assert coverage.summary(table) == f"1 seen, 0 in part, {hidden} not, {len(table) - hidden - 1} not known"
