"""The data files: hopgate's own list of providers, and a user's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sensor import providers
from sensor.providers import Providers, ProvidersError

_OWN: Final = Path(__file__).with_name("providers.yaml")


def built_in() -> Providers:
    """What hopgate knows by itself."""
    return providers.built_in(_OWN.read_bytes())


def with_file(path: Path) -> Providers:
    """What hopgate knows, and what the user's file adds. Raises ProvidersError, also when it can't be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProvidersError(str(path), (f" expected a file that can be read: {error.strerror}",)) from error
    return built_in().extended(providers.read(data, str(path)))
