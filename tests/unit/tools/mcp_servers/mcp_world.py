"""A source of MCP tools as a server has it, and calls of them in the name of users."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from parley_server.domain.approval import Confirmation
from parley_server.tools.credentials.directory import CredentialDirectory
from parley_server.tools.errors import ConfirmationNeededError, ToolError
from parley_server.tools.mcp.mcp_settings import McpServerSettings
from parley_server.tools.mcp.source import mcp_sources
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.source import published
from parley_server.tools.tool import JsonObject, Tool, ToolContext
from unit.tools.user_context import context_of

RAW_SERVER = Path(__file__).with_name("raw_server.py")
PATIENCE_S = 30.0

Report = Callable[[str, float | None], None]


@dataclass
class World:
    """The tools of one server called `raw`, and what its program was told."""

    folder: Path
    registry: ToolRegistry = field(default_factory=ToolRegistry)

    @property
    def credentials(self) -> CredentialDirectory:
        """The users' secrets."""
        return CredentialDirectory(self.folder / "credentials")

    async def call(self, name: str, arguments: JsonObject | None = None, user_id: str = "ann") -> JsonObject:
        """Call a tool of the server for a user."""
        tool = await self.tool(name)
        result = await tool.call(self.context(user_id), arguments or {})
        assert isinstance(result, dict)
        return result

    async def tool(self, name: str) -> Tool:
        """Return a tool of the server, which may still be starting."""
        await until(lambda: f"raw_{name}" in self.registry.names)
        tool = self.registry.get(f"raw_{name}")
        assert tool is not None
        return tool

    async def said(self, name: str, user_id: str = "ann") -> JsonObject:
        """Call a tool that answers JSON as text."""
        answered = await self.call(name, user_id=user_id)
        said: JsonObject = json.loads(str(answered["text"]))
        return said

    async def error(self, name: str, arguments: JsonObject | None = None, user_id: str = "ann") -> ToolError:
        """Call a tool that fails; return its error."""
        try:
            answered = await self.call(name, arguments, user_id)
        except ToolError as error:
            return error
        raise AssertionError(f"it answered {answered}")

    async def asked(self, name: str, *confirmed: Confirmation) -> Confirmation:
        """Call a tool that asks the user, who has said yes to its questions before; return what it asks."""
        tool = await self.tool(name)
        try:
            answered = await tool.call(replace(self.context(), confirmed=confirmed), {})
        except ConfirmationNeededError as needed:
            return needed.confirmation
        raise AssertionError(f"it answered {answered}")

    async def confirmed(self, name: str, *confirmed: Confirmation) -> object:
        """Call a tool whose questions the user has said yes to; return what it answers."""
        return await (await self.tool(name)).call(replace(self.context(), confirmed=confirmed), {})

    def context(self, user_id: str = "ann", report: Report = lambda *_: None) -> ToolContext:
        [tool, *_] = [self.registry.get(name) for name in self.registry.names]
        assert tool is not None
        return ToolContext(
            context_of(user_id),
            run_id="run_1",
            call_id="call_1",
            idempotency_key=f"key of {user_id}",
            deadline=0.0,
            report=report,
            credential_slots=tool.spec.credential_slots,
            credentials=self.credentials,
        )

    @property
    def log(self) -> list[str]:
        """What the programs have noted."""
        file = self.folder / "given_to_server.txt"
        return file.read_text().splitlines() if file.exists() else []

    async def logged(self, line: str) -> None:
        """Wait until a program has noted something."""
        await until(lambda: line in self.log)


def is_alive(pid: object) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110  # another process makes it so
            await asyncio.sleep(0.01)


def raw_settings(folder: Path, **more: object) -> McpServerSettings:
    """Start the raw server in a folder; all its tools are READ unless said otherwise."""
    given: Mapping[str, object] = {"command": sys.executable, "args": (str(RAW_SERVER), str(folder)), "effect": "read"}
    return McpServerSettings.model_validate({**given, **more})


@asynccontextmanager
async def open_world(folder: Path, settings: McpServerSettings) -> AsyncIterator[World]:
    """Publish the tools of a server for a block; what is accepted of them is kept in the folder."""
    world = World(folder)
    async with published(list(mcp_sources({"raw": settings}, folder, world.credentials)), world.registry):
        yield world
