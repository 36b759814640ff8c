"""Duplicates within a turn, and a model that goes round in circles over its turns."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_server.domain.tool import CallsMade, ToolCall, ToolCallStatus, ToolEffect, ToolResult
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.repetition import MAX_TIMES, NOTED_TIMES, Repetition
from parley_server.tools.results import MAX_INLINE_BYTES
from parley_server.tools.tool import JsonObject, ToolContext
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import Counting, a_call, check, run, statuses
from unit.tools.user_context import context_of

READ, IDEMPOTENT, WRITE = ToolEffect.READ, ToolEffect.IDEMPOTENT, ToolEffect.WRITE


async def much(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001
    return "ä\x01" * 20_000


TOOLS = ToolRegistry([made_tool("look"), made_tool("poll", repeatable=True), made_tool("much", much)])


def a_named_call(call_id: str, text: str) -> ToolCall:
    name, _, argument = text.partition(" ")
    return ToolCall(call_id, name, json.dumps({"q": argument}))


async def play(turns: Sequence[Sequence[str]], restart_every: int = 1000) -> list[list[ToolResult]]:
    """Play turns of calls by their tools' names, up to the one that ends the run; forget all between some of them."""
    manager = ToolCallManager(TOOLS)
    so_far = manager.so_far()
    made: list[tuple[ToolCall, ...]] = []
    played: list[list[ToolResult]] = []
    for place, names in enumerate(turns):
        if place % restart_every == restart_every - 1:
            so_far = manager.so_far(CallsMade(tuple(made)))
        calls = [a_named_call(f"call_{place}_{number}", each) for number, each in enumerate(names)]
        made.append(tuple(calls))
        sink = RunSink()
        plan = manager.plan(context_of(), "run_1", calls, TOOLS.names, so_far=so_far)
        results = await manager.run(context_of(), plan, sink)
        check(calls, results, sink)
        played.append(list(results))
        if so_far.repetition.is_loop:
            break
    return played


def noted(played: Sequence[Sequence[ToolResult]]) -> list[int]:
    """Return the turns in which an answer carries a note, counted from 1."""
    return [place for place, results in enumerate(played, 1) if any('"note":' in each.result_json for each in results)]


@pytest.mark.parametrize("restart_every", [1000, 1, 2])
async def test_the_third_time_is_noted_and_the_fifth_the_end_also_over_restarts(restart_every: int) -> None:
    played = await play([["look a", f"look {n}"] for n in range(9)], restart_every)
    assert noted(played) == [3, 4, 5]
    assert [len(played), {each.error_code for each in played[-1]}] == [5, {"loop_detected"}]
    assert statuses(played[-1]) == [ToolCallStatus.DENIED] * 2
    told = json.loads(played[2][0].result_json)
    assert told["ok"] is True
    assert told["result"] == {"q": "a"}
    assert "3 times in a row" in told["note"]
    assert "note" not in json.loads(played[2][1].result_json)


@pytest.mark.parametrize("restart_every", [1000, 1, 3])
async def test_two_turns_that_alternate_are_a_loop_too(restart_every: int) -> None:
    played = await play([["look a"], ["look b"]] * 10, restart_every)
    assert (noted(played), len(played)) == ([5, 6, 7, 8, 9], 9)


@pytest.mark.parametrize(
    "turns",
    [
        [["look a"], ["look a"], ["look b"]] * 6,
        [["look test"] if n % 2 else [f"look edit {n}"] for n in range(20)],
    ],
    ids=["a pause", "progress between"],
)
async def test_calls_among_which_something_changes_are_no_loop(turns: list[list[str]]) -> None:
    played = await play(turns)
    assert (noted(played), len(played)) == ([], len(turns))


@pytest.mark.parametrize("turns", [[["poll a"]] * 20, [["poll a"], ["look a"]] * 10, [["poll a", "look x"]] * 2])
async def test_a_tool_that_may_be_repeated_is_no_loop(turns: list[list[str]]) -> None:
    played = await play(turns)
    assert (noted(played), len(played)) == ([], len(turns))


@pytest.mark.parametrize("call", ["nowhere a", "look \x00", "much a"])
async def test_calls_that_fail_or_say_much_are_counted_like_any_other(call: str) -> None:
    played = await play([[call]] * 9)
    assert (noted(played), len(played)) == ([3, 4, 5], 5)
    assert all(len(each.result_json.encode()) <= MAX_INLINE_BYTES for turn in played for each in turn)


TURNS = st.lists(st.frozensets(st.sampled_from("abc"), max_size=2), max_size=14)


@given(TURNS)
def test_times_are_those_of_the_rule(turns: list[frozenset[str]]) -> None:
    repetition = Repetition()
    for count, turn in enumerate(turns, 1):
        repetition.add(turn)
        newest = turns[max(count - 12, 0) : count][::-1]
        times = {each: max(in_a_row(newest, each), every_other(newest)) for each in turn}
        assert repetition.is_loop == any(count >= MAX_TIMES for count in times.values())
        assert {each for each in turn if repetition.note(each)} == {
            each for each, count in times.items() if count >= NOTED_TIMES
        }
        assert not repetition.note("never")


NAMED = st.lists(st.lists(st.sampled_from(["look a", "look b", "poll a"]), max_size=2), max_size=16)


@settings(max_examples=30, deadline=None)
@given(NAMED, st.integers(1, 4))
async def test_a_restart_changes_nothing(turns: list[list[str]], restart_every: int) -> None:
    through, restarted = await play(turns), await play(turns, restart_every)
    assert [[each.result_json for each in turn] for turn in restarted] == [
        [each.result_json for each in turn] for turn in through
    ]


def in_a_row(newest: Sequence[frozenset[str]], call: str) -> int:
    return next((place for place, turn in enumerate(newest) if call not in turn), len(newest))


def every_other(newest: Sequence[frozenset[str]]) -> int:
    """Count by the definition: the longest end of the run in which turn n equals turn n - 2, and none is empty."""
    if len(newest) < 2 or not newest[1]:
        return 0
    length = 2
    while length < len(newest) and newest[length] == newest[length - 2]:
        length += 1
    return (length + 1) // 2


@pytest.mark.parametrize(("effect", "most"), [(READ, 1), (IDEMPOTENT, 3), (WRITE, 3)])
async def test_in_one_turn_a_repeatable_effect_happens_as_often_as_it_is_asked_for(
    effect: ToolEffect, most: int
) -> None:
    counting = Counting()
    calls = [a_call(n, "poll", '{"job":1}') for n in range(3)]
    results = await run([made_tool("poll", counting, effect=effect, repeatable=True)], calls, RunSink())
    assert statuses(results) == [ToolCallStatus.OK] * 3
    assert len(counting.contexts) == most
    assert len({context.idempotency_key for context in counting.contexts}) == most
