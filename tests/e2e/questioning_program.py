"""An MCP server of the official library on standard input and output; its tools ask before they do anything.

It is started with a file, to which it writes what it has done.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult

server = MCPServer("questioning")
YES_OR_NO: dict[str, object] = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]}
A_NAME: dict[str, object] = {"type": "object", "properties": {"name": {"type": "string"}}}


@server.tool()
async def remove(ctx: Context, what: str) -> str | InputRequiredResult:
    """Remove something, when the user agrees."""
    return _asked(ctx, f"Remove {what}?", YES_OR_NO) or _done(f"removed {what}")


@server.tool()
async def rename(ctx: Context) -> str | InputRequiredResult:
    """Rename it, when the user says how."""
    return _asked(ctx, "Which name?", A_NAME) or "not renamed"


@server.tool()
async def cut(ctx: Context) -> str | InputRequiredResult:
    """Ask, and once kill whoever is asked, at about the moment at which he stores the question."""
    has_killed = Path(f"{sys.argv[1]}.killed")
    if not has_killed.exists():
        has_killed.touch()
        threading.Timer(0.002, os.kill, (os.getppid(), signal.SIGKILL)).start()
    return _asked(ctx, "Cut?", YES_OR_NO) or _done("cut")


def _asked(ctx: Context, message: str, schema: dict[str, object]) -> InputRequiredResult | None:
    if ctx.input_responses:
        return None
    asked = ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))
    return InputRequiredResult(input_requests={"sure": asked}, request_state="asked")


def _done(what: str) -> str:
    with Path(sys.argv[1]).open("a") as file:
        file.write(f"{what}\n")
    return what


if __name__ == "__main__":
    server.run("stdio")
