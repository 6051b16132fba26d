"""thin"""
from __future__ import annotations
from dataclasses import dataclass, field
from typing import Any
class AnyRecord:
    def __init__(self, **kw): self.__dict__.update(kw)
@dataclass
class Decision:
    values: dict[str, Any]
@dataclass
class Name:
    values: dict[str, Any]
@dataclass
class Change:
    values: dict[str, Any]
