"""How far a call is: bounded events while it runs, and none after it."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.errors import StorageUnavailableError
from parley_server.domain.run_event import ItemEvent, ToolCallProgress
from parley_server.domain.tool import CallRecord
from parley_server.tools import progress
from parley_server.tools.progress import MAX_PROGRESS_CHARS, ProgressReports
from parley_server.tools.tool import JsonObject, ToolContext
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import a_call, run

CALLS = [("call_1", "item_1")]


class WatchedSink(RunSink):
    """A sink that tells when something came."""

    def __init__(self) -> None:
        super().__init__()
        self._came = asyncio.Event()

    async def emit_all(self, events: Sequence[ItemEvent], calls: Sequence[CallRecord] = ()) -> None:
        await super().emit_all(events, calls)
        self._came.set()

    async def next(self) -> None:
        await self._came.wait()
        self._came.clear()


async def emitted(*reports: tuple[str, float | None]) -> list[ToolCallProgress]:
    """Report all of them in a row, wait for one event, and return what was emitted."""
    sink = WatchedSink()
    async with ProgressReports(CALLS, sink.emit_all) as under_way:
        for message, fraction in reports:
            under_way.report(message, fraction)
        await sink.next()
    return sink.bodies(ToolCallProgress)


async def test_a_tool_that_tells_how_far_it_is_is_heard_before_its_result() -> None:
    async def report(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        context.progress("half", 0.5)
        await asyncio.sleep(0.01)
        return "done"

    sink = RunSink()
    await run([made_tool("report", report)], [a_call(1, "report")], sink)
    [event] = sink.bodies(ToolCallProgress)
    assert event == ToolCallProgress("call_1", "half", 0.5)
    assert [type(body).__name__ for _, body in sink.events] == [
        "ToolCallStarted",
        "ToolCallProgress",
        "ToolCallFinished",
    ]
    assert len({item_id for item_id, _ in sink.events}) == 1


async def test_a_read_that_answers_two_calls_tells_both_how_far_it_is() -> None:
    async def report(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        context.progress("half")
        await asyncio.sleep(0.01)
        return "done"

    sink = RunSink()
    await run([made_tool("report", report)], [a_call(1, "report", "{}"), a_call(2, "report", "{}")], sink)
    assert [event.call_id for event in sink.bodies(ToolCallProgress)] == ["call_1", "call_2"]


async def test_of_many_reports_at_once_the_newest_wins() -> None:
    assert await emitted(*((str(n), None) for n in range(1000))) == [ToolCallProgress("call_1", "999")]


async def test_every_interval_may_bring_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)
    sink = WatchedSink()
    async with ProgressReports(CALLS, sink.emit_all) as under_way:
        for count in range(1, 4):
            under_way.report(str(count))
            await sink.next()
    assert [event.message for event in sink.bodies(ToolCallProgress)] == ["1", "2", "3"]


async def test_nothing_is_emitted_after_the_end() -> None:
    sink = RunSink()
    async with ProgressReports(CALLS, sink.emit_all) as under_way:
        under_way.report("too late to be emitted")
    under_way.report("after the end")
    await asyncio.sleep(0.01)
    assert sink.events == []


async def test_a_thread_may_report() -> None:
    sink = WatchedSink()
    async with ProgressReports(CALLS, sink.emit_all) as under_way:
        thread = threading.Thread(target=under_way.report, args=("from a thread", 1))
        thread.start()
        await sink.next()
        thread.join()
    assert sink.bodies(ToolCallProgress) == [ToolCallProgress("call_1", "from a thread", 1.0)]


async def test_a_store_that_fails_is_not_passed_over() -> None:
    told = asyncio.Event()

    async def fail(events: Sequence[ItemEvent]) -> None:
        told.set()
        raise StorageUnavailableError(f"{len(events)} events are lost")

    async def report() -> None:
        async with ProgressReports(CALLS, fail) as under_way:
            under_way.report("half")
            await told.wait()

    with pytest.raises(StorageUnavailableError):
        await report()


@given(st.text(max_size=2 * MAX_PROGRESS_CHARS), st.none() | st.floats() | st.integers(-(10**400), 10**400))
async def test_whatever_a_tool_reports_fits_the_contract(message: str, fraction: float | None) -> None:
    [event] = await emitted((message, fraction))
    assert len(event.message) <= MAX_PROGRESS_CHARS
    assert "\x00" not in event.message
    event.message.encode()
    assert event.fraction is None or 0 <= event.fraction <= 1
