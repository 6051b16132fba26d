"""The CustomResourceDefinitions of `hopgate.dev`, as values and as the files of the chart: `python -m hopgate.kubernetes.crds FOLDER`.

The specs come from `hopgate.kubernetes.specs`; here are names, scopes, what the controller writes into `status`, and the columns that
`kubectl get` shows. Conditions follow Kubernetes' conventions (meta/v1 Condition).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hopgate.identity import names
from hopgate.kubernetes import schemas, specs
from hopgate.kubernetes.schemas import Schema, rule
from hopgate.resources.kinds import GROUP, VERSION

CATEGORY: Final = "hopgate"
# A sensor that sees more of one agent keeps the newest.
MAX_EVIDENCE: Final = 32
MAX_REACHED: Final = 32

# Scalars that YAML 1.1 and 1.2 read as the same string without quotes.
_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)$)[A-Za-z][A-Za-z0-9-]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of `kubectl get`. `wide` ones are shown with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One kind: its names, its schemas and its columns. `spec_required` is false where an object says enough by being there."""

    kind: str
    plural: str
    short: str
    description: str
    spec: Callable[[], Schema]
    spec_required: bool = True
    namespaced: bool = True
    status: dict[str, Schema] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()

    @property
    def name(self) -> str:
        """The definition's own name, `PLURAL.GROUP`."""
        return f"{self.plural}.{GROUP}"

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{GROUP}_{self.plural}.yaml"


def _condition(type_: str, name: str | None = None) -> tuple[Column, Column]:
    """The columns of a condition: its status, and its reason with `-o wide`."""
    selected = f'.status.conditions[?(@.type=="{type_}")]'
    return Column(name=name or type_, path=f"{selected}.status"), Column(name="Reason", path=f"{selected}.reason", wide=True)


def _time(description: str) -> Schema:
    return schemas.text(description, format="date-time")


def _addresses() -> dict[str, Schema]:
    entry = schemas.mapping(
        "A name and its address.",
        {
            "host": schemas.object_name("The name: an outside host, or `SERVICE.NAMESPACE.svc`."),
            "address": schemas.text("The virtual address that the resolver answers with.", format="ipv4"),
        },
        required=("host", "address"),
    )
    listed = {
        "description": "The virtual address of each name, allocated once and kept while the name is there.",
        "type": "array",
        "items": entry,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["host"],
    }
    return {"addresses": listed}


def _pods() -> dict[str, Schema]:
    count = {"description": "Running pods that are this agent.", "type": "integer", "format": "int32", "minimum": 0}
    return {"pods": count, "lastSeen": _time("When a hop of it was last decided about; written once a minute at most.")}


def _policy_status() -> dict[str, Schema]:
    return {"digest": schemas.text("Hex SHA-256 of the Cedar text that is in force.")}


def _shadow_status() -> dict[str, Schema]:
    sight = schemas.mapping(
        "What was seen, and when.", {"time": _time("When."), "message": schemas.text("What.")}, required=("time", "message")
    )
    reached = schemas.mapping(
        "A name, else an address.",
        {"host": schemas.text("Which."), "provider": schemas.text("Whose model API it is.")},
        required=("host",),
    )
    program = {
        "name": "Its name.",
        "executable": "The file that it executes.",
        "command": "Its command line, as far as it may be shown: names, and no value.",
        "user": "Its user.",
    }
    where = {
        "node": "The node.",
        "namespace": "The pod's namespace.",
        "workload": "What the pod belongs to: `KIND/NAME`.",
        "pod": "The pod seen last.",
        "container": "The container's name; outside of pods its id.",
        "imageDigest": "Of the container's image, with its algorithm.",
        "serviceAccount": "The pod's service account.",
        "unit": "The systemd unit, outside of containers.",
        "cgroup": "The cgroup seen last, as a path.",
    }
    return {
        "firstSeen": _time("When it was first seen."),
        "lastSeen": _time("When it was last seen; up to a minute late."),
        "program": schemas.mapping("What runs.", {name: schemas.text(text) for name, text in program.items()}),
        "where": schemas.mapping("Where it runs.", {name: schemas.text(text) for name, text in where.items()}),
        "evidence": _listed("Why it is taken for an agent; the newest are kept.", sight, MAX_EVIDENCE),
        "reached": _listed("What it talks to: models first.", reached, MAX_REACHED),
    }


def _listed(description: str, item: Schema, at_most: int) -> Schema:
    return {"description": description, "type": "array", "maxItems": at_most, "items": item, "x-kubernetes-list-type": "atomic"}


_AGE: Final = Column(name="Age", path=".metadata.creationTimestamp", type="date")
_ADDRESS: Final = Column(name="Address", path=".status.addresses[*].address", wide=True)
_POLICY_COLUMNS: Final = (
    Column(name="Mode", path=".spec.mode"),
    *_condition("Valid"),
    Column(name="Digest", path=".status.digest", wide=True),
    _AGE,
)

DEFINITIONS: Final = (
    Definition(
        kind="Agent",
        plural="agents",
        short="ag",
        description="A workload that is known, and its owner.",
        spec=specs.agent,
        spec_required=False,
        status={**_addresses(), **_pods()},
        columns=(
            Column(name="Owner", path=".spec.owner"),
            Column(name="Pods", path=".status.pods", type="integer"),
            *_condition("Ready"),
            Column(name="Last Seen", path=".status.lastSeen", type="date"),
            Column(name="Service", path=".spec.service.name", wide=True),
            _ADDRESS,
            _AGE,
        ),
    ),
    Definition(
        kind="ToolServer",
        plural="toolservers",
        short="ts",
        description="An MCP server or an HTTP API that agents may reach.",
        spec=specs.tool_server,
        status=_addresses(),
        columns=(
            Column(name="Protocol", path=".spec.protocol"),
            Column(name="Service", path=".spec.service.name"),
            Column(name="Hosts", path=".spec.hosts"),
            *_condition("Ready"),
            Column(name="TLS", path=".spec.tls", wide=True),
            _ADDRESS,
            _AGE,
        ),
    ),
    Definition(
        kind="ModelProvider",
        plural="modelproviders",
        short="mp",
        description="An LLM API that agents may reach.",
        spec=specs.model_provider,
        status=_addresses(),
        columns=(
            Column(name="Provider", path=".spec.provider"),
            Column(name="Hosts", path=".spec.hosts"),
            *_condition("Ready"),
            Column(name="TLS", path=".spec.tls", wide=True),
            _ADDRESS,
            _AGE,
        ),
    ),
    Definition(
        kind="Policy",
        plural="policies",
        short="hpol",
        description="Cedar policies that bind callers and destinations of their own namespace.",
        spec=specs.policy,
        status=_policy_status(),
        columns=_POLICY_COLUMNS,
    ),
    Definition(
        kind="ClusterPolicy",
        plural="clusterpolicies",
        short="chpol",
        description="Cedar policies that bind all callers and destinations.",
        spec=specs.policy,
        namespaced=False,
        status=_policy_status(),
        columns=_POLICY_COLUMNS,
    ),
    Definition(
        kind="IdentityProvider",
        plural="identityproviders",
        short="idp",
        description="Whose user tokens are accepted, for the whole cluster.",
        spec=specs.identity_provider,
        namespaced=False,
        columns=(Column(name="Issuer", path=".spec.issuer"), *_condition("Ready"), _AGE),
    ),
    Definition(
        kind="ShadowAgent",
        plural="shadowagents",
        short="shadow",
        description="An agent that nobody registered, for the whole cluster. The sensor writes it; people decide about it.",
        spec=specs.shadow_agent,
        spec_required=False,
        namespaced=False,
        status=_shadow_status(),
        columns=(
            Column(name="In", path=".status.where.namespace"),
            Column(name="Workload", path=".status.where.workload"),
            Column(name="Reached", path=".status.reached[0].host"),
            Column(name="Quarantine", path=".spec.quarantine", type="boolean"),
            Column(name="Quarantined", path='.status.conditions[?(@.type=="Quarantined")].status', wide=True),
            Column(name="Node", path=".status.where.node", wide=True),
            Column(name="Command", path=".status.program.command", wide=True),
            Column(name="First Seen", path=".status.firstSeen", type="date"),
            Column(name="Last Seen", path=".status.lastSeen", type="date"),
            _AGE,
        ),
    ),
)


def manifest(definition: Definition) -> Schema:
    """The CustomResourceDefinition."""
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_printer_column(column) for column in definition.columns],
        "schema": {"openAPIV3Schema": _root(definition)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition.name},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": definition.kind,
                "listKind": f"{definition.kind}List",
                "plural": definition.plural,
                "singular": definition.kind.lower(),
                "shortNames": [definition.short],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced" if definition.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _printer_column(column: Column) -> Schema:
    return {"name": column.name, "type": column.type, "jsonPath": column.path, **({"priority": 1} if column.wide else {})}


def _root(definition: Definition) -> Schema:
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": definition.spec(),
        "status": _status(definition.status),
    }
    required = ("spec",) if definition.spec_required else ()
    # Kubernetes takes a name with a label of more than 63 characters, which no DNS name can have.
    short_labels = rule(
        f"self.metadata.name.matches({schemas.cel(schemas.whole(names.SUBDOMAIN.pattern))})",
        "expected a `metadata.name` whose parts between dots have at most 63 characters",
    )
    return schemas.mapping(definition.description, properties, required=required, **{"x-kubernetes-validations": [short_labels]})


def _status(own: dict[str, Schema]) -> Schema:
    conditions = {
        "description": "What is the matter with it, by type.",
        "type": "array",
        "items": _condition_schema(),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    observed = {"description": "The generation of the spec that this status is of.", "type": "integer", "format": "int64", "minimum": 0}
    return schemas.mapping("Written by the controller.", {"observedGeneration": observed, **own, "conditions": conditions})


def _condition_schema() -> Schema:
    """Kubernetes' meta/v1 Condition, with its own limits."""
    type_pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
    properties = {
        "type": schemas.text("Which condition.", maxLength=316, pattern=type_pattern),
        "status": schemas.text("Whether it holds.", enum=["True", "False", "Unknown"]),
        "observedGeneration": {"description": "The generation that it was seen at.", "type": "integer", "format": "int64", "minimum": 0},
        "lastTransitionTime": _time("When `status` last changed."),
        "reason": schemas.text("One word, for programs.", minLength=1, maxLength=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
        "message": schemas.text("A sentence, for people.", maxLength=32768),
    }
    required = ("type", "status", "lastTransitionTime", "reason", "message")
    return schemas.mapping("One observation.", properties, required=required)


def to_yaml(value: Schema) -> str:
    """A mapping of printable texts as YAML in block form; every string that could be read as anything else is in quotes."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: object) -> Iterator[str]:
    """The lines of a mapping or list that is not empty."""
    entries = value.items() if isinstance(value, dict) else [(None, item) for item in value] if isinstance(value, list) else ()
    for key, item in entries:
        head = "-" if key is None else f"{_scalar(key)}:"
        if not isinstance(item, dict | list) or not item:
            yield f"{head} {_scalar(item)}"
        elif key is None:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
        else:
            yield head
            yield from (line if isinstance(item, list) else f"  {line}" for line in _lines(item))


def _scalar(value: object) -> str:
    """A string, number, boolean, or an empty mapping or list; JSON is YAML."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def write(folder: Path) -> None:
    """Write every definition into `folder`, and take away the files of those that are no more."""
    files = {definition.file: to_yaml(manifest(definition)) for definition in DEFINITIONS}
    for stale in set(folder.glob(f"{GROUP}_*.yaml")) - {folder / name for name in files}:
        stale.unlink()
    for name, content in files.items():
        (folder / name).write_text("# Generated from hopgate/kubernetes/crds.py by `make gen`.\n" + content)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
