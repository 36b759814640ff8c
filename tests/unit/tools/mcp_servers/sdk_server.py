"""An MCP server of the official library on loopback, by streamable HTTP: the newest protocol, sessions, questions."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult


@dataclass
class SdkServer:
    """Where it is, and what it has noticed."""

    url: str = ""
    waiting: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=lambda: ["Remove all?", "Sure?"])
    server: MCPServer = field(default_factory=lambda: MCPServer("sdk"))


@asynccontextmanager
async def running_sdk_server() -> AsyncIterator[SdkServer]:
    """Serve for a block."""
    made = SdkServer()
    add_tools(made)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        made.url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        config = uvicorn.Config(made.server.streamable_http_app(), log_config=None, lifespan="on", ws="none")
        served = uvicorn.Server(config)
        task = asyncio.create_task(served.serve(sockets=[listening]))
        try:
            yield made
        finally:
            served.should_exit = True
            await task


def add_tools(made: SdkServer) -> None:
    server = made.server

    @server.tool()
    async def whoami(ctx: Context) -> str:
        """Say who asks."""
        return (ctx.headers or {}).get("authorization", "nobody")

    @server.tool()
    async def wait(name: str) -> str:
        """Wait until cancelled."""
        made.waiting.append(name)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            made.cancelled.append(name)
            raise
        return name

    @server.tool()
    async def steps(ctx: Context) -> str:
        """Tell how far it is."""
        await ctx.report_progress(1, 4, "one")
        return "done"

    @server.tool()
    async def remove(ctx: Context) -> str | InputRequiredResult:
        """Remove all, when the user has said yes to every question."""
        rounds = len(ctx.request_state or "")
        if rounds < len(made.questions):
            asked = ElicitRequest(params=sure(made.questions[rounds]))
            return InputRequiredResult(input_requests={"sure": asked}, request_state="+" * (rounds + 1))
        return f"removed after {rounds}"

    @server.tool()
    async def sign(ctx: Context) -> str | InputRequiredResult:
        """Write a name under it, and be sure."""
        if not ctx.input_responses:
            name = {"type": "object", "properties": {"name": {"type": "string"}}}
            whose = ElicitRequest(params=ElicitRequestFormParams(message="Whose name?", requested_schema=name))
            is_sure = ElicitRequest(params=sure("Sign?"))
            return InputRequiredResult(input_requests={"whose": whose, "sure": is_sure}, request_state="asked")
        return ", ".join(sorted(each.model_dump()["action"] for each in ctx.input_responses.values()))

    @server.tool()
    async def grow(ctx: Context) -> str:
        """Get one more tool."""
        server.add_tool(more)
        await ctx.notify_tools_changed()
        return "grown"


def sure(question: str) -> ElicitRequestFormParams:
    return ElicitRequestFormParams(message=question, requested_schema={"type": "object", "properties": {}})


def more() -> str:
    """Have come later."""
    return "more"
