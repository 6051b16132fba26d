"""The path of a model request: what could be routed as an invocation is judged as one, and names no other model than the body."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import openai
import pytest

from authz import operations
from authz.operations import models
from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Reason
from hopgate.identity.names import DestinationKind, DestinationName, ObjectName
from hopgate.policy.question import Action
from hopgate.resources.kinds import ModelProvider, Provider, Tls
from hopgate.resources.registry import Destination, Protocol
from tests.authz import requests

NAME: Final = ObjectName("demo", "llm")


def provider(protocol: Protocol, *listed: str) -> Destination:
    record = ModelProvider(name=NAME, provider=Provider(protocol.value), hosts=("api.example.com",), models=listed)
    return Destination(name=DestinationName(DestinationKind.MODEL_PROVIDER, NAME), protocol=protocol, tls=Tls.OPEN, record=record)


OPENAI: Final = provider(Protocol.OPENAI, "small", "a/b")
ANTHROPIC: Final = provider(Protocol.ANTHROPIC, "small")


def post(path: str, model: str = "small") -> HttpRequest:
    return requests.http(host="x", path=path, body={"model": model})


def reason(request: HttpRequest, destination: Destination) -> Reason:
    with pytest.raises(OperationError) as caught:
        operations.extract(request, destination)
    return caught.value.reason


INVOKING: dict[str, tuple[Destination, str]] = {
    "as it is": (OPENAI, "/v1/chat/completions"),
    "with a query": (OPENAI, "/v1/chat/completions?api-version=1"),
    "a letter encoded": (OPENAI, "/v1/chat/completion%73"),
    "the slash encoded": (OPENAI, "/v1/chat%2Fcompletions"),
    "in capitals": (OPENAI, "/V1/Chat/Completions"),
    "with slashes at the end": (OPENAI, "/v1/chat/completions//"),
    "with a doubled slash": (OPENAI, "/v1/chat//completions"),
    "with a parameter": (OPENAI, "/v1/chat/completions;a=b"),
    "with a parameter further in": (OPENAI, "/v1/chat;a/completions"),
    "responses in capitals": (OPENAI, "/v1/Responses"),
    "messages": (ANTHROPIC, "/v1/messages"),
    "messages with a letter encoded": (ANTHROPIC, "/v1/message%73"),
    "messages in capitals": (ANTHROPIC, "/V1/Messages"),
}


@pytest.mark.parametrize(("destination", "path"), INVOKING.values(), ids=INVOKING)
def test_a_path_in_any_spelling_is_judged_by_its_model(destination: Destination, path: str) -> None:
    found = operations.extract(post(path), destination)
    assert (found.action, found.resource.id) == (Action.INVOKE_MODEL, "demo/llm/small")
    assert reason(post(path, "huge"), destination) is Reason.UNKNOWN_MODEL


@pytest.mark.parametrize("path", ["/v1/completionsx", "/v1/chat/completions/x", "/v1/files?p=/chat/completions", "/v1/%", "/v1/%ff", ""])
def test_another_path_is_plain_http(path: str) -> None:
    assert operations.extract(post(path), OPENAI).action is Action.HTTP_REQUEST


@pytest.mark.parametrize("path", ["/v1/Models", "/v1/model%73", "/v1/models;a"])
def test_only_the_exact_list_of_models_needs_no_permit_of_its_own(path: str) -> None:
    def listed(path: str) -> Action:
        return operations.extract(requests.http(host="x", path=path, method="GET", headers=()), OPENAI).action

    assert (listed(path), listed("/v1/models")) == (Action.HTTP_REQUEST, Action.USE_PROTOCOL)


DEPLOYED: dict[str, str] = {
    "another": "/openai/deployments/huge/chat/completions?api-version=1",
    "another in capitals": "/openai/Deployments/huge/chat/completions",
    "the same in capitals": "/openai/deployments/Small/chat/completions",
    "another with a letter encoded": "/openai/deployments/hug%65/chat/completions",
    "the word encoded": "/openai/deployment%73/huge/chat/completions",
    "a doubled slash": "/openai/deployments//huge/chat/completions",
    "two of them": "/openai/deployments/small/deployments/huge/chat/completions",
    "embeddings": "/openai/deployments/huge/embeddings",
}


@pytest.mark.parametrize("path", DEPLOYED.values(), ids=DEPLOYED)
def test_a_deployment_that_is_not_the_body_s_model_is_refused(path: str) -> None:
    assert reason(post(path), OPENAI) is Reason.HEADER_BODY_MISMATCH
    same = path.lower().replace("hug%65", "small").replace("huge", "small")
    assert operations.extract(post(same), OPENAI).resource.id == "demo/llm/small"


def test_a_deployment_s_name_may_hold_an_encoded_slash() -> None:
    assert operations.extract(post("/openai/deployments/a%2Fb/chat/completions", "a/b"), OPENAI).resource.id == "demo/llm/a/b"
    assert models.deployments("/openai/deployments") == ()


class Endpoint(ThreadingHTTPServer):
    """On loopback. Keeps each request and answers 403."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sent: list[HttpRequest] = []


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def log_message(self, *_: object) -> None:
        """Nothing: the test looks at what was kept."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = tuple((name.lower(), value) for name, value in self.headers.items())
        self.server.sent.append(requests.http(host="x", path=self.path, body=body, headers=headers))
        self.send_response(403)
        self.send_header("content-length", "0")
        self.end_headers()


def test_the_azure_client_names_one_model_in_path_and_body() -> None:
    with Endpoint() as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{endpoint.server_address[1]}"
        try:
            with openai.AzureOpenAI(azure_endpoint=url, api_key="x", api_version="2026-01-01") as client:
                for model in ("small", "a/b"):
                    with pytest.raises(openai.PermissionDeniedError):
                        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])
        finally:
            endpoint.shutdown()
            thread.join()
    assert [request.path.partition("?")[0].count("/deployments/") for request in endpoint.sent] == [1, 1]
    assert [operations.extract(request, OPENAI).resource.id for request in endpoint.sent] == ["demo/llm/small", "demo/llm/a/b"]
