"""Plain HTTP is judged by its method, path and host alone, whatever its body is."""

from __future__ import annotations

import pytest

from authz.verdict import Operation
from hopgate.policy.question import Action
from tests.authz import requests
from tests.authz.operations import asked


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PURGE"])
@pytest.mark.parametrize("body", [b"", b"\xff\x00", b'{"a": 1, "a": 2}'], ids=["no body", "bytes", "JSON that is not strict"])
def test_a_request_is_of_the_destination(method: str, body: bytes) -> None:
    request = requests.http(host="x", path="/a?b", method=method, body=body, headers=(("content-encoding", "gzip"),), body_complete=False)
    assert asked.operation(request, asked.HTTP) == Operation(action=Action.HTTP_REQUEST, resource=asked.TICKETS, server=None, context={})
