"""Calls that are made again before the model hears of them, and the time all tools of a run have."""

import asyncio
import json
from collections.abc import Iterator

import pytest
import structlog
from parley_server.domain.tool import CallsMade, ToolCallStatus, ToolEffect
from parley_server.tools import retries
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.errors import ToolError
from parley_server.tools.limits import CallLimits
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, ToolContext
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import Counting, a_call, check, error_of, hang, run
from unit.tools.user_context import context_of

READ, IDEMPOTENT, WRITE = ToolEffect.READ, ToolEffect.IDEMPOTENT, ToolEffect.WRITE
BUSY = ToolError("busy", "Busy.", retryable=True)


class Failing:
    """A behaviour that raises each of these errors once, and then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.contexts: list[ToolContext] = []

    async def __call__(self, context: ToolContext, arguments: JsonObject) -> object:
        self.contexts.append(context)
        if self._errors:
            raise self._errors.pop(0)
        return arguments


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait for little between tries, and write no tracebacks, which take longer than all the rest."""
    monkeypatch.setattr(retries, "FIRST_CEILING_S", 0.001)
    with structlog.testing.capture_logs():
        yield


@pytest.mark.parametrize("effect", [READ, IDEMPOTENT])
@pytest.mark.parametrize("error", [BUSY, RuntimeError("broken"), asyncio.CancelledError(), SystemExit()])
async def test_what_may_work_the_next_time_is_tried_again_as_the_same_call(
    effect: ToolEffect, error: BaseException
) -> None:
    failing = Failing(error, error)
    [result] = await run([made_tool("try", failing, effect=effect, max_retries=2)], [a_call(1, "try")], RunSink())
    assert result.status is ToolCallStatus.OK
    assert len(failing.contexts) == 3
    assert len({(each.idempotency_key, each.deadline, each.call_id) for each in failing.contexts}) == 1


@pytest.mark.parametrize(
    ("effect", "max_retries", "tries"), [(READ, 0, 1), (READ, 1, 2), (READ, 9, 3), (WRITE, 2, 1), (IDEMPOTENT, 2, 3)]
)
async def test_a_call_is_tried_three_times_at_most_and_a_write_once(
    effect: ToolEffect, max_retries: int, tries: int
) -> None:
    failing, sink = Failing(*[BUSY] * 9), RunSink()
    tool = made_tool("try", failing, effect=effect, max_retries=max_retries)
    [result] = await run([tool], [a_call(1, "try")], sink)
    assert (len(failing.contexts), error_of(result)["code"]) == (tries, "busy")


async def test_an_error_that_stays_is_told_at_once() -> None:
    failing = Failing(ToolError("no_such_city", "There is none."))
    [result] = await run([made_tool("try", failing, max_retries=2)], [a_call(1, "try")], RunSink())
    assert (len(failing.contexts), error_of(result)["code"]) == (1, "no_such_city")


async def test_all_tries_share_the_calls_time() -> None:
    tries = 0

    async def slow(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        nonlocal tries
        tries += 1
        if tries == 1:
            raise BUSY
        return await asyncio.Event().wait()

    [result] = await run([made_tool("try", slow, timeout_s=0.05, max_retries=2)], [a_call(1, "try")], RunSink())
    assert (tries, result.status) == (2, ToolCallStatus.TIMED_OUT)


async def test_a_cancel_ends_the_wait_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_CEILING_S", 1e9)
    failing = Failing(BUSY, BUSY)
    manager = ToolCallManager(ToolRegistry([made_tool("try", failing, max_retries=2, timeout_s=600)]))
    plan = manager.plan(context_of(), "run_1", [a_call(1, "try")], ["try"])
    # A wait that would outlast the call's time is none.
    [result] = await manager.run(context_of(), plan, RunSink())
    assert (len(failing.contexts), error_of(result)["code"]) == (1, "busy")
    monkeypatch.setattr(retries, "FIRST_CEILING_S", 200.0)
    plan = manager.plan(context_of(), "run_1", [a_call(2, "try")], ["try"])
    task = asyncio.create_task(manager.run(context_of(), plan, RunSink()))
    await asyncio.sleep(0.01)
    task.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_tools_of_a_run_have_so_much_time_and_what_is_left_over_is_not_begun() -> None:
    sink = RunSink()
    tools = ToolRegistry([made_tool("hang", hang, timeout_s=60), made_tool("echo")])
    manager = ToolCallManager(tools, limits=CallLimits(parallel_calls=2, tool_time_s=0.05))
    so_far = manager.so_far()
    calls = [a_call(0, "hang"), a_call(1, "hang"), a_call(2, "echo")]
    plan = manager.plan(context_of(), "run_1", calls, tools.names, so_far=so_far)
    results = await manager.run(context_of(), plan, sink)
    check(calls, results, sink)
    assert [each.status for each in results] == [ToolCallStatus.TIMED_OUT] * 3
    assert [each.error_code for each in results] == ["timeout", "timeout", "tool_time_used_up"]
    plan = manager.plan(context_of(), "run_1", [a_call(3, "echo")], tools.names, so_far=so_far)
    [result] = await manager.run(context_of(), plan, RunSink())
    assert (result.status, result.error_code) == (ToolCallStatus.TIMED_OUT, "tool_time_used_up")


async def test_what_comes_behind_when_the_time_is_over_is_not_begun_though_a_place_is_free() -> None:
    counting, sink = Counting(), RunSink()
    tools = ToolRegistry(
        [made_tool("hang", hang, timeout_s=60, sequential=True), made_tool("book", counting, effect=WRITE)]
    )
    manager = ToolCallManager(tools, limits=CallLimits(tool_time_s=0.02))
    calls = [a_call(0, "hang"), a_call(1, "book")]
    results = await manager.run(context_of(), manager.plan(context_of(), "run_1", calls, tools.names), sink)
    assert [each.error_code for each in results] == ["timeout", "tool_time_used_up"]
    assert not counting.contexts
    assert not sink.is_dispatched("call_1")


@pytest.mark.parametrize(("used_s", "code"), [(0.0, ""), (299.0, ""), (300.0, "tool_time_used_up")])
async def test_the_time_of_earlier_attempts_counts(used_s: float, code: str) -> None:
    manager = ToolCallManager(ToolRegistry([made_tool("echo")]))
    so_far = manager.so_far(CallsMade(tool_time_s=used_s))
    plan = manager.plan(context_of(), "run_1", [a_call(1, "echo")], ["echo"], so_far=so_far)
    [result] = await manager.run(context_of(), plan, RunSink())
    assert result.error_code == code
    assert json.loads(result.result_json)["ok"] == (not code)
