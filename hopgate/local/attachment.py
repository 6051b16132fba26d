"""One governed agent at a gate: its workload credential, its Envoy, its namespace's rules, its resolver.

The namespace is known by a descriptor, never by a process id, so that what is plugged can't become another process's
namespace. The descriptor is this object's to close.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from authz import state as states
from authz.resolver import Resolver
from authz.state import Workload
from hopgate.identity.names import ObjectName
from hopgate.local import namespace
from hopgate.local.bootstrap import BootstrapSpec
from hopgate.local.control import AgentStatus
from hopgate.local.envoy_process import EnvoyProcess
from hopgate.resources.kinds import Agent, DialAddress
from hopgate.resources.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentSpec:
    """What is attached. `namespace` is a descriptor of its network namespace; `listen` the port of an agent that others may reach."""

    agent: ObjectName
    namespace: int
    pid: int
    listen: int | None
    command: tuple[str, ...]
    user: int
    allow_sockets: tuple[str, ...]
    binds: tuple[str, ...]
    kept_variables: tuple[str, ...]
