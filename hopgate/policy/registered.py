"""What an entity's id names, and whether the registry knows it: the same for a policy's scope and for a policy's test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hopgate.identity import names
from hopgate.identity.errors import InvalidNameError
from hopgate.identity.names import DestinationKind, DestinationName, ObjectName
from hopgate.policy.question import Entity
from hopgate.resources.kinds import ModelProvider, Tool, ToolServer
from hopgate.resources.registry import Registry

_OBJECTS: Final[Mapping[str, DestinationKind]] = {kind.value: kind for kind in DestinationKind}
_PARENTS: Final[Mapping[str, DestinationKind]] = {"Tool": DestinationKind.TOOL_SERVER, "Model": DestinationKind.MODEL_PROVIDER}
_FORMS: Final[Mapping[str, str]] = {"Tool": "NAMESPACE/SERVER/TOOL", "Model": "NAMESPACE/PROVIDER/MODEL"}


def is_namespaced(entity: Entity) -> bool:
    """Whether entities of this type live in a namespace and are registered. The others (`Host`, `File` …) have free ids."""
    return entity.type in _OBJECTS or entity.type in _PARENTS


def object_name(entity: Entity) -> ObjectName:
    """The object that the entity is, or that it is a tool or model of. Raises InvalidNameError for an id of another form."""
    if entity.type not in _PARENTS:
        return names.parse(entity.id)
    namespace, _, rest = entity.id.partition("/")
    server, _, child = rest.partition("/")
    if not child:
        raise InvalidNameError(f"expected {_FORMS[entity.type]}, got `{entity.id[:200]!r}`")
    return ObjectName(namespace, server)


def server(entity: Entity) -> Entity | None:
    """The ToolServer or ModelProvider that a tool or model is in; None for every other type. Raises InvalidNameError."""
    if entity.type not in _PARENTS:
        return None
    return Entity(_PARENTS[entity.type].value, str(object_name(entity)))


def declared_tool(entity: Entity, registry: Registry) -> Tool | None:
    """The declaration of the tool that the entity names, if its server has one."""
    if entity.type != "Tool":
        return None
    try:
        name = object_name(entity)
    except InvalidNameError:
        return None
    destination = registry.destinations.get(DestinationName(DestinationKind.TOOL_SERVER, name))
    if destination is None or not isinstance(destination.record, ToolServer):
        return None
    return next((tool for tool in destination.record.tools if f"{name}/{tool.name}" == entity.id), None)


def find_mistake(entity: Entity, registry: Registry) -> tuple[str, str] | None:
    """Why no hop can have this entity, as a stable code and a sentence; None where one can."""
    if not is_namespaced(entity):
        return None
    try:
        name = object_name(entity)
    except InvalidNameError as error:
        return "InvalidEntityId", str(error)
    known = name in registry.agents if entity.type == "Agent" else _is_offered(entity, name, registry)
    return None if known else ("UnknownEntity", f"{entity.type} `{entity.id}` is not registered")


def _is_offered(entity: Entity, name: ObjectName, registry: Registry) -> bool:
    """A server that declares nothing leaves its tools or models open."""
    destination = registry.destinations.get(DestinationName(_PARENTS.get(entity.type) or _OBJECTS[entity.type], name))
    if destination is None or entity.type not in _PARENTS:
        return destination is not None
    record = destination.record
    child = entity.id.removeprefix(f"{name}/")
    if isinstance(record, ToolServer):
        return not record.tools or any(tool.name == child for tool in record.tools)
    return isinstance(record, ModelProvider) and (not record.models or child in record.models)
