"""`/tools` and `parley tools`: what agents can call, and the calls of which nobody knows whether they happened."""

from typing import Final

from parley.v1.tool_pb2 import (
    TOOL_APPROVAL_ALWAYS,
    TOOL_APPROVAL_NEVER,
    TOOL_APPROVAL_POLICY,
    TOOL_CALL_OUTCOME_DID_NOT_HAPPEN,
    TOOL_CALL_OUTCOME_HAPPENED,
    TOOL_CALL_STATUS_UNKNOWN_OUTCOME,
    Tool,
    ToolApproval,
    ToolCall,
    ToolCallOutcome,
)
from parley_client import ParleyClient

from parley_console.approval_text import EFFECTS
from parley_console.lines import Lines
from parley_console.numbered import Numbered
from parley_console.screen import Style
from parley_console.tool_line import call_text
from parley_console.visible_text import shortened, visible

OUTCOMES: Final[dict[str, ToolCallOutcome.ValueType]] = {
    "happened": TOOL_CALL_OUTCOME_HAPPENED,
    "not": TOOL_CALL_OUTCOME_DID_NOT_HAPPEN,
}
_ASKS: Final[dict[ToolApproval.ValueType, str]] = {
    TOOL_APPROVAL_ALWAYS: "asks",
    TOOL_APPROVAL_NEVER: "never asks",
    TOOL_APPROVAL_POLICY: "as configured",
}
_MAX_DESCRIPTION: Final = 45
_MAX_NOTE: Final = 1024


class ToolCommands:
    """Lists tools and settles calls. Every method that awaits raises ParleyError; `how` says how to settle one."""

    def __init__(self, client: ParleyClient, lines: Lines, how: str) -> None:
        self._client = client
        self._lines = lines
        self._how = how
        self._listed: Numbered[ToolCall] = Numbered(lambda call: call.call_id)

    async def obey(self, argument: str, agent: str) -> None:
        """Do what was typed after `/tools`, while the user talks to `agent`."""
        verb, chosen, outcome, note = [*argument.split(maxsplit=3), "", "", "", ""][:4]
        if not verb:
            await self.show(agent)
        elif verb == "settle" and outcome in OUTCOMES:
            if not await self.settle(chosen, outcome, note):
                self._note(f"no call {chosen} is in doubt; /tools lists those that are")
        else:
            self._note("/tools [settle NUMBER happened|not [NOTE]]")

    async def show(self, agent: str) -> None:
        """Write a line for each tool of the agent (of all agents when it is empty), then the calls in doubt."""
        tools = [tool async for tool in self._client.tools.list(agent=agent)]
        width = max((len(tool.name) for tool in tools), default=0)
        for tool in tools:
            self._lines.line(f"{visible(tool.name):<{width}}  {_rules(tool)}  {_first_line(tool)}".rstrip())
        if not tools:
            self._lines.line("no tools")
        await self.show_unresolved()

    async def show_unresolved(self) -> None:
        """Write a numbered line for each call that may have happened or not, the oldest first."""
        calls = [call async for call in self._client.tools.calls(unresolved=True)]
        self._listed.entries = calls[::-1]
        if calls:
            self._lines.line(f"it is not known whether these calls happened; {self._how}", Style.YELLOW)
        for number, call in enumerate(self._listed.entries, start=1):
            self._lines.line(f"{number:>3}  {call.call_id}  {call_text(call.name, call.arguments_json)}")

    async def settle(self, chosen: str, outcome: str, note: str = "") -> bool:
        """Say of a call in doubt, by its number in the last list or its id, that it `happened` or did `not`.

        Returns False when there is no such call.
        """
        call = self._listed.named(chosen) or await self._in_doubt(chosen)
        if call is None:
            return False
        await self._client.tools.resolve(call.run_id, call.call_id, OUTCOMES[outcome], note=note[:_MAX_NOTE])
        told = "happened" if outcome == "happened" else "did not happen"
        self._note(f"settled: {call_text(call.name, call.arguments_json)} {told}")
        return True

    async def print_result(self, result_id: str) -> None:
        """Write the whole of a large result on one line, as JSON."""
        self._lines.line(await self._client.tools.result(result_id))

    async def _in_doubt(self, call_id: str) -> ToolCall | None:
        async for call in self._client.tools.calls(statuses=[TOOL_CALL_STATUS_UNKNOWN_OUTCOME]):
            if call.call_id == call_id:
                return call
        return None

    def _note(self, text: str) -> None:
        self._lines.line(text, Style.DIM)


def _rules(tool: Tool) -> str:
    asks = _ASKS.get(tool.approval, "") if tool.allowed else "not allowed"
    return f"{EFFECTS.get(tool.effect, ''):<10}  {visible(tool.source):<10}  {asks:<13}"


def _first_line(tool: Tool) -> str:
    first = next(iter(tool.description.strip().splitlines()), "")
    return shortened(visible(first), _MAX_DESCRIPTION)
