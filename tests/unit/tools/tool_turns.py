"""Turns of tool calls for the tests of ToolCallManager, and what must hold of every one of them."""

import asyncio
import json
from collections.abc import Sequence
from typing import NoReturn

from parley_server.domain.run_event import ToolCallStarted
from parley_server.domain.tool import ToolCall, ToolCallStatus, ToolResult
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, Tool, ToolContext
from unit.tools.made_tools import MadeTool, made_tool
from unit.tools.run_sink import RunSink
from unit.tools.user_context import context_of

Status = ToolCallStatus
SECRET = "db://admin:hunter2@10.0.0.1"


def a_call(number: int, name: str, arguments_json: str | None = None) -> ToolCall:
    arguments = json.dumps({"n": number}) if arguments_json is None else arguments_json
    return ToolCall(f"call_{number}", name, arguments)


async def run(
    tools: Sequence[Tool], calls: Sequence[ToolCall], sink: RunSink, *, allowed: Sequence[str] = (), max_calls: int = 32
) -> tuple[ToolResult, ...]:
    registry = ToolRegistry(tools)
    manager = ToolCallManager(registry)
    results = await manager.run(
        context_of(), manager.plan(context_of(), "run_1", calls, allowed or registry.names, max_calls), sink
    )
    check(calls, results, sink)
    return results


def check(calls: Sequence[ToolCall], results: Sequence[ToolResult], sink: RunSink) -> None:
    sink.check_calls()
    assert [result.call_id for result in results] == [call.call_id for call in calls]
    assert [body.call_id for body in sink.bodies(ToolCallStarted)] == [call.call_id for call in calls]
    assert sink.durable == len(sink.events)
    for result in results:
        finished = sink.finished()[result.call_id]
        assert (finished.status, finished.result_json) == (result.status, result.result_json)
        assert json.loads(result.result_json)["ok"] == (result.status is Status.OK)
        assert bool(result.error_code) == (result.status is not Status.OK)


def error_of(result: ToolResult) -> dict[str, object]:
    error: dict[str, object] = json.loads(result.result_json)["error"]
    return error


def statuses(results: Sequence[ToolResult]) -> list[ToolCallStatus]:
    return [result.status for result in results]


async def hang(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
    await asyncio.Event().wait()
    return None


class Counting:
    """A behaviour that counts how often it happens, and how often at once."""

    def __init__(self) -> None:
        self.contexts: list[ToolContext] = []
        self.running = 0
        self.most = 0

    async def __call__(self, context: ToolContext, arguments: JsonObject) -> object:
        self.contexts.append(context)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.005)
        self.running -= 1
        return arguments


def raises(error: BaseException) -> MadeTool:
    async def fail(context: ToolContext, arguments: JsonObject) -> NoReturn:  # noqa: ARG001
        raise error

    return made_tool("fail", fail)
