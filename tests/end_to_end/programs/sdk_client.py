"""Calls with unmodified SDKs and prints what each gave, as JSON. Arguments: which calls; see `CALLS`."""

import asyncio
import json
import sys


async def mcp_calls(mode, url="http://tickets.demo.svc/mcp"):
    from mcp import MCPError
    from mcp.client.client import Client

    found = {}
    async with Client(url, mode=mode) as client:
        found["tools"] = sorted(tool.name for tool in (await client.list_tools()).tools)
        result = await client.call_tool("search", {"text": "login", "limit": 1})
        found["search"] = result.content[0].text
        try:
            await client.call_tool("delete", {"id": 1})
        except MCPError as error:
            found["denied"] = f"{type(error).__name__}: {error}"
        found["after"] = (await client.call_tool("search", {"text": "logo", "limit": 1})).content[0].text
    return found


async def mcp_steps(mode, url="http://steps.demo.svc/mcp"):
    from mcp.client.client import Client

    steps = 5
    seen = []
    answered = asyncio.Semaphore(0)
    async with Client(url, mode=mode) as client, Client(url, mode=mode) as other:

        async def heard(progress, total, message):
            seen.append(progress)
            await other.call_tool("acknowledge", {})
            answered.release()

        result = await client.call_tool("count", {"to": steps}, progress_callback=heard)
        # The SDK fails when it is closed while an answer is on its way; the last acknowledgement may still be.
        for _ in range(steps):
            await answered.acquire()
    return {"seen": seen, "result": result.content[0].text}


def openai_calls():
    import openai

    client = openai.OpenAI()
    messages = [{"role": "user", "content": "x"}]
    found = {"plain": client.chat.completions.create(model="gpt-4o-mini", messages=messages).choices[0].message.content}
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)
    found["chunks"] = [chunk.choices[0].delta.content for chunk in stream]
    try:
        client.chat.completions.create(model="gpt-4o", messages=messages)
    except openai.APIError as error:
        found["denied"] = f"{type(error).__name__}: {error}"
    return found


def anthropic_calls():
    import anthropic

    client = anthropic.Anthropic()
    found = {}
    for name, model in (("plain", "claude-small"), ("denied", "claude-large")):
        try:
            found[name] = client.messages.create(model=model, max_tokens=9, messages=[{"role": "user", "content": "x"}]).content[0].text
        except anthropic.APIError as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


async def a2a_calls(url, token):
    import httpx
    from a2a.client import ClientConfig, create_client
    from a2a.helpers.proto_helpers import get_message_text, new_text_message
    from a2a.types import Role, SendMessageRequest

    found = {}
    for streaming in (False, True):
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=20) as http:
            try:
                client = await create_client(url, ClientConfig(httpx_client=http, streaming=streaming))
                message = SendMessageRequest(message=new_text_message("login", role=Role.ROLE_USER))
                texts = [get_message_text(event.message) async for event in client.send_message(message)]
                found["stream" if streaming else "send"] = texts
            except Exception as error:
                found["stream" if streaming else "send"] = f"{type(error).__name__}: {error}"
    return found


CALLS = {
    "mcp": lambda mode: asyncio.run(mcp_calls(mode)),
    "mcp-steps": lambda mode: asyncio.run(mcp_steps(mode)),
    "openai": openai_calls,
    "anthropic": anthropic_calls,
    "a2a": lambda url, token: asyncio.run(a2a_calls(url, token)),
}
print(json.dumps(CALLS[sys.argv[1]](*sys.argv[2:])))
