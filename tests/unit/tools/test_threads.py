"""Tools that block: each in a thread, and only so many of them."""

import asyncio
import contextvars
import threading
from collections.abc import Iterator

import pytest
from parley_server.domain.run_event import ToolCallProgress
from parley_server.domain.tool import ToolCallStatus, ToolEffect
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.errors import ToolError
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.threads import ToolThreads
from parley_server.tools.tool import Tool, ToolContext, tool
from pydantic import BaseModel, ConfigDict
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import a_call, error_of, run, statuses
from unit.tools.user_context import context_of

LOCALE: contextvars.ContextVar[str] = contextvars.ContextVar("locale")


class Number(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Return what lets the blocked threads of a test end."""
    event = threading.Event()
    yield event
    event.set()


@tool(effect=ToolEffect.READ)
def twice(context: ToolContext, arguments: Number) -> Number:
    """Double a number."""
    context.progress("counting")
    if arguments.n < 0:
        raise ToolError("negative", "The number is negative.")
    return Number(n=2 * arguments.n)


def blocking(release: threading.Event, *, timeout_s: float = 5.0, effect: ToolEffect = ToolEffect.READ) -> Tool:
    @tool(effect=effect, timeout_s=timeout_s)
    def block(context: ToolContext, arguments: Number) -> Number:  # noqa: ARG001
        """Wait."""
        release.wait()
        return arguments

    return block


async def until_free(threads: ToolThreads) -> None:
    """Wait until nothing is stuck; a thread tells its end by itself."""
    async with asyncio.timeout(10):
        while threads.stuck:  # noqa: ASYNC110  # the end is no event of anybody's
            await asyncio.sleep(0.001)


async def test_a_function_is_a_tool_as_a_coroutine_is() -> None:
    results = await run([twice], [a_call(4, "twice"), a_call(-1, "twice"), a_call(1, "twice", "{}")], RunSink())
    assert statuses(results) == [ToolCallStatus.OK, ToolCallStatus.ERROR, ToolCallStatus.INVALID_ARGUMENTS]
    assert results[0].result_json == '{"ok":true,"result":{"n":8}}'
    assert error_of(results[1])["code"] == "negative"


async def test_a_function_runs_beside_the_event_loop_and_can_be_heard() -> None:
    sink, threads = RunSink(), set[int]()

    @tool(effect=ToolEffect.READ)
    def look(context: ToolContext, arguments: Number) -> Number:
        """Look."""
        context.progress("looking", 0.5)
        heard = asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop)
        heard.result(timeout=10)
        threads.add(threading.get_ident())
        return arguments

    loop = asyncio.get_running_loop()
    await run([look], [a_call(1, "look")], sink)
    assert sink.bodies(ToolCallProgress) == [ToolCallProgress("call_1", "looking", 0.5)]
    assert threads.isdisjoint({threading.get_ident()})


async def test_a_thread_has_the_callers_context_variables_and_cannot_change_them() -> None:
    def look() -> str:
        found = LOCALE.get()
        LOCALE.set("changed")
        return found

    LOCALE.set("de")
    assert await ToolThreads().run(look, name="look", timeout_s=5.0) == "de"
    assert LOCALE.get() == "de"


@pytest.mark.parametrize("error", [StopIteration(), SystemExit(1), KeyError("secret")])
async def test_whatever_a_function_raises_ends_its_call_alone(error: BaseException) -> None:
    @tool(effect=ToolEffect.READ)
    def fail(context: ToolContext, arguments: Number) -> Number:  # noqa: ARG001
        """Fail."""
        raise error

    [result] = await run([fail], [a_call(1, "fail")], RunSink())
    assert error_of(result)["code"] == "internal"
    assert "secret" not in result.result_json


async def test_a_timed_out_thread_keeps_its_place_until_it_ends(release: threading.Event) -> None:
    threads = ToolThreads(1)
    tools = [blocking(release, timeout_s=0.05), twice]
    manager = ToolCallManager(ToolRegistry(tools), threads)

    async def call(number: int, name: str) -> ToolCallStatus:
        plan = manager.plan(context_of(), "run_1", [a_call(number, name)], [tool.spec.name for tool in tools])
        [result] = await manager.run(context_of(), plan, RunSink())
        if result.error_code == "unavailable":
            assert error_of(result)["retryable"] is True
        return result.status

    assert await call(1, "block") is ToolCallStatus.TIMED_OUT
    assert threads.stuck == 1
    assert await call(2, "block") is ToolCallStatus.ERROR
    assert threads.stuck == 1
    release.set()
    await until_free(threads)
    assert await call(3, "twice") is ToolCallStatus.OK


async def test_a_call_gets_the_place_that_becomes_free_in_time(release: threading.Event) -> None:
    threads = ToolThreads(1)
    first = asyncio.create_task(threads.run(release.wait, name="first", timeout_s=60))
    second = asyncio.create_task(threads.run(lambda: 2, name="second", timeout_s=60))
    await asyncio.sleep(0.01)
    assert not second.done()
    release.set()
    assert (await first, await second) == (True, 2)


async def test_without_a_place_nothing_happens_and_the_model_may_try_again(release: threading.Event) -> None:
    threads, happened = ToolThreads(1), list[int]()
    first = asyncio.create_task(threads.run(release.wait, name="first", timeout_s=60))
    await asyncio.sleep(0)
    with pytest.raises(ToolError) as busy:
        await threads.run(lambda: happened.append(1), name="second", timeout_s=0.02)
    assert (busy.value.code, busy.value.retryable, happened) == ("unavailable", True, [])
    release.set()
    await first


async def test_a_cancelled_run_does_not_wait_for_the_thread_of_a_read(release: threading.Event) -> None:
    threads = ToolThreads()
    manager = ToolCallManager(ToolRegistry([blocking(release)]), threads)
    task = asyncio.create_task(
        manager.run(context_of(), manager.plan(context_of(), "run_1", [a_call(1, "block")], ["block"]), RunSink())
    )
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert threads.stuck == 1
    release.set()
    await until_free(threads)


async def test_a_thread_may_outlive_its_event_loop(release: threading.Event) -> None:
    escaped: list[threading.Thread] = []

    def block() -> None:
        escaped.append(threading.current_thread())
        release.wait()

    async def abandon() -> None:
        task = asyncio.create_task(ToolThreads().run(block, name="block", timeout_s=60))
        while not escaped:  # noqa: ASYNC110  # set in a thread
            await asyncio.sleep(0.001)
        task.cancel()

    await asyncio.to_thread(asyncio.run, abandon())
    release.set()
    await asyncio.to_thread(escaped[0].join, 10)
    assert not escaped[0].is_alive()
    assert escaped[0].daemon
