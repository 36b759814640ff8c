"""What is there, held against what was promised."""

import json
from collections.abc import Sequence
from datetime import timedelta

from contract.recovery.played_runs import WRITES, Call
from contract.recovery.recovering import statuses_of
from contract.recovery.run_model import MOST_BEFORE, Promise
from contract.recovery.run_world import RunWorld
from contract.storage.test_run_log import decoded
from parley.v1 import approval_pb2, run_event_pb2
from parley_server.domain.approval import ApprovalState
from parley_server.domain.run import Run, RunState, StopReason
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import FinishChunk, FinishReason
from parley_server.rpc.mapping.conversation import write_message
from parley_server.rpc.mapping.enums import APPROVAL_STATES
from parley_server.storage.page import PageRequest
from run_history import check_added, check_messages, check_run

# Two clocks of one machine, of which one is put right now and then.
CLOCKS_DIFFER = timedelta(milliseconds=50)

Events = Sequence[run_event_pb2.RunEvent]


async def check(world: RunWorld) -> None:
    """Look at every run there is, and at their order."""
    for promise in world.promises:
        await check_one(world, promise)
    for conversation_id in {promise.conversation_id for promise in world.promises}:
        await _check_order(world, world.runs.of(conversation_id))


async def finish(world: RunWorld) -> None:
    """Let all runs come to their ends, read the conversations, and stop."""
    while not all(promise.is_over for promise in world.promises):
        for question in tuple(world.model.questions.values()):
            if question.is_idle:
                question.say(FinishChunk(FinishReason.STOP, usage=Usage(output_tokens=1)))
        for promise in world.promises:
            promise.may_end.add(StopReason.ANSWERED)
        for call in tuple(world.tools.waiting):
            world.tools.end(call, takes_effect=True)
        for promise, approval in await world.approvals():
            await world.answer(promise, approval.approval_id, is_yes=True)
        await world.settle()
        await check(world)
    for conversation_id in {promise.conversation_id for promise in world.promises}:
        await _check_conversation(world, conversation_id)
    await world.close()


async def check_one(world: RunWorld, promise: Promise) -> None:
    """Look at a run and its log."""
    run = await world.run_of(promise)
    promise.state = run.state
    stored = await world.events(promise, run.last_seq)
    # Nothing that was durable is ever taken back.
    assert stored[: len(promise.seen)] == promise.seen
    promise.seen = stored
    events = decoded(stored)
    # It may have ended between the reading of its row and of its log.
    is_finished = events[-1].HasField("run_finished")
    check_run(events, finished=is_finished)
    check_added(events, promise.steer_ids)
    _check_answers(promise, events)
    assert events[0].run_accepted.queue_position <= MOST_BEFORE[promise.wish.policy]
    if run.state.is_terminal:
        assert is_finished
        _check_end(promise, run)
        _check_effects(world, events)
    elif promise.is_stopped and not is_finished:
        assert run.state is RunState.CANCELLING


def _check_end(promise: Promise, run: Run) -> None:
    assert run.end is not None
    assert run.finish_time is not None
    reason = run.end.stop_reason
    assert reason in promise.ends(), (promise, reason)
    earliest = promise.earliest_end(reason, run.deadline_time)
    assert earliest is None or run.finish_time >= earliest - CLOCKS_DIFFER, f"{promise.label} ended too soon: {reason}"


def _check_answers(promise: Promise, events: Events) -> None:
    """Assert that the log says what the user has said."""
    for resolved in (event.approval_resolved for event in events if event.HasField("approval_resolved")):
        said = promise.answers.get(resolved.approval_id, ApprovalState.CANCELLED)
        assert APPROVAL_STATES[resolved.state] is said, f"he said {said}, told is {resolved}"


def _check_effects(world: RunWorld, events: Events) -> None:
    approved = _approved(events)
    for call, status in statuses_of(events).items():
        times, keys = world.tools.happened[call], world.tools.keys.get(call, set())
        if call[0] in WRITES:
            assert times <= 1, f"{call} happened twice"
            assert status != "CANCELLED" or not times, f"{call} happened and is told as cancelled"
            assert status != "ERROR" or not times, f"{call} happened and is told as failed"
        assert call[0] != "pay" or not times or call in approved, f"{call} happened and nobody has approved it"
        assert status != "OK" or times, f"{call} is told as done and never happened"
        assert len(keys) <= 1, f"{call} had two keys"


def _approved(events: Events) -> set[Call]:
    """Return the calls that the user has said yes to."""
    yes = {
        event.approval_resolved.call_id
        for event in events
        if event.approval_resolved.state == approval_pb2.APPROVAL_STATE_APPROVED
    }
    started = [event.tool_call_started for event in events if event.tool_call_started.call_id in yes]
    return {(call.name, json.loads(call.arguments_json)["n"]) for call in started}


async def _check_order(world: RunWorld, promises: list[Promise]) -> None:
    """Assert that no run began before all that come before it were over."""
    has_begun = False
    # Read backwards, for what comes before a run that has begun is over by then.
    for promise in reversed(promises):
        state = (await world.run_of(promise)).state
        assert state.is_terminal or not has_begun, f"{promise.label} was overtaken"
        has_begun = has_begun or state in (RunState.RUNNING, RunState.WAITING_APPROVAL, RunState.CANCELLING)


async def _check_conversation(world: RunWorld, conversation_id: str) -> None:
    """Assert that a conversation whose runs are over holds what they said, and nothing that was given back."""
    conversations = world.store.for_user(world.ann).conversations
    assert not (await conversations.get(conversation_id)).active_run_id
    page = await conversations.messages(conversation_id, PageRequest(1000))
    assert not page.next_token
    for promise in world.runs.of(conversation_id):
        told = [write_message(message) for message in page.items if message.run_id == promise.run_id]
        check_messages(decoded(promise.seen), told, prompt=promise.label)
