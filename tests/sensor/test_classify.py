"""What a program is held for. Each row that is an agent has a neighbour that differs in one fact and is none."""

from __future__ import annotations

import itertools
import random

import pytest

from sensor import classify, evidence
from sensor.classify import Likelihood, SightingClass
from sensor.evidence import DEFINITIONS, Evidence, EvidenceKind

K = EvidenceKind

# what makes it an agent, and the neighbour's one difference: a kind that goes (`-`) or comes (`+`)
PAIRS: list[tuple[str, set[K], str, K]] = [
    ("a program of one's own calls a model", {K.MODEL_HANDSHAKE}, "-", K.MODEL_HANDSHAKE),
    ("a program calls a model, not a browser", {K.MODEL_HANDSHAKE}, "+", K.BROWSER),
    ("a program calls a model, not curl once", {K.MODEL_HANDSHAKE}, "+", K.COMMAND_LINE_CLIENT),
    ("curl again and again", {K.MODEL_HANDSHAKE, K.COMMAND_LINE_CLIENT, K.REPEATED}, "-", K.REPEATED),
    ("curl with a key", {K.MODEL_HANDSHAKE, K.COMMAND_LINE_CLIENT, K.PROVIDER_KEY}, "-", K.PROVIDER_KEY),
    ("curl in a container", {K.MODEL_HANDSHAKE, K.COMMAND_LINE_CLIENT, K.UNATTENDED}, "-", K.UNATTENDED),
    ("curl in a container that calls", {K.MODEL_HANDSHAKE, K.COMMAND_LINE_CLIENT, K.UNATTENDED}, "-", K.MODEL_HANDSHAKE),
    ("through a proxy", {K.MODEL_BY_PROXY}, "-", K.MODEL_BY_PROXY),
    ("in clear", {K.MODEL_REQUEST}, "-", K.MODEL_REQUEST),
    ("a model of this machine", {K.LOCAL_MODEL}, "+", K.COMMAND_LINE_CLIENT),
    ("an MCP client", {K.MCP_REQUEST}, "-", K.MCP_REQUEST),
    ("an A2A client", {K.A2A_REQUEST}, "+", K.BROWSER),
    ("a card and an SDK", {K.A2A_CARD, K.SDK_IN_USE}, "-", K.SDK_IN_USE),
    ("an address and an SDK", {K.MODEL_ADDRESS, K.SDK_IN_USE}, "-", K.SDK_IN_USE),
    ("an address and a key", {K.MODEL_ADDRESS, K.PROVIDER_KEY}, "-", K.PROVIDER_KEY),
    ("an SDK and a key, nothing called yet", {K.SDK_IN_USE, K.PROVIDER_KEY}, "-", K.SDK_IN_USE),
    ("an SDK and a key, and no browser", {K.SDK_IN_USE, K.PROVIDER_KEY}, "-", K.PROVIDER_KEY),
    ("a known agent's files", {K.AGENT_PROGRAM}, "-", K.AGENT_PROGRAM),
]


def pieces(kinds: set[EvidenceKind]) -> list[Evidence]:
    return [Evidence(kind=kind, subject="example") for kind in kinds]


@pytest.mark.parametrize(("kinds", "sign", "fact"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_one_fact_decides(kinds: set[EvidenceKind], sign: str, fact: EvidenceKind) -> None:
    neighbour = kinds - {fact} if sign == "-" else kinds | {fact}
    assert neighbour != kinds
    assert classify.classify(pieces(kinds), registered=False, attributed=True) is SightingClass.SHADOW
    assert classify.classify(pieces(neighbour), registered=False, attributed=True) is SightingClass.NOTHING


@pytest.mark.parametrize(
    ("enough", "registered", "attributed", "expected"),
    [
        (True, False, True, SightingClass.SHADOW),
        (True, False, False, SightingClass.UNATTRIBUTABLE),
        (True, True, True, SightingClass.REGISTERED),
        (True, True, False, SightingClass.REGISTERED),
        (False, False, True, SightingClass.NOTHING),
        (False, False, False, SightingClass.NOTHING),
        (False, True, True, SightingClass.REGISTERED),
        (False, True, False, SightingClass.REGISTERED),
    ],
)
def test_the_class_by_registry_and_attribution(*, enough: bool, registered: bool, attributed: bool, expected: SightingClass) -> None:
    found = pieces({K.MODEL_HANDSHAKE} if enough else {K.PROVIDER_KEY})
    assert classify.classify(found, registered=registered, attributed=attributed) is expected


def test_no_kind_alone_is_certain() -> None:
    for kind in EvidenceKind:
        assert classify.likelihood(evidence.weigh(pieces({kind}))) in {Likelihood.UNLIKELY, Likelihood.POSSIBLE}, kind


def test_what_supports_is_never_enough_without_a_call_or_files_of_an_agent() -> None:
    supporting = {kind for kind in EvidenceKind if kind not in evidence.OF_CALLS} - {K.AGENT_PROGRAM, K.SDK_IN_USE, K.REPEATED}
    supporting -= {K.BORROWED_HELLO}
    for count in range(len(supporting) + 1):
        for chosen in itertools.combinations(supporting, count):
            assert classify.classify(pieces(set(chosen)), registered=False, attributed=True) is SightingClass.NOTHING


def test_two_views_of_one_fact_count_once() -> None:
    assert evidence.weigh(pieces({K.MODEL_NAME, K.MODEL_ADDRESS, K.MODEL_HANDSHAKE})) == DEFINITIONS[K.MODEL_HANDSHAKE].weight
    assert evidence.weigh(pieces({K.MODEL_HANDSHAKE, K.MCP_REQUEST})) > DEFINITIONS[K.MODEL_HANDSHAKE].weight


def test_order_and_repetition_change_nothing_and_more_evidence_for_never_weighs_less() -> None:
    rng = random.Random(5)
    for _ in range(2000):
        kinds = [rng.choice(list(EvidenceKind)) for _ in range(rng.randrange(12))]
        found = [Evidence(kind=kind, subject=str(rng.randrange(3))) for kind in kinds]
        weight = evidence.weigh(found)
        assert 0 <= weight <= 100
        assert evidence.weigh(rng.sample(found * 2, len(found) * 2)) == weight
        more = Evidence(kind=rng.choice(list(EvidenceKind)))
        if DEFINITIONS[more.kind].weight >= 0:
            assert evidence.weigh([*found, more]) >= weight
        else:
            assert evidence.weigh([*found, more]) <= weight


def test_every_kind_is_defined_and_speaks() -> None:
    assert set(DEFINITIONS) == set(EvidenceKind)
    for kind in EvidenceKind:
        assert "{" not in Evidence(kind=kind, subject="example").sentence


@pytest.mark.parametrize(
    ("weight", "word"),
    [
        (0, "unlikely"),
        (49, "unlikely"),
        (50, "possible"),
        (69, "possible"),
        (70, "likely"),
        (89, "likely"),
        (90, "very likely"),
        (100, "very likely"),
    ],
)
def test_a_weight_in_words(weight: int, word: str) -> None:
    assert classify.likelihood(weight) == word
