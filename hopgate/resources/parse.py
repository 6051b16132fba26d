"""A manifest, as plain values, to a value of `hopgate.resources.kinds`, or all its mistakes.

This is the one place where a resource is made from what somebody wrote; both sources, a folder and the Kubernetes API,
come through here. Refused: an unknown kind, version or field, a wrong type, a missing field, a name, host, port, address
or header that is not what it must be, and fields that contradict each other. `status` and what the API server writes into
`metadata` are accepted and not read. Never raises, whatever the values are; no message holds a value of a Secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hopgate.identity.names import ObjectName
from hopgate.resources import destinations, fields, governance, network, secret
from hopgate.resources.fields import Code, Field, FieldError, Fields, RefusedError
from hopgate.resources.kinds import API_VERSION, Resource
from hopgate.resources.reference import ObjectReference

DEFAULT_NAMESPACE: Final = "default"

# What the API server and its controllers write; a manifest that was read back from a cluster has them.
_SERVER_WRITTEN: Final = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "finalizers",
    "ownerReferences",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseResult:
    """The resource, or None and why not. `reference` is given whenever kind and name could be read, also beside mistakes."""

    resource: Resource | None
    mistakes: tuple[FieldError, ...]
    reference: ObjectReference | None


@dataclass(frozen=True, slots=True)
class _Namespaced:
    """How to read a kind that lives in a namespace: from the object's name and its fields."""

    api_version: str
    read: Callable[[ObjectName, Fields], Resource]


@dataclass(frozen=True, slots=True)
class _ClusterScoped:
    api_version: str
    read: Callable[[str, Fields], Resource]


_KINDS: Final[Mapping[str, _Namespaced | _ClusterScoped]] = {
    "Agent": _Namespaced(API_VERSION, destinations.agent),
    "ToolServer": _Namespaced(API_VERSION, destinations.tool_server),
    "ModelProvider": _Namespaced(API_VERSION, destinations.model_provider),
    "Policy": _Namespaced(API_VERSION, governance.policy),
    "ClusterPolicy": _ClusterScoped(API_VERSION, governance.cluster_policy),
    "IdentityProvider": _ClusterScoped(API_VERSION, governance.identity_provider),
    "ShadowAgent": _ClusterScoped(API_VERSION, governance.shadow_agent),
    "Secret": _Namespaced("v1", secret.secret),
}


def parse(manifest: object) -> ParseResult:
    """One manifest (mappings, lists, strings, numbers, booleans, None) as a resource. Never raises."""
    mistakes: list[FieldError] = []
    root = Field(manifest, (), mistakes)
    try:
        resource, reference = _read(Fields(root))
    except RefusedError as refused:
        root.note(refused)
        resource, reference = None, None
    return ParseResult(resource=None if mistakes else resource, mistakes=tuple(mistakes), reference=reference)


def _read(manifest: Fields) -> tuple[Resource | None, ObjectReference | None]:
    kind = manifest.required("kind", fields.text, None)
    if kind is None:
        return None, None
    rule = _KINDS.get(kind)
    if rule is None:
        known = ", ".join(fields.quote(name) for name in _KINDS)
        manifest.refuse("kind", Code.UNKNOWN_KIND, f"expected one of {known}, got {fields.quote(kind)}")
        return None, None
    version = manifest.required("apiVersion", fields.text, rule.api_version)
    if version != rule.api_version:
        manifest.refuse(
            "apiVersion",
            Code.UNKNOWN_VERSION,
            f"expected {fields.quote(rule.api_version)} for kind {fields.quote(kind)}, got {fields.quote(version)}",
        )
    manifest.ignored("status")
    resource: Resource
    if isinstance(rule, _ClusterScoped):
        name = manifest.required("metadata", _cluster_metadata, "")
        reference = ObjectReference(kind=kind, namespace=None, name=name) if name else None
        resource = rule.read(name, manifest)
    else:
        named = manifest.required("metadata", _metadata, None)
        reference = ObjectReference(kind=kind, namespace=named.namespace, name=named.name) if named is not None else None
        resource = rule.read(named if named is not None else ObjectName(DEFAULT_NAMESPACE, "unnamed"), manifest)
    manifest.close()
    return resource, reference


def _metadata(field: Field) -> ObjectName | None:
    metadata = Fields(field)
    name = metadata.required("name", network.object_name, "")
    namespace = metadata.optional("namespace", network.label, DEFAULT_NAMESPACE)
    _close_metadata(metadata)
    return ObjectName(namespace, name) if name else None


def _cluster_metadata(field: Field) -> str:
    metadata = Fields(field)
    name = metadata.required("name", network.object_name, "")
    if metadata.has("namespace"):
        metadata.refuse("namespace", Code.CLUSTER_SCOPED, "expected no namespace: this kind belongs to the whole cluster; remove it")
    metadata.ignored("namespace")
    _close_metadata(metadata)
    return name


def _close_metadata(metadata: Fields) -> None:
    nothing: Mapping[str, str] = {}
    metadata.optional("labels", fields.string_mapping, nothing)
    metadata.optional("annotations", fields.string_mapping, nothing)
    metadata.ignored(*_SERVER_WRITTEN)
    metadata.close()
