"""Plain HTTP: method, path and host are all there is to judge, and they are in every context (`authz.decide`)."""

from __future__ import annotations

from authz.operations import entities
from authz.request import HttpRequest
from authz.verdict import Operation
from hopgate.policy.question import Action
from hopgate.resources.registry import Destination


def extract(_: HttpRequest, destination: Destination) -> Operation:
    """`HttpRequest` on the destination. The body is not read."""
    return Operation(action=Action.HTTP_REQUEST, resource=entities.of(destination), server=None, context={})
