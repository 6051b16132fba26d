"""A sealed connection is its server name and port."""

from __future__ import annotations

from authz import operations
from authz.verdict import Operation
from hopgate.policy.question import Action, ContextValue
from tests.authz.operations import asked


def test_a_connection_is_its_name_in_lower_case_and_its_port() -> None:
    context: dict[str, ContextValue] = {"connection": {"serverName": "vault.example.com", "port": 8443}}
    expected = Operation(action=Action.CONNECT, resource=asked.TICKETS, server=None, context=context)
    assert operations.connect("Vault.EXAMPLE.com", 8443, asked.HTTP) == expected
