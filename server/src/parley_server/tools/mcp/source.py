"""The tools of an MCP server, published while they are what was accepted; see `ToolSource`."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from parley_server.domain.errors import StartError
from parley_server.tools.credentials.source import CredentialSource, CredentialsUnavailableError
from parley_server.tools.errors import ToolError
from parley_server.tools.mcp.catalog import Catalog
from parley_server.tools.mcp.client import McpClient
from parley_server.tools.mcp.clients import BACKOFF_MAX_S, BACKOFF_MIN_S, Clients, Secrets
from parley_server.tools.mcp.http import http_transport
from parley_server.tools.mcp.intake import Transport
from parley_server.tools.mcp.listed_tool import ListedTool
from parley_server.tools.mcp.mcp_settings import SLOT, McpServerSettings
from parley_server.tools.mcp.program_log import ProgramLog
from parley_server.tools.mcp.remote_tool import McpTool
from parley_server.tools.mcp.stdio import Program, stdio_transport
from parley_server.tools.mcp.tool_spec import prefix_of, spec_of
from parley_server.tools.source import Publish

# How often what the operator has accepted by another process is looked for.
POLL_S = 1.0
# Between two lists of a server that says again and again that its own has changed.
MIN_PAUSE_S = 2.0
_NAMED = 10

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def mcp_sources(
    servers: Mapping[str, McpServerSettings], data_dir: Path, credentials: CredentialSource
) -> "Iterator[McpSource]":
    """Yield a source for each server. Raises StartError when what was accepted of one cannot be read."""
    for library in ("mcp", "client"):
        # Its lines repeat what servers say, as often as they say it.
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for name, settings in servers.items():
        yield McpSource(name, settings, Catalog.of(name, data_dir, pinned=settings.pinned), credentials)


class McpSource:
    """One server: its catalogue, and the clients of its users; `credentials` are the users' secrets."""

    def __init__(
        self, server: str, settings: McpServerSettings, catalog: Catalog, credentials: CredentialSource
    ) -> None:
        self._server = server
        self._settings = settings
        self._catalog = catalog
        self._credentials = credentials
        self._told: tuple[ListedTool, ...] = ()
        self._changed = asyncio.Event()
        self._clients = Clients(self._open_client, max_clients=settings.max_clients, idle_s=settings.idle_s)

    @property
    def name(self) -> str:
        """See `ToolSource.name`."""
        return f"mcp:{self._server}"

    @property
    def prefix(self) -> str:
        """See `ToolSource.prefix`."""
        return prefix_of(self._server, self._settings)

    async def serve(self, publish: Publish) -> None:
        """Publish what is accepted, and look at what the server lists: at first, and when it says that it has changed.

        Tools that were accepted before are published before that, so that a slow server has them from the start.
        """
        if self._catalog.usable:
            publish(self._tools())
        pause_s = BACKOFF_MIN_S
        try:
            while True:
                self._changed.clear()
                if await self._look():
                    pause_s = BACKOFF_MIN_S
                    publish(self._tools())
                    await asyncio.sleep(MIN_PAUSE_S)
                    await self._wait(None, publish)
                else:
                    publish(self._tools())
                    await self._wait(pause_s, publish)
                    pause_s = min(pause_s * 2, BACKOFF_MAX_S)
        finally:
            await asyncio.shield(self._clients.close())

    def forget(self, user_id: str) -> None:
        """Close the user's clients; see `ToolSource.forget`."""
        self._clients.forget(user_id)

    async def _look(self) -> bool:
        """Ask the server for its tools, and tell whether that worked."""
        try:
            self._catalog.see((await self.listed()).values())
        except (ToolError, CredentialsUnavailableError, OSError, StartError) as error:
            reason = error.code if isinstance(error, ToolError) else type(error).__name__
            _log.warning("mcp_server_not_listed", server=self._server, reason=reason)
            return False
        self._tell()
        return True

    async def listed(self) -> dict[str, ListedTool]:
        """Ask the server for its tools. Raises ToolError, CredentialsUnavailableError."""
        if self._settings.shared:
            async with self._clients.use_shared() as shared:
                return await shared.current_tools()
        client = self._open_client(await self._listing_secrets())
        try:
            await client.opened()
            return client.tools
        finally:
            await client.close()

    async def _listing_secrets(self) -> Secrets:
        user_id = self._settings.list_as
        if not user_id:
            return {}
        found = {slot: await self._credentials.find(user_id, slot) for slot in self._settings.slots}
        return {slot: secret.get_secret_value() for slot, secret in found.items() if secret is not None}

    async def _wait(self, pause_s: float | None, publish: Publish) -> None:
        """Wait until there is reason to ask the server again; publish what the operator accepts meanwhile."""
        until = None if pause_s is None else asyncio.get_running_loop().time() + pause_s
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await self._changed.wait()
                            return
                    self._reread(publish)

    def _reread(self, publish: Publish) -> None:
        try:
            if self._catalog.reread():
                self._tell()
                publish(self._tools())
        except StartError as error:
            _log.error("mcp_tools_not_readable", server=self._server, problem=str(error))

    def _tell(self) -> None:
        withheld = self._catalog.withheld
        _log.info("mcp_server_listed", server=self._server, tools=len(self._catalog.usable), withheld=len(withheld))
        if withheld and withheld != self._told:
            remedy = f"look at them and accept them with `parley-server mcp pin {self._server}`"
            names = [tool.name for tool in withheld[:_NAMED]]
            _log.error("mcp_tools_changed", server=self._server, tools=names, count=len(withheld), remedy=remedy)
        self._told = withheld

    def _tools(self) -> list[McpTool]:
        settings = self._settings
        return [
            McpTool(spec_of(self._server, settings, tool), tool, settings, self._clients, self._changed.set)
            for tool in self._catalog.usable
        ]

    def _open_client(self, secrets: Secrets) -> McpClient:
        settings = self._settings
        return McpClient(
            self._server,
            _transport(self._server, settings, secrets),
            connect_timeout_s=settings.connect_timeout_s,
            wants=lambda name: not settings.allowed or name in settings.allowed,
            max_tools=settings.max_tools,
            on_change=self._changed.set,
        )


def _transport(server: str, settings: McpServerSettings, secrets: Secrets) -> Transport:
    """Make the way to a server, not yet open, with a user's secrets in their places."""
    if settings.url:
        headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        both = [*headers.items(), *_filled(settings.user_headers, secrets).items()]
        # A user's header takes the place of the other one of its name, however that is written.
        return http_transport(settings.url, {name.lower(): value for name, value in both})
    env = {name: value.get_secret_value() for name, value in settings.env.items()}
    program = Program(server, settings.command, settings.args, env | _filled(settings.user_env, secrets), settings.cwd)
    return stdio_transport(program, ProgramLog(server, to_the_end=settings.log_stderr))


def _filled(templates: Mapping[str, str], secrets: Secrets) -> dict[str, str]:
    """Put secrets into their places; what lacks one is left out."""
    return {
        name: SLOT.sub(lambda slot: secrets[slot[1]], template)
        for name, template in templates.items()
        if secrets.keys() >= set(SLOT.findall(template))
    }
