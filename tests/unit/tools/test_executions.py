"""What a crash or a cancel may find of a turn: nothing happens unwritten or twice, and a WRITE gets its time."""

import asyncio
from dataclasses import replace

import pytest
from parley_server.domain.run_event import MessageCompleted, ToolCallFinished, ToolCallStarted
from parley_server.domain.tool import CallRecord, CallState, ToolCallStatus, ToolEffect, UnansweredCall
from parley_server.tools import executions
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.fingerprint import fingerprint, idempotency_key
from parley_server.tools.limits import MAX_PARALLEL_CALLS
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, Tool, ToolContext
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import Counting, a_call, hang, run
from unit.tools.user_context import context_of

READ, IDEMPOTENT, WRITE = ToolEffect.READ, ToolEffect.IDEMPOTENT, ToolEffect.WRITE


def an_unanswered_call(number: int, name: str, effect: ToolEffect, state: CallState) -> UnansweredCall:
    call = a_call(number, name)
    key = idempotency_key("run_1", call.call_id, fingerprint(name, {"n": number}))
    return UnansweredCall(call, CallRecord(call.call_id, f"item_{number}", name, effect, state, "f", key))


async def resume(tools: list[Tool], *unanswered: UnansweredCall) -> RunSink:
    sink = RunSink()
    await ToolCallManager(ToolRegistry(tools)).resume(context_of(), "run_1", unanswered, sink)
    assert sink.bodies(ToolCallStarted) == []
    assert sink.durable == len(sink.events)
    return sink


async def test_a_turn_is_told_and_journaled_in_one_commit_with_what_the_model_said() -> None:
    sink, manager = RunSink(), ToolCallManager(ToolRegistry([made_tool("echo")]))
    calls = [a_call(1, "echo"), a_call(2, "nowhere")]
    said = (MessageCompleted("Let me look."), "item_0")
    await manager.run(context_of(), manager.plan(context_of(), "run_1", calls, ["echo"]), sink, [said])
    first, *_ = sink.commits
    kinds = [MessageCompleted, ToolCallStarted, ToolCallStarted, ToolCallFinished]
    assert [type(body) for body in first] == kinds
    assert {call_id: record.state for call_id, record in sink.journal.items()} == {
        "call_1": CallState.DISPATCHED,
        "call_2": CallState.PLANNED,
    }


async def test_every_tool_is_dispatched_durably_before_it_begins() -> None:
    sink = RunSink()
    dispatched: list[bool] = []

    async def look(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        dispatched.append(sink.is_dispatched(context.call_id))
        await asyncio.sleep(0.001)
        return None

    count = MAX_PARALLEL_CALLS * 2 + 1
    await run([made_tool("look", look, effect=WRITE)], [a_call(n, "look") for n in range(count)], sink)
    assert dispatched == [True] * count


@pytest.mark.parametrize("heeds", [True, False], ids=["in time", "too late"])
async def test_a_cancel_waits_for_a_write_alone_and_only_so_long(heeds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "WRITE_GRACE_S", 5.0 if heeds else 0.02)
    begun = asyncio.Event()

    async def book(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        begun.set()
        await context.cancelled.wait()
        await (asyncio.sleep(0) if heeds else asyncio.Event().wait())
        return "booked"

    sink = RunSink()
    tools = [made_tool("book", book, effect=WRITE), made_tool("read", hang), made_tool("put", hang, effect=IDEMPOTENT)]
    manager = ToolCallManager(ToolRegistry(tools))
    calls = [a_call(n, name) for n, name in enumerate(("book", "read", "put"))]
    task = asyncio.create_task(
        manager.run(context_of(), manager.plan(context_of(), "run_1", calls, [tool.spec.name for tool in tools]), sink)
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {call_id: body.status for call_id, body in sink.finished().items()} == (
        {"call_0": ToolCallStatus.OK} if heeds else {}
    )


async def test_a_cancel_lets_no_write_begin_that_has_not() -> None:
    counting = Counting()
    release = asyncio.Event()

    async def wait(context: ToolContext, arguments: JsonObject) -> object:
        await release.wait()
        return await counting(context, arguments)

    sink, manager = (
        RunSink(),
        ToolCallManager(ToolRegistry([made_tool("wait", wait, effect=WRITE, per_user_concurrency=8)])),
    )
    calls = [a_call(n, "wait") for n in range(MAX_PARALLEL_CALLS + 4)]
    task = asyncio.create_task(manager.run(context_of(), manager.plan(context_of(), "run_1", calls, ["wait"]), sink))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(counting.contexts) == MAX_PARALLEL_CALLS
    assert len(sink.finished()) == MAX_PARALLEL_CALLS


async def test_a_cancel_before_a_call_begins_takes_its_dispatch_back() -> None:
    counting = Counting()

    class Slow(RunSink):
        async def flush(self) -> None:
            await asyncio.sleep(0.01)
            await super().flush()

    sink, manager = Slow(), ToolCallManager(ToolRegistry([made_tool("count", counting, effect=WRITE)]))
    plan = manager.plan(context_of(), "run_1", [a_call(1, "count")], ["count"])
    task = asyncio.create_task(manager.run(context_of(), plan, sink))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await sink.flush()
    assert not counting.contexts
    assert sink.journal["call_1"].state is CallState.DISPATCHED
    assert not sink.is_dispatched("call_1")


@pytest.mark.parametrize("effect", list(ToolEffect))
@pytest.mark.parametrize("state", [CallState.PLANNED, CallState.DISPATCHED])
async def test_after_a_crash_a_call_is_done_or_done_again_but_a_write_in_doubt_never(
    effect: ToolEffect, state: CallState
) -> None:
    counting = Counting()
    unanswered = an_unanswered_call(1, "count", effect, state)
    sink = await resume([made_tool("count", counting, effect=effect)], unanswered)
    [finished] = sink.bodies(ToolCallFinished)
    in_doubt = effect is WRITE and state is CallState.DISPATCHED
    assert finished.status is (ToolCallStatus.UNKNOWN_OUTCOME if in_doubt else ToolCallStatus.OK)
    assert [context.idempotency_key for context in counting.contexts] == (
        [] if in_doubt else [unanswered.record.idempotency_key]
    )
    assert [item_id for item_id, _ in sink.events] == ["item_1"]


async def test_the_model_is_told_not_to_repeat_what_is_in_doubt() -> None:
    sink, manager = RunSink(), ToolCallManager(ToolRegistry([made_tool("book", effect=WRITE)]))
    unanswered = an_unanswered_call(1, "book", WRITE, CallState.DISPATCHED)
    await manager.resume(context_of(), "run_1", [unanswered], sink)
    [finished] = sink.bodies(ToolCallFinished)
    assert (finished.error_code, "may or may not" in finished.error_message) == ("unknown_outcome", True)


@pytest.mark.parametrize(("was", "is_now"), [(WRITE, READ), (READ, WRITE)])
async def test_a_tool_that_was_or_is_a_write_counts_as_one(was: ToolEffect, is_now: ToolEffect) -> None:
    counting = Counting()
    sink = await resume(
        [made_tool("count", counting, effect=is_now)], an_unanswered_call(1, "count", was, CallState.DISPATCHED)
    )
    assert [body.status for body in sink.bodies(ToolCallFinished)] == [ToolCallStatus.UNKNOWN_OUTCOME]
    assert counting.contexts == []


async def test_a_read_asked_for_twice_is_repeated_once() -> None:
    counting = Counting()
    first = an_unanswered_call(1, "count", READ, CallState.DISPATCHED)
    second = replace(
        first, call=replace(first.call, call_id="call_2"), record=replace(first.record, call_id="call_2", item_id="i2")
    )
    sink = await resume([made_tool("count", counting)], first, second)
    assert sink.finished().keys() == {"call_1", "call_2"}
    assert len(counting.contexts) == 1


@pytest.mark.parametrize("effect", list(ToolEffect))
@pytest.mark.parametrize("state", [CallState.PLANNED, CallState.DISPATCHED])
async def test_a_call_whose_tool_is_gone_is_answered_by_what_is_known_of_it(
    effect: ToolEffect, state: CallState
) -> None:
    counting = Counting()
    sink = await resume(
        [made_tool("count", counting)],
        an_unanswered_call(1, "count", READ, CallState.PLANNED),
        an_unanswered_call(2, "gone", effect, state),
    )
    may_have_happened = state is CallState.DISPATCHED and effect is not READ
    assert sink.finished()["call_2"].error_code == ("unknown_outcome" if may_have_happened else "unavailable")
    assert len(counting.contexts) == 1
