"""How many calls are under way at once: in a run, of a tool for a user, beside a tool that wants to be alone."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from parley_server.domain.per_user import UserKey
from parley_server.domain.tool import CallState, ToolCallStatus, ToolEffect
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.limits import CallLimits
from parley_server.tools.places import Places, UserPlaces
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, ToolContext
from unit.tools.made_tools import MadeTool, made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import a_call, statuses
from unit.tools.user_context import context_of


class Gate:
    """A behaviour that waits until it is let go, and knows who is in it."""

    def __init__(self) -> None:
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.order: list[str] = []
        self.released = asyncio.Event()

    async def __call__(self, context: ToolContext, arguments: JsonObject) -> object:
        user = context.user_id
        self.order.append(f"+{context.tool_name}")
        self.inside[user] += 1
        self.most[user] = max(self.most[user], self.inside[user])
        try:
            await self.released.wait()
            await asyncio.sleep(0)
        finally:
            self.inside[user] -= 1
            self.order.append(f"-{context.tool_name}")
        return arguments

    async def wait_for(self, user: str, count: int) -> None:
        await until(lambda: self.inside[user] == count)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # what is waited for tells nobody
            await asyncio.sleep(0)


def begin(manager: ToolCallManager, name: str, count: int, user: str, sink: RunSink) -> asyncio.Task[object]:
    context = context_of(user)
    plan = manager.plan(context, f"run of {user}", [a_call(n, name) for n in range(count)], [name])
    return asyncio.create_task(manager.run(context, plan, sink))


async def test_a_user_has_so_many_calls_of_a_tool_over_all_runs_and_waits_for_no_other_user() -> None:
    gate = Gate()
    manager = ToolCallManager(ToolRegistry([made_tool("slow", gate, per_user_concurrency=3)]))
    sinks = [RunSink() for _ in range(4)]
    tasks = [begin(manager, "slow", 4, "ann", sink) for sink in sinks[:3]]
    await gate.wait_for("ann", 3)
    other = begin(manager, "slow", 2, "bob", sinks[3])
    await gate.wait_for("bob", 2)
    gate.released.set()
    await asyncio.gather(*tasks, other)
    assert gate.most == {"ann": 3, "bob": 2}
    assert all(len(sink.finished()) == len(sink.journal) for sink in sinks)
    assert len(manager._workshop.users) == 0


async def test_what_waits_for_a_place_is_not_called_dispatched_and_keeps_no_other_tool_waiting() -> None:
    gate, sink = Gate(), RunSink()
    manager = ToolCallManager(ToolRegistry([made_tool("slow", gate, effect=ToolEffect.WRITE), made_tool("quick")]))
    calls = [*(a_call(n, "slow") for n in range(12)), a_call(12, "quick")]
    task = asyncio.create_task(
        manager.run(context_of(), manager.plan(context_of(), "run_1", calls, ["slow", "quick"]), sink)
    )
    await gate.wait_for("ann", 4)
    dispatched = [call_id for call_id, record in sink.journal.items() if record.state is CallState.DISPATCHED]
    assert dispatched == ["call_0", "call_1", "call_2", "call_3", "call_12"]
    await until(lambda: "call_12" in sink.finished())
    assert not sink.is_dispatched("call_4")
    gate.released.set()
    assert set(statuses(await task)) == {ToolCallStatus.OK}


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_a_run_that_is_cancelled_leaves_its_places_to_others(cancelled: int) -> None:
    """Whether its calls are told yet, wait for places, or are under way."""
    gate = Gate()
    manager = ToolCallManager(ToolRegistry([made_tool("slow", gate, per_user_concurrency=2)]))
    task = begin(manager, "slow", 5, "ann", RunSink())
    if cancelled:
        await gate.wait_for("ann", 2)
    waiting = begin(manager, "slow", 5, "ann", RunSink())
    for _ in range(cancelled):
        await asyncio.sleep(0)
    for each in (task, waiting):
        each.cancel()
    await asyncio.gather(task, waiting, return_exceptions=True)
    await gate.wait_for("ann", 0)
    assert len(manager._workshop.users) == 0
    gate.released.set()
    async with asyncio.timeout(1):
        await begin(manager, "slow", 5, "ann", RunSink())


async def test_a_sequential_call_is_alone_between_those_before_it_and_those_behind_it() -> None:
    gate = Gate()
    gate.released.set()
    names = ["a", "b", "alone", "alone", "a", "alone", "b", "a"]
    tools = [made_tool("a", gate), made_tool("b", gate), made_tool("alone", gate, sequential=True)]
    manager = ToolCallManager(ToolRegistry(tools))
    calls = [a_call(n, name) for n, name in enumerate(names)]
    sink = RunSink()
    results = await manager.run(context_of(), manager.plan(context_of(), "run_1", calls, ["a", "b", "alone"]), sink)
    assert set(statuses(results)) == {ToolCallStatus.OK}
    text = " ".join(gate.order)
    assert text.startswith("+a +b -a -b +alone -alone +alone -alone +a -a +alone -alone +b +a")
    at_once = [call_id for call_id, record in sink.journal.items() if record.state is CallState.DISPATCHED]
    assert at_once == ["call_0", "call_1"]


async def test_the_limits_of_a_run_are_the_operators() -> None:
    gate = Gate()
    gate.released.set()
    tool: MadeTool = made_tool("slow", gate, per_user_concurrency=64)
    manager = ToolCallManager(ToolRegistry([tool]), limits=CallLimits(calls_per_turn=6, parallel_calls=2))
    calls = [a_call(n, "slow") for n in range(9)]
    results = await manager.run(context_of(), manager.plan(context_of(), "run_1", calls, ["slow"]), RunSink())
    assert [each.status for each in results] == [ToolCallStatus.OK] * 6 + [ToolCallStatus.TOO_MANY_CALLS] * 3
    assert gate.most["ann"] == 2


async def test_places_are_given_in_order_and_none_is_lost_by_who_gives_up() -> None:
    places = Places(1)
    assert places.take()
    order: list[int] = []

    async def wait(number: int) -> None:
        await places.wait()
        order.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert not places.take()
    tasks[0].cancel()
    places.leave()
    # It has the place, and gives up in the same moment.
    tasks[1].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == [2]
    for _ in range(3):
        places.leave()
        await asyncio.sleep(0)
    assert order == [2, 3, 4]
    assert places.is_idle
    assert places.take()


async def test_nothing_is_kept_of_users_without_calls() -> None:
    users, tool = UserPlaces(), made_tool("a", per_user_concurrency=1).spec
    for number in range(1000):
        user = UserKey(context_of(f"user{number}"))
        assert users.take(user, tool)
        users.leave(user, tool)
    assert len(users) == 0
    ann = UserKey(context_of("ann"))
    for gives_up_first in (True, False):
        assert users.take(ann, tool)
        waiting = asyncio.create_task(users.wait(ann, tool))
        await asyncio.sleep(0)
        for give_up in (gives_up_first, not gives_up_first):
            waiting.cancel() if give_up else users.leave(ann, tool)
        await asyncio.wait({waiting})
        assert len(users) == 0
