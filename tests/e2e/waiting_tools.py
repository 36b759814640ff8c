"""Tools for a server under test: one that waits until a file is there, and one that writes down what it does."""

import asyncio
import os
from pathlib import Path

from parley_server.domain.tool import ApprovalRule, ToolEffect
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict

_FOLDER = Path(os.environ["MARKS_FOLDER"])


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Done(BaseModel):
    actor: str


@tool(effect=ToolEffect.READ, timeout_s=60)
async def wait(context: ToolContext, arguments: Nothing) -> Done:  # noqa: ARG001  # the shape of every tool
    """Wait until somebody lets go."""
    (_FOLDER / "waiting").touch()
    while not (_FOLDER / "go").exists():  # another process
        context.progress("waiting")
        await asyncio.sleep(0.05)
    return Done(actor=context.actor)


@tool(effect=ToolEffect.WRITE, approval=ApprovalRule.ALWAYS)
async def pay(context: ToolContext, arguments: Nothing) -> Done:  # noqa: ARG001
    """Pay."""
    return Done(actor=context.actor)


@tool(effect=ToolEffect.WRITE)
async def book(context: ToolContext, arguments: Nothing) -> Done:  # noqa: ARG001
    """Book."""
    (_FOLDER / f"booked {context.run_id}").touch()
    return Done(actor=context.actor)
