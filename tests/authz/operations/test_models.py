"""OpenAI and Anthropic: requests that name a model, with its name, streaming and bound; what is refused; what is plain HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from authz.operations import models
from authz.verdict import Operation, Reason
from hopgate.policy.question import Action, Entity
from hopgate.resources.registry import Destination, Protocol
from tests.authz import requests
from tests.authz.operations import asked

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
SAID = [{"role": "user", "content": "x"}]
GOLDEN: dict[str, tuple[Destination, str, dict[str, Any], dict[str, Any]]] = {
    "chat": (asked.OPENAI, CHAT, {"model": "gpt-4o", "messages": SAID}, {"name": "gpt-4o", "stream": False}),
    "chat, streamed": (asked.OPENAI, CHAT, {"model": "gpt-4o", "messages": SAID, "stream": True}, {"name": "gpt-4o", "stream": True}),
    "chat, plainly not streamed": (asked.OPENAI, CHAT, {"model": "gpt-4o", "stream": None}, {"name": "gpt-4o", "stream": False}),
    "chat, bounded": (asked.OPENAI, CHAT, {"model": "gpt-4o", "max_tokens": 9}, {"name": "gpt-4o", "stream": False, "maxTokens": 9}),
    "chat, bounded as of late": (
        asked.OPENAI,
        CHAT,
        {"model": "gpt-4o", "max_completion_tokens": 0},
        {"name": "gpt-4o", "stream": False, "maxTokens": 0},
    ),
    "chat, bounded twice": (
        asked.OPENAI,
        CHAT,
        {"model": "gpt-4o", "max_tokens": 9, "max_completion_tokens": 90},
        {"name": "gpt-4o", "stream": False, "maxTokens": 90},
    ),
    "chat below another path": (asked.OPENAI, "/openai/v1/chat/completions?a=b", {"model": "gpt-4o"}, {"name": "gpt-4o", "stream": False}),
    "chat with a slash at the end": (asked.OPENAI, CHAT + "/", {"model": "gpt-4o"}, {"name": "gpt-4o", "stream": False}),
    "responses": (asked.OPENAI, RESPONSES, {"model": "gpt-4o-mini", "input": "x"}, {"name": "gpt-4o-mini", "stream": False}),
    "responses, streamed and bounded": (
        asked.OPENAI,
        RESPONSES,
        {"model": "gpt-4o-mini", "input": "x", "stream": True, "max_output_tokens": 5},
        {"name": "gpt-4o-mini", "stream": True, "maxTokens": 5},
    ),
    "completions of old": (asked.OPENAI, "/v1/completions", {"model": "gpt-4o", "prompt": "x"}, {"name": "gpt-4o", "stream": False}),
    "embeddings": (asked.OPENAI, "/v1/embeddings", {"model": "gpt-4o", "input": "x"}, {"name": "gpt-4o", "stream": False}),
    "messages": (
        asked.ANTHROPIC,
        MESSAGES,
        {"model": "claude-small", "max_tokens": 9, "messages": SAID},
        {"name": "claude-small", "stream": False, "maxTokens": 9},
    ),
    "messages, streamed": (
        asked.ANTHROPIC,
        MESSAGES + "?beta=true",
        {"model": "claude-small", "max_tokens": 9, "stream": True},
        {"name": "claude-small", "stream": True, "maxTokens": 9},
    ),
    "a count of tokens": (
        asked.ANTHROPIC,
        MESSAGES + "/count_tokens",
        {"model": "claude-small"},
        {"name": "claude-small", "stream": False},
    ),
}


@pytest.mark.parametrize(("destination", "path", "body", "model"), GOLDEN.values(), ids=GOLDEN)
def test_a_request_invokes_the_model_that_it_names(
    destination: Destination, path: str, body: dict[str, Any], model: dict[str, Any]
) -> None:
    assert asked.operation(asked.post(body, path=path), destination) == Operation(
        action=Action.INVOKE_MODEL, resource=Entity("Model", f"demo/llm/{body['model']}"), server=asked.LLM, context={"model": model}
    )


PROVIDERS = {
    "OpenAI": (asked.OPENAI, CHAT, "gpt-4o"),
    "responses": (asked.OPENAI, RESPONSES, "gpt-4o"),
    "Anthropic": (asked.ANTHROPIC, MESSAGES, "claude-small"),
}
EACH_PROVIDER = pytest.mark.parametrize(("destination", "path", "model"), PROVIDERS.values(), ids=PROVIDERS)

REFUSED: dict[str, tuple[dict[str, Any], Reason]] = {
    "a model that is not listed": ({"model": "gpt-5"}, Reason.UNKNOWN_MODEL),
    "a model in capitals": ({"model": "GPT-4o"}, Reason.UNKNOWN_MODEL),
    "a model with a space": ({"model": "gpt-4o "}, Reason.UNKNOWN_MODEL),
    "a model with a line end": ({"model": "gpt-4o\n"}, Reason.BODY_MALFORMED),
    "an empty model": ({"model": ""}, Reason.BODY_MALFORMED),
    "a model that is null": ({"model": None}, Reason.BODY_MALFORMED),
    "models in an array": ({"model": ["gpt-4o"]}, Reason.BODY_MALFORMED),
    "a model without end": ({"model": "m" * (models.MAX_NAME + 1)}, Reason.BODY_MALFORMED),
    "streaming as text": ({"stream": "true"}, Reason.BODY_MALFORMED),
    "streaming as a number": ({"stream": 1}, Reason.BODY_MALFORMED),
    "a bound as text": ({"max_tokens": "9"}, Reason.BODY_MALFORMED),
    "a bound that is true": ({"max_tokens": True}, Reason.BODY_MALFORMED),
    "a bound in fractions": ({"max_tokens": 9.0}, Reason.BODY_MALFORMED),
    "a bound below nothing": ({"max_tokens": -1}, Reason.BODY_MALFORMED),
    "a bound beyond 64 bits": ({"max_tokens": 2**63}, Reason.BODY_MALFORMED),
}


@EACH_PROVIDER
@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_judged_is_refused(destination: Destination, path: str, model: str, change: dict[str, Any], reason: Reason) -> None:
    body = {"model": model, "max_tokens": 9, "stream": False}
    assert asked.operation(asked.post(body, path=path), destination).action is Action.INVOKE_MODEL
    assert asked.refusal(asked.post(body | change, path=path), destination).reason is reason


@EACH_PROVIDER
def test_a_request_that_names_no_model_is_refused(destination: Destination, path: str, model: str) -> None:
    assert asked.refusal(asked.post({"max_tokens": 9}, path=path), destination).reason is Reason.BODY_MALFORMED


@EACH_PROVIDER
def test_a_bound_that_is_null_is_none(destination: Destination, path: str, model: str) -> None:
    found = asked.operation(asked.post({"model": model, "max_tokens": None}, path=path), destination)
    assert found.context == {"model": {"name": model, "stream": False}}


@pytest.mark.parametrize(("protocol", "path"), [(Protocol.OPENAI, CHAT), (Protocol.ANTHROPIC, MESSAGES)], ids=["OpenAI", "Anthropic"])
def test_a_provider_that_lists_no_models_leaves_their_names_to_the_policies(protocol: Protocol, path: str) -> None:
    found = asked.operation(asked.post({"model": "any/model:1"}, path=path), asked.provider(protocol))
    assert found.resource == Entity("Model", "demo/llm/any/model:1")


@pytest.mark.parametrize("destination", [asked.OPENAI, asked.ANTHROPIC], ids=["OpenAI", "Anthropic"])
def test_the_list_of_models_keeps_the_protocol_going(destination: Destination) -> None:
    found = asked.operation(requests.http(host="x", path="/v1/models?limit=3", method="GET", headers=()), destination)
    assert found == Operation(action=Action.USE_PROTOCOL, resource=asked.LLM, server=None, context={})


PLAIN = {
    "files": (asked.OPENAI, "POST", "/v1/files"),
    "one model": (asked.OPENAI, "DELETE", "/v1/models/gpt-4o"),
    "a stored response": (asked.OPENAI, "GET", "/v1/responses/resp_1"),
    "a chat by GET": (asked.OPENAI, "GET", CHAT),
    "a chat by PUT": (asked.OPENAI, "PUT", CHAT),
    "a longer path": (asked.OPENAI, "POST", CHAT + "x"),
    "a path in the query": (asked.OPENAI, "POST", "/v1/files?x=/chat/completions"),
    "batches of messages": (asked.ANTHROPIC, "POST", MESSAGES + "/batches"),
    "messages by GET": (asked.ANTHROPIC, "GET", MESSAGES),
    "OpenAI's path at Anthropic": (asked.ANTHROPIC, "POST", CHAT),
    "Anthropic's path at OpenAI": (asked.OPENAI, "POST", MESSAGES),
}


@pytest.mark.parametrize(("destination", "method", "path"), PLAIN.values(), ids=PLAIN)
def test_every_other_request_is_plain_http(destination: Destination, method: str, path: str) -> None:
    found = asked.operation(requests.http(host="x", path=path, method=method, body=b"\xff not JSON", body_complete=False), destination)
    assert found == Operation(action=Action.HTTP_REQUEST, resource=asked.LLM, server=None, context={})
