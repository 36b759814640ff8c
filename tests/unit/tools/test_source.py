"""Sources of tools: when a start goes on, and what a broken one takes with it."""

import asyncio
from dataclasses import dataclass

import pytest
import structlog
from parley_server.tools import source as source_module
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.source import Publish, published
from unit.tools.made_tools import made_tool


@dataclass
class Told:
    """Publishes what it is told to, when it is told to."""

    name: str
    wanted: "asyncio.Queue[list[str]]"
    prefix: str = ""

    async def serve(self, publish: Publish) -> None:
        while True:
            publish([made_tool(name) for name in await self.wanted.get()])

    def forget(self, user_id: str) -> None:
        """Keep nothing of anybody."""


class Broken:
    """Has a fault."""

    name = "mcp:broken"
    prefix = ""

    async def serve(self, publish: Publish) -> None:
        raise RuntimeError(f"no {publish}")

    def forget(self, user_id: str) -> None:
        """Keep nothing of anybody."""


async def test_a_start_waits_for_the_first_attempt_of_every_source() -> None:
    registry = ToolRegistry()
    sources = [Told("host:a", asyncio.Queue()), Told("host:b", asyncio.Queue())]
    for place, each in enumerate(sources):
        asyncio.get_running_loop().call_later(0.01 * place, each.wanted.put_nowait, [each.name])
    async with published(sources, registry):
        assert list(registry.names) == ["host:a", "host:b"]
        sources[0].wanted.put_nowait([])
        await asyncio.sleep(0.01)
        assert list(registry.names) == ["host:b"]


async def test_a_start_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "START_PATIENCE_S", 0.01)
    registry = ToolRegistry()
    late = Told("host:late", asyncio.Queue())
    async with published([late], registry):
        assert list(registry.names) == []
        late.wanted.put_nowait(["at_last"])
        await asyncio.sleep(0.01)
        assert list(registry.names) == ["at_last"]


async def test_a_broken_source_takes_nothing_else_with_it() -> None:
    registry = ToolRegistry()
    sound = Told("host:sound", asyncio.Queue())
    sound.wanted.put_nowait(["sound"])
    with structlog.testing.capture_logs() as logs:
        async with published([Broken(), sound], registry):
            assert list(registry.names) == ["sound"]
    assert [(line["event"], line["source"]) for line in logs] == [("tool_source_failed", "mcp:broken")]
