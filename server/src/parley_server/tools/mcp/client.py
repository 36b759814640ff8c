"""One connection to an MCP server: opened, asked and closed, whatever the server does."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from http import HTTPStatus

import structlog
from mcp.client import Client, ClientRequestContext, ClientSession, IncomingMessage
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolResult,
    ElicitRequestParams,
    ElicitResult,
    Implementation,
    PaginatedRequestParams,
    Tool,
    ToolListChangedNotification,
)
from pydantic import ValidationError

from parley_server.domain.tool import ToolEffect
from parley_server.tools.mcp.exchange import RemoteCall, perform
from parley_server.tools.mcp.failures import failure, invalid_result, status_of, unavailable
from parley_server.tools.mcp.intake import Transport, bounded
from parley_server.tools.mcp.listed_tool import ListedTool, UnusableToolError, read_tool_aside

# Of a list that never ends.
MAX_PAGES = 1000
CLOSE_PATIENCE_S = 10.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class McpClient:
    """A client of one server, for one user or for nobody. Its connection lives in a task of its own.

    Of the tools that `wants` wants by their names the first `max_tools` are looked at; `on_change` is called when the
    server says that its list has changed.
    """

    def __init__(
        self,
        server: str,
        transport: Transport,
        *,
        connect_timeout_s: float,
        wants: Callable[[str], bool],
        max_tools: int,
        on_change: Callable[[], None],
    ) -> None:
        self._server = server
        self._transport = transport
        self._connect_timeout_s = connect_timeout_s
        self._wants = wants
        self._max_tools = max_tools
        self._on_change = on_change
        self._session: ClientSession | None = None
        self._closing = asyncio.Event()
        self._is_stale = False
        self._listing = asyncio.Lock()
        self._under_way: list[RemoteCall] = []
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # An empty context: nothing of the user whose call came first follows the connection.
        self._task = asyncio.create_task(self._hold(), name=f"mcp {server}", context=contextvars.Context())
        self.tools: dict[str, ListedTool] = {}

    @property
    def has_ended(self) -> bool:
        """Tell whether it can never be asked again."""
        return self._closing.is_set()

    async def opened(self) -> None:
        """Wait until it can be asked. Raises ToolError when that has failed."""
        await asyncio.shield(self._opened)

    async def current_tools(self) -> dict[str, ListedTool]:
        """Return the tools the server has, by name; they are listed again when it has said that they changed.

        Raises:
            ToolError: the server does not list them.
        """
        async with self._listing:
            if self._is_stale and self._session is not None:
                await self._list_again(self._session)
        return self.tools

    async def call(self, call: RemoteCall) -> CallToolResult:
        """Call a tool; when this is cancelled the server is told so. Raises ToolError."""
        session = self._session
        if session is None or self.has_ended:
            raise unavailable()
        self._under_way.append(call)
        try:
            return await perform(session, call)
        except MCPError as error:
            if status_of(error) == HTTPStatus.NOT_FOUND:
                # The server has forgotten the session; the next call begins another one.
                self._closing.set()
            raise failure(error, call.effect) from error
        except ValidationError as error:
            raise invalid_result(call.effect) from error
        finally:
            self._under_way = [each for each in self._under_way if each is not call]

    async def close(self) -> None:
        """End the connection, and the program behind it."""
        self._closing.set()
        if self._session is None:
            # It is still being opened, which may take long.
            self._task.cancel()
        await asyncio.wait({self._task}, timeout=CLOSE_PATIENCE_S)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _hold(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._connect_timeout_s):
                    await self._open(stack)
                self._opened.set_result(None)
                await self._closing.wait()
        except Exception as error:  # noqa: BLE001  # whatever ends the connection, and nothing else
            self._tell(error)
        finally:
            self._closing.set()
            self._session = None
            if not self._opened.done():
                self._opened.set_exception(unavailable())
            # Nobody may have waited for it.
            self._opened.exception()

    async def _open(self, stack: AsyncExitStack) -> None:
        client = await stack.enter_async_context(
            Client(
                bounded(self._transport, self._server, self._lost),
                client_info=Implementation(name="parley", version="1"),
                cache=None,
                elicitation_callback=self._asked,
                message_handler=self._heed,
            )
        )
        self.tools = await self._list(client.session)
        capability = client.server_capabilities.tools
        if client.session.discover_result is not None and capability is not None and capability.list_changed:
            try:
                await stack.enter_async_context(client.listen(tools_list_changed=True))
            except (MCPError, SubscriptionLost) as error:
                _log.warning("mcp_changes_not_told", server=self._server, error=type(error).__name__)
        self._session = client.session

    def _lost(self) -> None:
        if not self._closing.is_set():
            _log.info("mcp_connection_lost", server=self._server)
            self._closing.set()

    async def _heed(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._is_stale = True
            self._on_change()

    async def _asked(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        """Answer a question that does not say of which call it is: where there are several, nobody can have agreed."""
        _log.info("mcp_question", server=self._server, request=str(context.request_id), calls=len(self._under_way))
        if len(self._under_way) == 1:
            return self._under_way[0].questions.answer(params)
        for call in self._under_way:
            call.questions.declined.append(params.message)
        return ElicitResult(action="decline")

    async def _list_again(self, session: ClientSession) -> None:
        # It may become so once more meanwhile.
        self._is_stale = False
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                self.tools = await self._list(session)
        except (MCPError, ValidationError, TimeoutError) as error:
            self._is_stale = True
            raise unavailable("The tool's server does not list its tools.") from error

    async def _list(self, session: ClientSession) -> dict[str, ListedTool]:
        tools: dict[str, ListedTool] = {}
        left_out: dict[str, str] = {}
        async for tool in _all_tools(session):
            if not self._wants(tool.name):
                continue
            if len(tools) >= self._max_tools:
                left_out[tool.name] = f"max_tools is {self._max_tools}"
                break
            try:
                tools[tool.name] = await read_tool_aside(tool)
            except UnusableToolError as error:
                left_out[tool.name] = str(error)
        if left_out:
            name, reason = next(reversed(left_out.items()))
            _log.warning("mcp_tools_left_out", server=self._server, count=len(left_out), last=name, reason=reason)
        return tools

    def _tell(self, error: Exception) -> None:
        """Log why the connection ended, and tell whoever waits for it."""
        cause = _first(error)
        code = cause.code if isinstance(cause, MCPError) else None
        _log.warning("mcp_connection_failed", server=self._server, error=type(cause).__name__, code=code)
        if not self._opened.done():
            told = failure(cause, ToolEffect.READ) if isinstance(cause, MCPError) else unavailable()
            self._opened.set_exception(told)


def _first(error: BaseException) -> BaseException:
    """Return what is at the bottom of a group of errors: the library wraps them in groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _all_tools(session: ClientSession) -> AsyncIterator[Tool]:
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
        for tool in page.tools:
            yield tool
        cursor = page.next_cursor
        if not cursor:
            return
