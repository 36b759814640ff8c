"""Tool hosts that come and go, change and refuse: the tools that agents have, and what a call comes to meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
import structlog
from parley_server.domain.tool import ToolCallStatus, ToolResult
from parley_server.tools import retries, source
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.source import published
from unit.tools.remote.raw_host import (
    IDEMPOTENT,
    READ,
    WRITE,
    RawHost,
    Received,
    a_tool,
    ends_with,
    progress,
    result,
    source_of,
    there,
    tools_of,
    until,
)
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import a_call, run

OK, ERROR = ToolCallStatus.OK, ToolCallStatus.ERROR


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_CEILING_S", 0.001)


async def ask(registry: ToolRegistry, name: str = "h_do") -> ToolResult:
    [told] = await run([await there(registry, name)], [a_call(1, name)], RunSink())
    return told


async def until_ok(registry: ToolRegistry, name: str = "h_do") -> None:
    """Call until it works; whatever comes before must be harmless."""
    async with asyncio.timeout(20):
        while (told := await ask(registry, name)).status is not OK:
            assert (told.status, told.error_code) == (ERROR, "unavailable")
            await asyncio.sleep(0.02)


@asynccontextmanager
async def registry_of(host: RawHost, **settings: object) -> AsyncIterator[ToolRegistry]:
    """Yield a registry with the host as its source, whether the host runs or not."""
    registry = ToolRegistry()
    async with published([source_of(host, **settings)], registry):
        yield registry


@pytest.mark.parametrize("has_health", [False, True])
async def test_a_host_that_is_down_at_the_start_is_no_obstacle_and_comes_later(has_health: bool) -> None:
    host = RawHost(has_health=has_health)
    await host.start()
    await host.stop()
    began = asyncio.get_running_loop().time()
    async with registry_of(host, refresh_s=1) as registry:
        assert asyncio.get_running_loop().time() - began < source.START_PATIENCE_S
        assert registry.names == ()
        await host.start()
        assert (await ask(registry)).status is OK
        await host.stop()


@pytest.mark.parametrize("has_health", [False, True])
async def test_a_host_that_starts_again_has_its_new_tools(has_health: bool) -> None:
    host = RawHost(has_health=has_health)
    async with tools_of(host, refresh_s=1) as registry:
        assert (await ask(registry)).status is OK
        await host.stop()
        told = await ask(registry)
        assert (told.status, told.error_code) == (ERROR, "unavailable")
        assert registry.names == ("h_do",)
        host.tools = [a_tool(), a_tool("more")]
        await host.start()
        assert (await ask(registry, "h_more")).status is OK
        await until_ok(registry)


async def test_what_dies_while_it_works_is_told_by_what_it_does_to_the_world() -> None:
    host = RawHost(a_tool("read", READ), a_tool("repeat", IDEMPOTENT, max_retries=2), a_tool("write", WRITE))

    async def die(received: Received) -> AsyncIterator[bytes]:  # noqa: ARG001
        yield progress("half")
        await host.stop()
        yield result("1")

    host.behaviour = die
    async with tools_of(host) as registry:
        for name, status in (("read", ERROR), ("repeat", ERROR), ("write", ToolCallStatus.UNKNOWN_OUTCOME)):
            told = await ask(registry, f"h_{name}")
            assert told.status is status, told
            await host.start()
            host.tools = [*host.tools, a_tool(f"after_{name}")]
            await there(registry, f"h_after_{name}")
    # The one that may be repeated was, and met nobody: nothing was sent twice.
    assert [each.request.name for each in host.received] == ["read", "repeat", "write"]


async def test_a_repeated_call_has_the_key_of_the_first() -> None:
    host = RawHost(a_tool(effect=IDEMPOTENT, max_retries=2), behaviour=ends_with(grpc.StatusCode.UNAVAILABLE))
    async with tools_of(host) as registry:
        await ask(registry)
        first, *others = [each.request for each in host.received]
        assert [each.idempotency_key for each in others] == [first.idempotency_key] * 2
        assert len(first.idempotency_key) == 64
        assert (first.run_id, first.call_id, first.name, first.arguments_json) == ("run_1", "call_1", "do", '{"n":1}')


async def test_a_tool_that_has_changed_is_not_called_and_is_described_anew() -> None:
    host = RawHost(a_tool(effect=WRITE))
    async with tools_of(host) as registry:
        before = await there(registry, "h_do")
        host.tools = [a_tool(effect=WRITE, spec_hash="2", description="Does another thing.")]
        told = await ask(registry)
        assert (told.status, told.error_code) == (ERROR, "tool_changed")
        await until(lambda: registry.get("h_do") is not before)
        assert (await there(registry, "h_do")).spec.description == "Does another thing."
        assert (await ask(registry)).status is OK


async def test_what_a_host_has_changed_is_seen_in_time_without_a_call() -> None:
    host = RawHost()
    async with tools_of(host, refresh_s=1) as registry:
        host.tools = [a_tool("new")]
        await there(registry, "h_new")
        assert list(registry.names) == ["h_new"]


async def test_a_host_that_is_not_serving_is_not_called() -> None:
    host = RawHost()
    async with tools_of(host, refresh_s=1) as registry:
        await until_ok(registry)
        calls = len(host.received)
        with structlog.testing.capture_logs() as logs:
            await host.set_serving(False)
            await until(lambda: bool(logs))
            told = await ask(registry)
            assert (told.status, told.error_code, len(host.received)) == (ERROR, "unavailable", calls)
            # It is asked for its tools all the while, and that it answers does not mean that it serves.
            described = host.described
            await until(lambda: host.described > described)
            await host.set_serving(True)
            await until_ok(registry)
        assert [(line["event"], line["source"]) for line in logs] == [
            ("tool_host_down", "host:h"),
            ("tool_host_up", "host:h"),
        ]


async def test_a_wrong_token_is_told_in_the_log_without_it() -> None:
    host = RawHost()
    with structlog.testing.capture_logs() as logs:
        async with tools_of(host, token="wr0ng") as registry:
            assert registry.names == ()
            # It is tried again and again, and told once.
            await asyncio.sleep(0.5)
    down = [line for line in logs if line["event"] == "tool_host_down"]
    assert [line["problem"] for line in down] == ["UNAUTHENTICATED: who are you"]
    assert "wr0ng" not in str(logs)


async def test_a_host_that_is_none_is_told_apart() -> None:
    async def dropped(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(dropped, "127.0.0.1", 0)
    host = RawHost()
    host.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with structlog.testing.capture_logs() as logs:
        async with server, registry_of(host) as registry:
            assert registry.names == ()
    assert "tool_host_down" in {line["event"] for line in logs}


async def test_only_what_the_operator_allows_is_there_under_his_prefix() -> None:
    host = RawHost(a_tool("a"), a_tool("b"))
    async with tools_of(host, allowed=["b"], prefix="") as registry:
        assert registry.names == ("b",)
        assert (await ask(registry, "b")).status is OK
        assert (await there(registry, "b")).spec.source == "host:h"


async def test_nobody_waits_while_large_schemas_are_checked() -> None:
    schema = json.dumps({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1500)}})
    host = RawHost(*(a_tool(f"do{n}", input_schema_json=schema) for n in range(3)))
    starting = asyncio.create_task(_names_of(host))
    await until(lambda: host.described > 0)
    turns = 0
    while not starting.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert await starting == ("h_do0", "h_do1", "h_do2")
    assert turns > 25


async def _names_of(host: RawHost) -> tuple[str, ...]:
    async with tools_of(host) as registry:
        return registry.names
