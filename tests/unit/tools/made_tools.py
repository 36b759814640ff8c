"""Tools made on the spot: whatever a tool in the wild might do."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Unpack

from parley_server.domain.tool import ToolEffect, ToolSpec
from parley_server.tools.tool import CallRules, JsonObject, ToolContext

Behaviour = Callable[[ToolContext, JsonObject], Awaitable[object]]


async def echo(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001  # every behaviour takes both
    """Return the arguments."""
    return arguments


@dataclass(frozen=True)
class MadeTool:
    """A tool that does what its behaviour does."""

    spec: ToolSpec
    behaviour: Behaviour

    async def call(self, context: ToolContext, arguments: JsonObject) -> object:
        return await self.behaviour(context, arguments)


def made_tool(
    name: str,
    behaviour: Behaviour = echo,
    *,
    effect: ToolEffect = ToolEffect.READ,
    timeout_s: float = 5.0,
    **rules: Unpack[CallRules],
) -> MadeTool:
    """Make a tool that takes any object."""
    return MadeTool(ToolSpec(name, f"Does {name}.", '{"type":"object"}', effect, timeout_s, **rules), behaviour)
