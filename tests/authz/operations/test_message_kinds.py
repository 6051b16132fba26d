"""A JSON-RPC message is one thing: a request or an answer. One that two readers could take for either is refused."""

from __future__ import annotations

from typing import Any

import pytest

from authz.operations import rpc
from authz.operations.errors import OperationError
from authz.verdict import Reason
from tests.authz import requests

REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
BOTH: dict[str, dict[str, Any]] = {
    "a request with a result": REQUEST | {"result": {}},
    "a request with an error": REQUEST | {"error": {"code": -1, "message": "x"}},
    "a request with a result that is null": REQUEST | {"result": None},
    "a notification with a result": {"jsonrpc": "2.0", "method": "notifications/initialized", "result": {}},
    "all three": REQUEST | {"result": {}, "error": {}},
}


@pytest.mark.parametrize("body", BOTH.values(), ids=BOTH)
def test_a_message_of_two_kinds_is_refused_and_each_kind_alone_is_read(body: dict[str, Any]) -> None:
    with pytest.raises(OperationError) as caught:
        rpc.read(requests.http(host="x", body=body))
    assert caught.value.reason is Reason.BODY_MALFORMED
    for kind in {"method", "result", "error"} & body.keys():
        alone = {key: value for key, value in body.items() if key not in {"method", "result", "error"} - {kind}}
        assert (rpc.read(requests.http(host="x", body=alone)).method is not None) is (kind == "method")
