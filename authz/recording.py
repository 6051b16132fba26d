"""From a verdict to the `decisions` record. The record's form is hopgate.audit's; nothing secret is in a verdict."""

from __future__ import annotations

from authz.request import CheckInput
from authz.verdict import Verdict
from hopgate.audit.records import Decision
from hopgate.snapshot import Snapshot
