"""What an agent does about its model's tool calls over a run: circles, broken histories, tools nobody may use."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from parley_server.domain.errors import ErrorKind, Reason
from parley_server.domain.message import AssistantItem, Message, ToolCallItem
from parley_server.domain.run import RunState, StopReason
from parley_server.domain.run_event import ToolCallFinished, Warned
from parley_server.domain.tool import CallsMade, ToolCall, ToolCallStatus, ToolEffect
from parley_server.llm.model_service import ToolMessage
from unit.agents.agent_runs import ANSWERED, PRODUCT, a_turn, an_agent, run
from unit.agents.scripted_model import ScriptedModel, ask_for, say
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.user_context import context_of


async def test_a_model_that_repeats_itself_is_told_and_then_stopped() -> None:
    end, sink, model = await run(ask_for(PRODUCT))
    assert (end.state, end.stop_reason) == (RunState.FAILED, StopReason.LOOP_DETECTED)
    assert end.error is not None
    assert (end.error.kind, end.error.reason) == (ErrorKind.ABORTED, Reason.LOOP_DETECTED)
    assert [body.status for body in sink.bodies(ToolCallFinished)] == [ToolCallStatus.OK] * 4 + [ToolCallStatus.DENIED]
    assert len(model.requests) == 5
    results = [message for message in model.requests[-1].messages if isinstance(message, ToolMessage)]
    assert ["note" in json.loads(result.content) for result in results] == [False, False, True, True]


async def test_a_model_that_heeds_the_note_goes_on() -> None:
    end, _, _ = await run(*[ask_for(PRODUCT)] * 4, say("391"))
    assert end == ANSWERED


@pytest.mark.parametrize(("turns", "requests"), [(3, 1), (4, 1), (5, 0)])
async def test_what_an_earlier_attempt_has_called_counts(turns: int, requests: int) -> None:
    """Also when it was cut between the last call's answer and the end of the run."""
    model, sink = ScriptedModel(ask_for(PRODUCT), say("391")), RunSink()
    made = CallsMade(tuple((ToolCall(f"c{n}", *PRODUCT),) for n in range(turns)))
    turn = replace(a_turn(sink), calls_made=made)
    ended = await an_agent(model).run(context_of(), turn)
    assert ended.end.stop_reason is (StopReason.ANSWERED if turns == 3 else StopReason.LOOP_DETECTED)
    assert len(model.requests) == requests + (turns == 3)


class Again:
    """Implements `Steering`: the user asks for the same again before one question."""

    def __init__(self, before: int) -> None:
        self._left = before

    async def apply(self) -> bool:
        self._left -= 1
        return not self._left

    async def close(self) -> bool:
        return True


async def test_what_the_user_asks_for_again_is_no_circle() -> None:
    model, sink = ScriptedModel(*[ask_for(PRODUCT)] * 8, say("391")), RunSink()
    turn = replace(a_turn(sink), steering=Again(before=5))
    assert (await an_agent(model).run(context_of(), turn)).end == ANSWERED
    assert ["note" in body.result_json for body in sink.bodies(ToolCallFinished)] == [False, False, True, True] * 2


def a_message(number: int, item: AssistantItem | ToolCallItem) -> Message:
    return Message(f"item_{number}", "conv_1", "run_0", datetime(2026, 11, 22, tzinfo=UTC), item)


async def test_a_broken_history_is_mended_for_the_model_and_told_once() -> None:
    lost = ToolCallItem("call_1", "look", "{}", ToolEffect.WRITE, ToolCallStatus.OK, "")
    model, sink = ScriptedModel(ask_for(PRODUCT), say("391")), RunSink()
    turn = a_turn(sink)
    turn = replace(
        turn,
        history=(a_message(0, AssistantItem("Hm.")), a_message(1, lost), *turn.history),
        warned=lambda: frozenset(body.reason for body in sink.bodies(Warned)),
    )
    assert (await an_agent(model).run(context_of(), turn)).end == ANSWERED
    assert [body.reason for body in sink.bodies(Warned)] == ["HISTORY_REPAIRED"]
    for request in model.requests:
        [result, *_] = [message for message in request.messages if isinstance(message, ToolMessage)]
        assert json.loads(result.content)["error"]["code"] == "unknown_outcome"


async def test_a_tool_that_the_caller_may_not_use_is_not_offered_and_a_call_of_it_denied() -> None:
    tools = [made_tool("look"), made_tool("refund", required_scopes=frozenset({"tool:refunds"}))]
    model, sink = ScriptedModel(ask_for(("refund", "{}")), say("No.")), RunSink()
    await an_agent(model, tools).run(context_of(), a_turn(sink))
    assert [spec.name for spec in model.requests[0].tools] == ["look"]
    assert [body.error_code for body in sink.bodies(ToolCallFinished)] == ["permission_denied"]
