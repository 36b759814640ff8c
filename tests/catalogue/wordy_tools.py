"""Tools for the servers of the catalogue: one whose results are too large to be told whole, one that asks first."""

from parley_server.domain.tool import ApprovalRule, ToolEffect
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Words(BaseModel):
    words: list[str]


@tool(effect=ToolEffect.READ)
async def many_words(context: ToolContext, arguments: Nothing) -> Words:  # noqa: ARG001  # the shape of every tool
    """Say many words."""
    return Words(words=[f"word{number}" for number in range(10_000)])


@tool(effect=ToolEffect.READ, approval=ApprovalRule.ALWAYS)
async def ask_first(context: ToolContext, arguments: Nothing) -> Nothing:  # noqa: ARG001  # the shape of every tool
    """Do what the user wants to be asked about."""
    return Nothing()
