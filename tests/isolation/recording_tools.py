"""Tools that write down for whom they were called, with what, and what they were given; see `isolation.stage`.

The server imports them. A line of `tool-calls.jsonl`, in the folder the server runs in, is one call.
"""

import json
from pathlib import Path

from parley_server.domain.tool import ApprovalRule, ToolEffect
from parley_server.tools.errors import ToolError
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict

RECORD = "tool-calls.jsonl"
SLOT = "vault"
_REPEATED = 1600


class Said(BaseModel):
    """What the user said."""

    model_config = ConfigDict(extra="forbid")

    words: str


def _record(context: ToolContext, arguments: Said, secret_of: str = "") -> None:
    call = {
        "user_id": context.user_id,
        "actors": context.actors,
        "said_by": context.request.get("said-by"),
        "said_actors": context.request.get("actors"),
        "tool": context.tool_name,
        "run_id": context.run_id,
        "call_id": context.call_id,
        "words": arguments.words,
        "secret_of": secret_of,
    }
    with Path(RECORD).open("a", encoding="utf-8") as record:
        record.write(json.dumps(call) + "\n")


@tool(effect=ToolEffect.READ)
async def recite(context: ToolContext, arguments: Said) -> Said:
    """Say it so often that it is too large to be told whole."""
    context.progress(arguments.words)
    _record(context, arguments)
    return Said(words=f"{arguments.words} " * _REPEATED)


@tool(effect=ToolEffect.WRITE, approval=ApprovalRule.ALWAYS)
async def ask_first(context: ToolContext, arguments: Said) -> Said:
    """Do what the user is asked about before."""
    _record(context, arguments)
    return arguments


@tool(effect=ToolEffect.WRITE, credential_slots=(SLOT,))
async def spend(context: ToolContext, arguments: Said) -> Said:
    """Do something with the user's own secret."""
    secret = await context.credential(SLOT)
    # Whose it is, and no more: a secret belongs into no file but its own.
    _record(context, arguments, secret.get_secret_value().rpartition("x")[0] + "x")
    return arguments


@tool(effect=ToolEffect.READ)
async def refuse(context: ToolContext, arguments: Said) -> Said:
    """Fail, and say of what."""
    _record(context, arguments)
    raise ToolError("refused", f"That cannot be done: {arguments.words}")


@tool(effect=ToolEffect.WRITE, timeout_s=60)
async def ponder(context: ToolContext, arguments: Said) -> Said:
    """Go on until it is cancelled: a server that is killed meanwhile knows no outcome."""
    _record(context, arguments)
    await context.cancelled.wait()
    return arguments
