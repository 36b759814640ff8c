"""Sources of tools: what has tools elsewhere, and publishes them in the registry while the server runs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import structlog

from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import Tool

# How long a start waits for tools from elsewhere. Later they come as they come.
START_PATIENCE_S = 5.0

Publish = Callable[[Sequence[Tool]], None]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ToolSource(Protocol):
    """Somewhere else that has tools, which may not be there yet, and may change while the server runs."""

    @property
    def name(self) -> str:
        """What its tools have as their `ToolSpec.source`: `host:weather`."""
        ...

    @property
    def prefix(self) -> str:
        """What the names of all its tools begin with: `weather_`."""
        ...

    async def serve(self, publish: Publish) -> None:
        """Publish all tools of the source when they are known and whenever they change, until this is cancelled.

        Publishes as soon as the first attempt has ended, no tools where it failed: the server's start waits for that.
        A source that cannot be reached for a while keeps its tools; their calls fail.
        """
        ...

    def forget(self, user_id: str) -> None:
        """Drop what is kept for a user, who is being erased; connections of his own, and their secrets."""
        ...


@asynccontextmanager
async def published(sources: Sequence[ToolSource], registry: ToolRegistry) -> AsyncIterator[None]:
    """Let the sources publish while the block lasts, which begins when each has tried once, or after a while."""
    tried = {source.name: asyncio.Event() for source in sources}
    tasks = [asyncio.create_task(_serve(source, registry, tried[source.name])) for source in sources]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(START_PATIENCE_S):
                await asyncio.gather(*(each.wait() for each in tried.values()))
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(source: ToolSource, registry: ToolRegistry, tried: asyncio.Event) -> None:
    def publish(tools: Sequence[Tool]) -> None:
        registry.publish(source.name, tools)
        tried.set()

    try:
        await source.serve(publish)
    except Exception as error:  # noqa: BLE001  # a fault in it takes nothing else with it
        _log.error("tool_source_failed", source=source.name, exc_info=error)
    finally:
        tried.set()
