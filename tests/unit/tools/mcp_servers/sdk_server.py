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
        """Remove all, when the user agrees."""
        if not ctx.input_responses:
            question = ElicitRequestFormParams(
                message="Remove all?", requested_schema={"type": "object", "properties": {}}
            )
            return InputRequiredResult(input_requests={"sure": ElicitRequest(params=question)}, request_state="asked")
        return f"{ctx.request_state}: {ctx.input_responses['sure'].model_dump()['action']}"

    @server.tool()
    async def grow(ctx: Context) -> str:
        """Get one more tool."""
        server.add_tool(more)
        await ctx.notify_tools_changed()
        return "grown"


def more() -> str:
    """Have come later."""
    return "more"
