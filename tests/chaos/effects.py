"""Tools of the server under test, one of each effect, that leave a line of every effect outside the server's data.

They stand in for the world: what is written here has happened, whatever the server remembers of it. A trap makes the
next call of a tool kill its own process, before its effect or after it.
"""

import asyncio
import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from parley_server.domain.tool import ToolEffect
from parley_server.tools.tool import Tool, ToolContext, tool
from pydantic import BaseModel, ConfigDict

FOLDER_VARIABLE = "CHAOS_WORLD"
WORK_S = 0.01
EFFECTS = {"look": ToolEffect.READ, "put": ToolEffect.IDEMPOTENT, "book": ToolEffect.WRITE}


@dataclass(frozen=True)
class Effect:
    """What happened once, in the name of a call."""

    tool: str
    run_id: str
    call_id: str
    key: str


class World:
    """A folder with the lines of all effects, and perhaps a trap."""

    def __init__(self, folder: Path) -> None:
        self._lines = folder / "effects"
        self._trap = folder / "trap"

    def set_trap(self, trap: str) -> None:
        """Let the next call of a tool die: `book before`, `put after`; nothing takes the trap away."""
        if trap:
            self._trap.write_text(trap, encoding="utf-8")
        else:
            self._trap.unlink(missing_ok=True)

    def walk_into(self, trap: str) -> None:
        """Die, if this is where the trap is; it works once."""
        try:
            if self._trap.read_text(encoding="utf-8") != trap:
                return
            self._trap.unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def add(self, effect: Effect) -> None:
        """Let something happen; when this returns it has, power cut or not."""
        descriptor = os.open(self._lines, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, json.dumps(asdict(effect)).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def effects(self) -> list[Effect]:
        """Return all that happened, in order."""
        if not self._lines.exists():
            return []
        return [Effect(**json.loads(line)) for line in self._lines.read_text(encoding="utf-8").splitlines()]


class Target(BaseModel):
    """What a call is about."""

    model_config = ConfigDict(extra="forbid")
    name: str


class Done(BaseModel):
    """All these tools ever say."""

    done: bool = True


def effect_tools() -> list[Tool]:
    """Return the tools, for a process that has FOLDER_VARIABLE in its environment."""
    world = World(Path(os.environ[FOLDER_VARIABLE]))
    return [_tool(name, effect, world) for name, effect in EFFECTS.items()]


def _tool(name: str, effect: ToolEffect, world: World) -> Tool:
    @tool(effect=effect, name=name)
    async def act(context: ToolContext, _arguments: Target) -> Done:
        """Do it, and leave a line of it."""
        await asyncio.sleep(WORK_S)
        world.walk_into(f"{name} before")
        world.add(Effect(name, context.run_id, context.call_id, context.idempotency_key))
        world.walk_into(f"{name} after")
        await asyncio.sleep(WORK_S)
        return Done()

    return act
