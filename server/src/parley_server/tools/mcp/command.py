"""`parley-server mcp pin`: what an MCP server lists now beside what was accepted of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from parley_server.domain.errors import StartError
from parley_server.tools.credentials.source import CredentialSource, CredentialsUnavailableError
from parley_server.tools.errors import ToolError
from parley_server.tools.mcp.catalog import Catalog
from parley_server.tools.mcp.listed_tool import ListedTool, schema_text
from parley_server.tools.mcp.mcp_settings import McpServerSettings
from parley_server.tools.mcp.source import McpSource
from parley_server.tools.mcp.tool_spec import effect_of


@dataclass(frozen=True, slots=True)
class Review:
    """What a server lists, to be looked at and accepted as it is here."""

    settings: McpServerSettings
    catalog: Catalog
    listed: Mapping[str, ListedTool]

    def differences(self) -> Iterator[str]:
        """Yield the lines that say what would change; none where nothing would."""
        accepted = self.catalog.accepted
        for name, tool in self.listed.items():
            if name not in accepted:
                yield f"new: {_visible(name)} ({effect_of(self.settings, tool).value})"
                yield from (f"  {line}" for line in _described(tool))
            elif accepted[name] != tool:
                yield f"changed: {_visible(name)} ({effect_of(self.settings, tool).value})"
                yield from (f"  - {line}" for line in _described(accepted[name]))
                yield from (f"  + {line}" for line in _described(tool))
        yield from (f"gone: {_visible(name)}" for name in accepted if name not in self.listed)

    def accept(self) -> None:
        """Accept just this, for a running server, too. Raises StartError when it cannot be written."""
        try:
            self.catalog.accept(self.listed.values())
        except OSError as error:
            raise StartError(f"it cannot be written ({error.strerror}); check the data directory") from error


async def review(name: str, settings: McpServerSettings, data_dir: Path, credentials: CredentialSource) -> Review:
    """Ask a server for its tools. Raises StartError when it does not list them."""
    catalog = Catalog.of(name, data_dir, pinned=True)
    try:
        listed = await McpSource(name, settings, catalog, credentials).listed()
    except (ToolError, CredentialsUnavailableError) as error:
        raise StartError(f"[mcp.{name}]: the server does not list its tools ({error}); the log says why") from error
    return Review(settings, catalog, listed)


def _described(tool: ListedTool) -> Iterator[str]:
    yield from map(_visible, tool.description.splitlines())
    yield f"arguments: {_visible(schema_text(tool.input_schema))}"
    if tool.output_schema is not None:
        yield f"result: {_visible(schema_text(tool.output_schema))}"
    yield f"said to be read-only: {_answer(tool.is_read_only)}, idempotent: {_answer(tool.is_idempotent)}"


def _answer(hint: bool | None) -> str:
    return {True: "yes", False: "no", None: "nothing"}[hint]


def _visible(text: str) -> str:
    """Write a line so that nothing of it acts on a terminal or hides there."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
