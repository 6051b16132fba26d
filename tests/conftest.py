"""What all tests share: HOPGATE_REQUIRE_ALL=1 turns a skip into a failure, and where Envoy is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A loaded machine is slow, which says nothing about a property; a test that hangs is ended by its own time limit.
settings.register_profile("hopgate", deadline=None)
settings.load_profile("hopgate")

REQUIRE_ALL = os.environ.get("HOPGATE_REQUIRE_ALL") == "1"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Under HOPGATE_REQUIRE_ALL=1 a skipped test fails the run: what was not run was not proven."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy hands the result object into the generator
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although everything is required: {report.longrepr}"


@pytest.fixture
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
