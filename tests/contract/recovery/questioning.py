"""Tools that ask the user in the middle of a call before they leave their marks."""

from contract.recovery.marking_tools import World
from parley_server.domain.tool import ToolEffect
from parley_server.tools.errors import ConfirmationNeededError
from parley_server.tools.tool import JsonObject, Tool, ToolContext
from unit.tools.made_tools import MadeTool, made_tool


class QuestioningWorld(World):
    """A world whose `put` and `book` ask `n` times, and `read` once, before anything happens."""

    def tools(self) -> list[Tool]:
        """Make the tools."""
        return [
            self._asking("read", ToolEffect.READ),
            self._asking("put", ToolEffect.IDEMPOTENT),
            self._asking("book", ToolEffect.WRITE),
        ]

    def _asking(self, name: str, effect: ToolEffect) -> MadeTool:
        async def ask(context: ToolContext, arguments: JsonObject) -> object:
            number = arguments["n"]
            assert isinstance(number, int)
            rounds = 1 if effect is ToolEffect.READ else number
            for each, confirmed in enumerate(context.confirmed):
                assert (confirmed.question, confirmed.state) == (question(name, each), f"{context.call_id} {each}")
            if (asked := len(context.confirmed)) < rounds:
                raise ConfirmationNeededError(question(name, asked), f"{context.call_id} {asked}")
            self.marks.append((name, number, context.idempotency_key))
            return {"done": number}

        return made_tool(name, ask, effect=effect)


def question(name: str, number: int) -> str:
    """Return what a tool asks in a round, from 0."""
    return f"{name}: sure? ({number})"
