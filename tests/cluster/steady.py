"""Checks without a pause whose right answers are known, and edits whose effect on them is known: what a test of failures stands on."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.cluster.api_server import ApiServer, eventually
from tests.cluster.installation import Authz
from tests.cluster.test_identity_process import is_allowed

# How long an edit that the API server has accepted may still be on its way to a verdict. Measured: docs/performance.md.
LATEST_SECONDS = 5.0
PAUSE_SECONDS = 0.01


class Expected:
    """What the right answer to one question is, and was: an edit makes both right, from when it is sent until it must be in force."""

    def __init__(self, *, allowed: bool) -> None:
        self._lock = threading.Lock()
        # The answer from when on it may be right, and until when it may still be.
        self._spans: list[tuple[bool, float, float | None]] = [(allowed, 0.0, None)]

    def change(self, edit: Callable[[], None], *, allowed: bool) -> None:
        """Make an edit, after which the answer is to be `allowed`. Raises what the edit raises: then either may hold from here on."""
        with self._lock:
            self._spans.append((allowed, time.monotonic(), None))
        edit()
        with self._lock:
            accepted = time.monotonic() + LATEST_SECONDS
            *before, last = self._spans
            self._spans = [(answer, begin, accepted if end is None else end) for answer, begin, end in before] + [last]

    def right(self, began: float, ended: float) -> set[bool]:
        """Every answer that may be given to a question asked and answered at these moments."""
        with self._lock:
            return {answer for answer, begin, end in self._spans if begin <= ended and (end is None or began <= end)}


@dataclass(frozen=True, kw_only=True)
class Question:
    """A check, whose sidecar's token it comes with, and what the right answer is."""

    request: bytes
    token: str
    expected: Expected


@dataclass
class Steady:
    """Asks all questions in turn, in a thread, until it is left. `wrong` has what was answered wrongly."""

    authz: Authz
    questions: Mapping[str, Question]
    answered: int = 0
    unanswered: int = 0
    allowed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="steady")

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def more(self, answers: int = 50) -> None:
        """Wait for so many more answers."""
        goal = self.answered + answers
        eventually(lambda: self.answered >= goal, f"{answers} more answers")

    def is_right(self) -> bool:
        return self.wrong == []

    def settle(self, name: str, *, allowed: bool) -> None:
        """Wait until this question is answered so."""
        question = self.questions[name]
        eventually(lambda: self._ask(question) is allowed, f"{name} is {'allowed' if allowed else 'denied'}")

    def _ask(self, question: Question) -> bool | None:
        try:
            return is_allowed(self.authz.ask(question.request, question.token, seconds=2.0))
        except grpc.RpcError:
            return None

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            for name, question in self.questions.items():
                began = time.monotonic()
                answer = self._ask(question)
                ended = time.monotonic()
                if answer is None:
                    # Envoy denies what nobody answers.
                    self.unanswered += 1
                    continue
                self.answered += 1
                self.allowed[name] += answer
                if answer not in question.expected.right(began, ended):
                    self.wrong.append(f"{name}: {'allowed' if answer else 'denied'} at {ended:.3f}")


def compact(server: ApiServer) -> None:
    """Take away every revision but the newest."""

    def call(path: str, body: dict[str, Any]) -> dict[str, Any]:
        content = {"content-type": "application/json"}
        request = urllib.request.Request(f"{server.etcd_url}{path}", json.dumps(body).encode(), content)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return dict(json.load(answer))

    revision = call("/v3/kv/range", {"key": "AA=="})["header"]["revision"]
    call("/v3/kv/compaction", {"revision": revision, "physical": True})
