"""A2A: each message of 0.3 and 1.0 with its action, resource and context; what is refused, and its neighbour."""

from __future__ import annotations

from typing import Any

import pytest

from authz.verdict import Operation, Reason, RpcEnvelope
from hopgate.policy.question import Action
from tests.authz import requests
from tests.authz.operations import asked

PARAMS = {
    "0.3": {"message": {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "hello"}]}},
    "1.0": {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}},
}
MESSAGES = {
    "0.3 send": ("message/send", PARAMS["0.3"], "Send"),
    "0.3 stream": ("message/stream", PARAMS["0.3"], "Stream"),
    "1.0 send": ("SendMessage", PARAMS["1.0"], "Send"),
    "1.0 stream": ("SendStreamingMessage", PARAMS["1.0"], "Stream"),
}
EACH_MESSAGE = pytest.mark.parametrize(("method", "params", "kind"), MESSAGES.values(), ids=MESSAGES)


@EACH_MESSAGE
def test_a_message_is_sent_to_the_agent(method: str, params: dict[str, Any], kind: str) -> None:
    configuration = {"acceptedOutputModes": ["text"], "blocking": True, "historyLength": 3, "returnImmediately": False}
    for given in (params, params | {"configuration": configuration, "metadata": {"a": 1}}, params | {"configuration": None}):
        assert asked.operation(asked.post(asked.rpc(method, given)), asked.A2A) == Operation(
            action=Action.SEND_MESSAGE, resource=asked.RESEARCHER, server=None, context={"message": {"kind": kind}}, rpc=RpcEnvelope(id=7)
        )


HOUSEKEEPING = {
    "0.3": (
        "tasks/get",
        "tasks/cancel",
        "tasks/resubscribe",
        "tasks/pushNotificationConfig/get",
        "tasks/pushNotificationConfig/list",
        "tasks/pushNotificationConfig/delete",
        "agent/getAuthenticatedExtendedCard",
    ),
    "1.0": (
        "GetTask",
        "ListTasks",
        "CancelTask",
        "SubscribeToTask",
        "GetTaskPushNotificationConfig",
        "ListTaskPushNotificationConfigs",
        "DeleteTaskPushNotificationConfig",
        "GetExtendedAgentCard",
    ),
}


@pytest.mark.parametrize("method", [method for methods in HOUSEKEEPING.values() for method in methods])
def test_the_care_of_tasks_keeps_the_protocol_going(method: str) -> None:
    found = asked.operation(asked.post(asked.rpc(method, {"id": "t"})), asked.A2A)
    assert found == Operation(action=Action.USE_PROTOCOL, resource=asked.RESEARCHER, server=None, context={}, rpc=RpcEnvelope(id=7))


def get(path: str, method: str = "GET") -> Any:
    return requests.http(host="x", path=path, method=method, headers=())


@pytest.mark.parametrize("path", ["/.well-known/agent-card.json", "/.well-known/agent.json", "/.well-known/agent-card.json?a=b"])
def test_the_card_may_be_read(path: str) -> None:
    found = asked.operation(get(path), asked.A2A)
    assert found == Operation(action=Action.USE_PROTOCOL, resource=asked.RESEARCHER, server=None, context={})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/.well-known/agent-card.json/"),
        ("GET", "/.well-known/../secret"),
        ("GET", "/x/.well-known/agent-card.json"),
        ("GET", "/v1/tasks/1"),
        ("DELETE", "/.well-known/agent-card.json"),
        ("HEAD", "/.well-known/agent-card.json"),
        ("PUT", "/"),
    ],
)
def test_other_requests_are_refused(method: str, path: str) -> None:
    assert asked.refusal(get(path, method), asked.A2A).reason is Reason.UNKNOWN_OPERATION


@pytest.mark.parametrize("path", ["/v1/message:send", "/message:stream"])
def test_the_binding_without_json_rpc_is_refused(path: str) -> None:
    assert asked.refusal(asked.post(PARAMS["1.0"], path=path), asked.A2A).reason is Reason.BODY_MALFORMED


@pytest.mark.parametrize("method", ["tasks/pushNotificationConfig/set", "CreateTaskPushNotificationConfig"])
def test_a_target_of_push_notifications_is_refused(method: str) -> None:
    params = {"taskId": "t", "url": "https://evil.example", "pushNotificationConfig": {"url": "https://evil.example"}}
    error = asked.refusal(asked.post(asked.rpc(method, params)), asked.A2A)
    assert (error.reason, error.rpc) == (Reason.UNKNOWN_OPERATION, RpcEnvelope(id=7))


TARGET = {"url": "https://evil.example"}
KEYS = ["pushNotificationConfig", "taskPushNotificationConfig", "push_notification_config", "task_push_notification_config"]
KEYS += ["PushNotificationConfig", "TASKPUSHNOTIFICATIONCONFIG"]


@EACH_MESSAGE
@pytest.mark.parametrize("key", KEYS)
def test_a_message_that_names_such_a_target_is_refused(method: str, params: dict[str, Any], kind: str, key: str) -> None:
    for target in (TARGET, [TARGET], "https://evil.example"):
        request = asked.post(asked.rpc(method, params | {"configuration": {"blocking": False, key: target}}))
        assert asked.refusal(request, asked.A2A).reason is Reason.UNKNOWN_OPERATION
    without = asked.post(asked.rpc(method, params | {"configuration": {"blocking": False, key: None}}))
    assert asked.operation(without, asked.A2A).action is Action.SEND_MESSAGE


@EACH_MESSAGE
@pytest.mark.parametrize("key", ["Configuration", "CONFIGURATION", "Message", "con_figuration"])
def test_a_key_that_is_judged_has_one_spelling(method: str, params: dict[str, Any], kind: str, key: str) -> None:
    others = {name: value for name, value in params.items() if name != key.lower()}
    request = asked.post(asked.rpc(method, others | {key: {"pushNotificationConfig": TARGET}}))
    assert asked.refusal(request, asked.A2A).reason is Reason.BODY_MALFORMED


@pytest.mark.parametrize("body", [{"result": {}}, {"error": {}}], ids=["a result", "an error"])
def test_an_agent_is_sent_no_answers(body: dict[str, Any]) -> None:
    assert asked.refusal(asked.post({"jsonrpc": "2.0", "id": 7} | body), asked.A2A).reason is Reason.UNKNOWN_OPERATION


@pytest.mark.parametrize("method", ["tools/call", "tasks/send", "message/sendX", "sendMessage", "SetTaskPushNotificationConfig"])
def test_a_method_that_a2a_does_not_have_is_refused(method: str) -> None:
    assert asked.refusal(asked.post(asked.rpc(method, PARAMS["1.0"])), asked.A2A).reason is Reason.UNKNOWN_OPERATION
