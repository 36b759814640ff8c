"""What a run's model has called counts over a crash: going round in circles is no new beginning."""

import pytest
from contract.recovery.marking_tools import World
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of
from contract.recovery.test_cut_runs import STARTED, cut_run
from contract.storage.conftest import OpenStore
from parley.v1 import run_pb2
from parley_server.domain.content import TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.run_event import ItemEvent, SteerApplied, ToolCallFinished, ToolCallStarted, UsageUpdated
from parley_server.domain.tool import ToolCallStatus, ToolEffect
from parley_server.domain.usage import Usage
from unit.agents.scripted_model import say


def turn(number: int) -> list[ItemEvent]:
    """One answer of the model, that calls what it called before."""
    item, call_id = f"i{number}", f"c{number}"
    return [
        (UsageUpdated(Usage(model_calls=number, tool_calls=number)), ""),
        (ToolCallStarted(call_id, "read", '{"n":1}', ToolEffect.READ), item),
        (ToolCallFinished(call_id, "read", ToolCallStatus.OK, '{"ok":true,"result":1}'), item),
    ]


@pytest.mark.parametrize("turns", [1, 4, 5])
async def test_the_fifth_call_of_a_kind_ends_the_run_whichever_attempt_made_the_others(
    turns: int, open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run = await cut_run(store, ann, [STARTED, *(event for n in range(1, turns + 1) for event in turn(n))])
    model, world = RememberingModel([*[calls(("read", 1))] * 9, say("Well.")]), World()
    async with open_same_store() as store, an_engine(store, model, world.tools()) as engine:
        await engine.recover()
        events = await history_of(store, ann, run.run_id)
    end = events[-1].run_finished
    assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_FAILED, run_pb2.STOP_REASON_LOOP_DETECTED)
    assert len(model.requests) == 5 - turns
    assert len(world.marks) == max(4 - turns, 0)


async def test_what_the_user_says_meanwhile_is_a_new_beginning(open_same_store: OpenStore, ann: RequestContext) -> None:
    asked_again = SteerApplied("steer_1", "msg_again", (TextPart("Again."),))
    async with open_same_store() as store:
        before = [event for n in range(1, 5) for event in turn(n)]
        run = await cut_run(store, ann, [STARTED, *before, (asked_again, "")])
    model, world = RememberingModel([*[calls(("read", 1))] * 8, say("Well.")]), World()
    async with open_same_store() as store, an_engine(store, model, world.tools()) as engine:
        await engine.recover()
        events = await history_of(store, ann, run.run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    assert len(world.marks) == 4
