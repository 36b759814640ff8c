"""The calls of a turn: told, written down before they happen, answered exactly once, whatever a tool does."""

import asyncio
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_server.domain.run_event import ToolCallStarted
from parley_server.domain.tool import ToolCallStatus, ToolEffect
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.errors import ToolError
from parley_server.tools.fingerprint import fingerprint, idempotency_key
from parley_server.tools.limits import MAX_CALLS_PER_TURN, MAX_PARALLEL_CALLS
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, ToolContext, tool
from pydantic import BaseModel, ConfigDict
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import SECRET, Counting, a_call, error_of, hang, raises, run, statuses
from unit.tools.user_context import context_of

Status = ToolCallStatus


async def test_results_come_in_call_order_and_answers_as_they_are_known() -> None:
    async def sleep(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        await asyncio.sleep(0.03 if arguments["n"] == 0 else 0)
        return arguments["n"]

    sink = RunSink()
    results = await run([made_tool("sleep", sleep)], [a_call(0, "sleep"), a_call(1, "sleep")], sink)
    assert [result.result_json for result in results] == ['{"ok":true,"result":0}', '{"ok":true,"result":1}']
    assert list(sink.finished()) == ["call_1", "call_0"]


async def test_everything_is_written_down_before_anything_happens() -> None:
    sink = RunSink()
    durable_at_dispatch: list[int] = []

    async def look(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
        durable_at_dispatch.append(sink.durable)
        return None

    await run([made_tool("look", look, effect=ToolEffect.WRITE)], [a_call(n, "look") for n in range(3)], sink)
    assert durable_at_dispatch == [3, 3, 3]


async def test_a_tool_learns_user_key_and_deadline_from_its_context() -> None:
    counting = Counting()
    before = asyncio.get_running_loop().time()
    await run([made_tool("count", counting, timeout_s=7.0)], [a_call(1, "count", '{"user_id":"mallory"}')], RunSink())
    [context] = counting.contexts
    assert (context.user_id, context.zone.key, context.run_id) == ("ann", "Europe/Berlin", "run_1")
    assert before + 7.0 <= context.deadline <= before + 8.0
    expected = idempotency_key("run_1", "call_1", fingerprint("count", {"user_id": "mallory"}))
    assert (context.call_id, context.idempotency_key) == ("call_1", expected)


async def test_at_most_eight_run_at_once_and_all_eight_do() -> None:
    counting = Counting()
    results = await run(
        [made_tool("count", counting, per_user_concurrency=32)],
        [a_call(n, "count") for n in range(MAX_CALLS_PER_TURN)],
        RunSink(),
    )
    assert set(statuses(results)) == {Status.OK}
    assert counting.most == MAX_PARALLEL_CALLS


async def test_of_a_thousand_calls_thirty_two_run() -> None:
    counting = Counting()
    results = await run([made_tool("count", counting)], [a_call(n, "count") for n in range(1000)], RunSink())
    assert statuses(results[:32]) == [Status.OK] * 32
    assert set(statuses(results[32:])) == {Status.TOO_MANY_CALLS}
    assert len(counting.contexts) == 32


@pytest.mark.parametrize("max_calls", [0, 2])
async def test_the_run_may_allow_fewer(max_calls: int) -> None:
    counting = Counting()
    results = await run(
        [made_tool("count", counting)], [a_call(n, "count") for n in range(3)], RunSink(), max_calls=max_calls
    )
    assert statuses(results) == [Status.OK] * max_calls + [Status.TOO_MANY_CALLS] * (3 - max_calls)
    assert len(counting.contexts) == max_calls


async def test_an_unknown_tool_is_answered_with_the_nearest_names() -> None:
    tools = [made_tool(name) for name in ("calculator", "current_time", "send_mail", "calendar", "weather")]
    sink = RunSink()
    [result] = await run(tools, [a_call(1, "calculater")], sink)
    assert result.status is Status.UNKNOWN_TOOL
    assert error_of(result)["code"] == "unknown_tool"
    assert str(error_of(result)["hint"]).startswith("Nearest tools: calculator, calendar, ")
    assert str(error_of(result)["hint"]).count(",") == 2


@pytest.mark.parametrize("name", ["send_mail", "c\u0430lculator", "", "x" * 100_000, "a\x00b\ud800"])
async def test_a_tool_outside_of_the_runs_own_is_unknown(name: str) -> None:
    counting = Counting()
    tools = [made_tool("calculator", counting), made_tool("send_mail", counting)]
    sink = RunSink()
    [result] = await run(tools, [a_call(1, name)], sink, allowed=["calculator"])
    assert result.status is Status.UNKNOWN_TOOL
    assert "send_mail" not in str(error_of(result).get("hint"))
    assert counting.contexts == []
    [started] = sink.bodies(ToolCallStarted)
    assert len(started.name) <= 256
    started.name.encode()


async def test_without_tools_every_call_is_unknown() -> None:
    manager = ToolCallManager(ToolRegistry())
    results = await manager.run(context_of(), manager.plan(context_of(), "run_1", [a_call(1, "x")], ()), RunSink())
    assert error_of(results[0])["hint"] == "There are no tools in this run."


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int


class OrderBook(BaseModel):
    model_config = ConfigDict(extra="forbid")
    orders: list[Order]


class Receipt(BaseModel):
    total: float


@tool(effect=ToolEffect.WRITE)
async def place_orders(context: ToolContext, arguments: OrderBook) -> Receipt:  # noqa: ARG001
    """Place orders."""
    return Receipt(total=sum(order.count for order in arguments.orders) or float("nan"))


@pytest.mark.parametrize(
    ("arguments_json", "told", "path"),
    [
        ('{"orders":[{"count":1},{"count":"many"}]}', '{"orders":[{"count":1},{"count":"many"}]}', "orders[1].count"),
        ('{"orders":[],"rush":true}', '{"orders":[],"rush":true}', "rush"),
        ('{"orders":', "{}", ""),
        ("[]", "{}", ""),
    ],
)
async def test_bad_arguments_are_answered_with_their_fields(arguments_json: str, told: str, path: str) -> None:
    sink = RunSink()
    [result] = await run([place_orders], [a_call(1, "place_orders", arguments_json)], sink)
    assert result.status is Status.INVALID_ARGUMENTS
    fields = error_of(result)["fields"]
    assert isinstance(fields, list)
    assert fields[0]["path"] == path
    assert fields[0]["problem"]
    assert sink.bodies(ToolCallStarted)[0].arguments_json == told


async def test_a_typed_tool_answers() -> None:
    [result] = await run([place_orders], [a_call(1, "place_orders", '{"orders":[{"count":2}]}')], RunSink())
    assert result.result_json == '{"ok":true,"result":{"total":2.0}}'


async def test_a_typed_result_that_is_not_json_is_an_error() -> None:
    [result] = await run([place_orders], [a_call(1, "place_orders", '{"orders":[]}')], RunSink())
    assert (result.status, result.error_code) == (Status.ERROR, "internal")


async def test_a_read_asked_for_twice_runs_once_and_answers_both() -> None:
    counting = Counting()
    calls = [a_call(1, "count", '{"a":1,"b":2}'), a_call(2, "count", '{"b":2, "a":1}'), a_call(3, "count", "{}")]
    results = await run([made_tool("count", counting)], calls, RunSink())
    assert statuses(results) == [Status.OK] * 3
    assert results[0].result_json == results[1].result_json
    assert len(counting.contexts) == 2


@pytest.mark.parametrize("effect", [ToolEffect.IDEMPOTENT, ToolEffect.WRITE])
async def test_an_effect_asked_for_twice_happens_once(effect: ToolEffect) -> None:
    counting = Counting()
    calls = [a_call(n, "count", '{"to":"ann"}') for n in range(3)]
    results = await run([made_tool("count", counting, effect=effect)], calls, RunSink())
    assert statuses(results) == [Status.OK, Status.DUPLICATE, Status.DUPLICATE]
    assert [result.original_call_id for result in results] == ["", "call_0", "call_0"]
    assert len(counting.contexts) == 1


NAMES = ["ok", "write", "fail", "slow", "refuse", "absent"]
ARGUMENTS = ['{"n":1}', '{"n":2}', "{}", "not json", "[]", '{"n":']


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(ARGUMENTS)), max_size=40), st.integers(0, 40))
async def test_every_call_is_answered_once_and_in_order(asked: list[tuple[str, str]], max_calls: int) -> None:
    async def refuse(context: ToolContext, arguments: JsonObject) -> NoReturn:  # noqa: ARG001
        raise ToolError("no", "No.")

    counting = Counting()
    tools = [
        made_tool("ok"),
        made_tool("write", counting, effect=ToolEffect.WRITE),
        raises(SystemExit(SECRET)),
        made_tool("slow", hang, timeout_s=0.005),
        made_tool("refuse", refuse),
    ]
    calls = [a_call(n, name, arguments) for n, (name, arguments) in enumerate(asked)]
    await run(tools, calls, RunSink(), max_calls=max_calls)
    written = {call.arguments_json for call in calls[: min(max_calls, 32)] if call.name == "write"}
    assert len(counting.contexts) == len(written & {'{"n":1}', '{"n":2}', "{}"})
