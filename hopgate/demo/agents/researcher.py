"""The researcher: an A2A agent that looks tickets up with an MCP tool. It knows nothing of a gate.

Started as `python researcher.py PORT OWN_URL TICKETS_URL`.
"""

from __future__ import annotations

import sys

import uvicorn
from a2a.helpers.proto_helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Role
from a2a.utils.constants import PROTOCOL_VERSION_CURRENT, TransportProtocol
from mcp import MCPError
from mcp.client.client import Client
from starlette.applications import Starlette


class Researcher(AgentExecutor):
    """Answers each message with the tickets that match it."""

    def __init__(self, tickets_url: str) -> None:
        self._tickets_url = tickets_url

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Look the question up and answer with one message."""
        try:
            async with Client(self._tickets_url) as tickets:
                found = await tickets.call_tool("search", {"text": context.get_user_input(), "limit": 5})
            answer = " ".join(block.text for block in found.content if block.type == "text")
        except MCPError as error:
            answer = f"I may not look that up: {error}"
        await event_queue.enqueue_event(new_text_message(answer, role=Role.ROLE_AGENT))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nothing here takes long enough to be cancelled."""
        del context
        await event_queue.enqueue_event(new_text_message("there is nothing to cancel", role=Role.ROLE_AGENT))


def card(url: str) -> AgentCard:
    """The card by which other agents know this one."""
    return AgentCard(
        name="researcher",
        description="finds tickets",
        version="1.0",
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="find", name="find tickets", description="finds tickets by a word in their title", tags=["tickets"])],
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding=TransportProtocol.JSONRPC, protocol_version=PROTOCOL_VERSION_CURRENT)
        ],
    )


def main() -> None:
    """Serve until ended."""
    port, url, tickets_url = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    described = card(url)
    handler = DefaultRequestHandler(agent_executor=Researcher(tickets_url), task_store=InMemoryTaskStore(), agent_card=described)
    app = Starlette(routes=[*create_agent_card_routes(described), *create_jsonrpc_routes(handler, "/")])
    # On one machine and in a pod: the network is its own.
    uvicorn.run(app, host="0.0.0.0", port=port, log_level="warning")  # noqa: S104


if __name__ == "__main__":
    main()
