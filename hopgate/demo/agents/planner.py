"""The planner: asks another agent, calls tools and a model, with the SDKs as their authors ship them.

It has no key and no setting for a gate. Started as `python planner.py RESEARCHER_URL TICKETS_URL USER_TOKEN`.
"""

from __future__ import annotations

import asyncio
import sys

import httpx
import openai
from a2a.client import ClientConfig, create_client
from a2a.helpers.proto_helpers import get_message_text, new_text_message
from a2a.types import Role, SendMessageRequest
from mcp import MCPError
from mcp.client.client import Client


async def ask_researcher(url: str, user_token: str) -> None:
    """An A2A hop, with the user's token as such an application passes it."""
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {user_token}"}, timeout=30) as http:
        client = await create_client(url, ClientConfig(httpx_client=http, streaming=False))
        message = new_text_message("login", role=Role.ROLE_USER)
        async for event in client.send_message(SendMessageRequest(message=message)):
            print(f"  researcher answered: {get_message_text(event.message)}", flush=True)


async def use_tools(url: str) -> None:
    """Three tool calls: one within its limit, one beyond it, one that nobody permitted."""
    async with Client(url) as tickets:
        for name, arguments in (
            ("search", {"text": "login", "limit": 10}),
            ("search", {"text": "", "limit": 100_000}),
            ("delete", {"id": 1}),
        ):
            try:
                result = await tickets.call_tool(name, arguments)
                text = " ".join(block.text for block in result.content if block.type == "text")
                print(f"  tool {name}({arguments}): {text}", flush=True)
            except MCPError as error:
                print(f"  tool {name}({arguments}): refused: {error}", flush=True)


def ask_models() -> None:
    """Two model calls at the default address: one model is permitted."""
    client = openai.OpenAI()
    for model in ("gpt-4o-mini", "gpt-4o"):
        try:
            answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "plan my day"}])
            print(f"  model {model}: {answer.choices[0].message.content}", flush=True)
        except openai.PermissionDeniedError as error:
            print(f"  model {model}: refused: {error.message}", flush=True)


async def main() -> None:
    """Do one round of work."""
    researcher_url, tickets_url, user_token = sys.argv[1:4]
    await ask_researcher(researcher_url, user_token)
    await use_tools(tickets_url)
    ask_models()


if __name__ == "__main__":
    asyncio.run(main())
