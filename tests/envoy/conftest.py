"""A world for each test: an agent's namespace, a real Envoy with the bootstrap as it is, a scripted authz."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import envoys
from tests.envoys import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with envoys.running(tmp_path) as made:
        yield made
