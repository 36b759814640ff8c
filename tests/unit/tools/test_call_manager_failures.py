"""ToolCallManager when tools fail: errors, time-outs, cancels, and results that are none."""

import asyncio
from collections.abc import Sequence
from typing import NoReturn

import pytest
from parley_server.domain.run_event import ItemEvent, ToolCallFinished
from parley_server.domain.tool import CallRecord, ToolCallStatus, ToolEffect
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.errors import ToolError
from parley_server.tools.limits import MAX_PARALLEL_CALLS
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, ToolContext
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import SECRET, a_call, error_of, hang, raises, run
from unit.tools.user_context import context_of

Status = ToolCallStatus


async def test_a_tool_error_reaches_the_model_in_its_own_words() -> None:
    async def refuse(context: ToolContext, arguments: JsonObject) -> NoReturn:  # noqa: ARG001
        raise ToolError("no_such_city", "There is no such city.", hint="Check the spelling.")

    [result] = await run([made_tool("refuse", refuse)], [a_call(1, "refuse")], RunSink())
    assert result.status is Status.ERROR
    assert error_of(result) == {
        "code": "no_such_city",
        "message": "There is no such city.",
        "retryable": False,
        "hint": "Check the spelling.",
    }


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(SECRET),
        asyncio.CancelledError(SECRET),
        SystemExit(SECRET),
        GeneratorExit(SECRET),
        TimeoutError(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        BaseExceptionGroup(SECRET, [SystemExit(SECRET)]),
        RecursionError(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_tool_raises_is_an_error_that_tells_nothing(error: BaseException) -> None:
    sink = RunSink()
    [result, other] = await run([raises(error), made_tool("echo")], [a_call(1, "fail"), a_call(2, "echo")], sink)
    assert (result.status, result.error_code, other.status) == (Status.ERROR, "internal", Status.OK)
    assert "err_" in result.error_message
    assert SECRET not in repr(sink.events)
    assert "Traceback" not in repr(sink.events)


async def test_a_tool_that_cancels_itself_ends_its_own_call() -> None:
    async def cancel_itself(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return None

    [result] = await run([made_tool("quit", cancel_itself)], [a_call(1, "quit")], RunSink())
    assert (result.status, result.error_code) == (Status.ERROR, "internal")


@pytest.mark.parametrize(
    "value",
    [float("nan"), b"", object(), (n for n in range(3)), {1: 2}, 10**5000],
    ids=lambda value: type(value).__name__,
)
async def test_a_result_that_is_not_json_is_an_error(value: object) -> None:
    async def give(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        return value

    [result] = await run([made_tool("give", give)], [a_call(1, "give")], RunSink())
    assert (result.status, result.error_code) == (Status.ERROR, "internal")


async def test_a_long_result_is_ok_and_truncated() -> None:
    async def much(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        return "x" * 100_000

    sink = RunSink()
    [result] = await run([made_tool("much", much)], [a_call(1, "much")], sink)
    assert (result.status, result.truncated) == (Status.OK, True)
    assert sink.finished()["call_1"].truncated


@pytest.mark.parametrize("effect", list(ToolEffect))
async def test_a_hanging_tool_times_out_and_only_a_write_may_not_be_retried(effect: ToolEffect) -> None:
    slow = made_tool("slow", hang, effect=effect, timeout_s=0.02)
    [result, other] = await run([slow, made_tool("echo")], [a_call(1, "slow"), a_call(2, "echo")], RunSink())
    assert (result.status, other.status) == (Status.TIMED_OUT, Status.OK)
    assert error_of(result)["code"] == "timeout"
    assert error_of(result)["retryable"] == (effect is not ToolEffect.WRITE)


async def test_a_tool_that_ignores_its_cancellation_holds_up_nobody() -> None:
    release = asyncio.Event()
    ended = asyncio.Event()

    async def stubborn(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return None

    async with asyncio.timeout(1):
        [result] = await run([made_tool("stubborn", stubborn, timeout_s=0.02)], [a_call(1, "stubborn")], RunSink())
        assert result.status is Status.TIMED_OUT
        release.set()
        await ended.wait()


@pytest.mark.parametrize("ignores", [False, True])
async def test_cancelling_the_run_cancels_its_tools_at_once_and_emits_nothing_more(ignores: bool) -> None:
    release = asyncio.Event()
    cancelled: list[str] = []

    async def notice(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        try:
            await release.wait()
        except asyncio.CancelledError:
            cancelled.append(context.call_id)
            if not ignores:
                raise
            await release.wait()
        return None

    sink = RunSink()
    manager = ToolCallManager(ToolRegistry([made_tool("notice", notice, per_user_concurrency=8)]))
    calls = [a_call(n, "notice") for n in range(12)]
    task = asyncio.create_task(manager.run(context_of(), manager.plan(context_of(), "run_1", calls, ["notice"]), sink))
    await asyncio.sleep(0.02)
    told = len(sink.events)
    task.cancel()
    async with asyncio.timeout(0.25):
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.01)
    assert sorted(cancelled) == sorted(f"call_{n}" for n in range(MAX_PARALLEL_CALLS))
    release.set()
    await asyncio.sleep(0.01)
    assert len(sink.events) == told == 12


async def test_a_log_that_fails_stops_the_tools() -> None:
    class FailingSink(RunSink):
        async def emit_all(self, events: Sequence[ItemEvent], calls: Sequence[CallRecord] = ()) -> None:
            if any(isinstance(body, ToolCallFinished) for body, _ in events):
                raise OSError("the store is gone")
            await super().emit_all(events, calls)

    stopped = asyncio.Event()

    async def notice(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        try:
            return await asyncio.Event().wait()
        finally:
            stopped.set()

    manager = ToolCallManager(ToolRegistry([made_tool("echo"), made_tool("notice", notice)]))
    calls = [a_call(1, "echo"), a_call(2, "notice")]
    with pytest.raises(OSError, match="gone"):
        await manager.run(context_of(), manager.plan(context_of(), "run_1", calls, ["echo", "notice"]), FailingSink())
    async with asyncio.timeout(1):
        await stopped.wait()
