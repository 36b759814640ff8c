"""Tools of every effect class that leave marks in a world outside of the store."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from parley_server.domain.tool import ToolEffect
from parley_server.tools.tool import JsonObject, Tool, ToolContext
from unit.tools.made_tools import MadeTool, made_tool

Mark = tuple[str, int, str]


# What a call returns whose number is so large is too large to be told whole.
LARGE_FROM = 100
LARGE_CHARS = 50_000


@dataclass
class World:
    """What has happened: a mark (the tool, its `n`, its key) for every effect, in order."""

    marks: list[Mark] = field(default_factory=list)

    def tools(self) -> list[Tool]:
        """Make the tools `read`, `put` (idempotent) and `book` (a WRITE)."""
        return [
            self._tool("read", ToolEffect.READ),
            self._tool("put", ToolEffect.IDEMPOTENT),
            self._tool("book", ToolEffect.WRITE),
        ]

    def _tool(self, name: str, effect: ToolEffect) -> MadeTool:
        async def leave_a_mark(context: ToolContext, arguments: JsonObject) -> object:
            number = arguments["n"]
            assert isinstance(number, int)
            await asyncio.sleep(0.001 * (number % 3))
            self.marks.append((name, number, context.idempotency_key))
            await asyncio.sleep(0.001)
            return {"done": number, "text": "x" * LARGE_CHARS if number >= LARGE_FROM else ""}

        return made_tool(name, leave_a_mark, effect=effect)


def check_effects(marks: list[Mark], statuses: dict[tuple[str, int], str]) -> None:
    """Assert what every class of effect promises; `statuses` tell how each call ended, by tool and `n`."""
    happened = Counter((name, number) for name, number, _ in marks)
    keys: dict[tuple[str, int], set[str]] = {}
    for name, number, key in marks:
        keys.setdefault((name, number), set()).add(key)
    for call, status in statuses.items():
        name, _ = call
        if name == "book":
            assert happened[call] <= 1, f"{call} happened twice"
            assert status in ("OK", "UNKNOWN_OUTCOME"), (call, status)
        else:
            assert status == "OK", (call, status)
        if status == "OK":
            assert happened[call] >= 1, f"{call} is told as done and never happened"
            assert len(keys[call]) == 1, f"{call} had two keys"
