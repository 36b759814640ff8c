"""Rows 47 to 49 and 51: cursors, cancels and queues of runs."""

import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from catalogue.door import Caller, Door, text_spec
from catalogue.test_bad_messages import fields_of
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import content_pb2, run_pb2
from parley.v1 import conversation_service_pb2 as conversations

CODE = grpc.StatusCode


@contextlib.asynccontextmanager
async def busy(caller: Caller) -> AsyncIterator[run_pb2.Run]:
    """Hold a conversation busy for a block, with a model that says a word and no more."""
    spec = text_spec()
    spec.model_options.model = "offline-stall"
    run = await caller.start(spec)
    await caller.hears(run.run_id)
    yield run
    listed = agents.ListRunsRequest(conversation_id=run.conversation_id)
    for each in (await caller.ask(listed, agents.ListRunsResponse)).runs:
        await caller.ask(agents.CancelRunRequest(run_id=each.run_id), agents.CancelRunResponse)


@pytest.mark.parametrize("ahead", [1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 2])
async def test_a_cursor_beyond_the_end_is_refused(either_door: Door, ahead: int) -> None:
    ann = either_door.ann
    events = await ann.run_to_the_end(text_spec())
    request = agents.WatchRunRequest(run_id=events[0].run_id)
    request.after_seq = min(len(events) + ahead, 2**64 - 1)
    failure = await ann.refused(request)
    assert (failure.code, failure.reason) == (CODE.OUT_OF_RANGE, "CURSOR_AHEAD")
    assert failure.metadata == {"last_seq": str(len(events))}


async def test_every_other_cursor_gives_the_rest(either_door: Door) -> None:
    ann = either_door.ann
    events = await ann.run_to_the_end(text_spec("What is 2 + 2?"))
    for after_seq in range(len(events) + 1):
        rest = await ann.events(agents.WatchRunRequest(run_id=events[0].run_id, after_seq=after_seq))
        assert rest == events[after_seq:]


async def test_a_cursor_ahead_of_a_run_under_way_is_refused(either_door: Door) -> None:
    async with busy(either_door.ann) as run:
        failure = await either_door.ann.refused(agents.WatchRunRequest(run_id=run.run_id, after_seq=2**64 - 1))
    assert failure.reason == "CURSOR_AHEAD"


async def test_a_foreign_run_is_neither_watched_nor_cancelled(either_door: Door) -> None:
    async with busy(either_door.ann) as run:
        for request in (agents.WatchRunRequest(run_id=run.run_id), agents.CancelRunRequest(run_id=run.run_id)):
            assert (await either_door.bob.refused(request)).code == CODE.NOT_FOUND
        got = await either_door.ann.ask(agents.GetRunRequest(run_id=run.run_id), agents.GetRunResponse)
        assert got.run.state in (run_pb2.RUN_STATE_QUEUED, run_pb2.RUN_STATE_RUNNING)


async def test_a_cancel_may_come_twice_or_too_late(either_door: Door) -> None:
    ann = either_door.ann
    async with busy(ann) as run:
        for _ in range(2):
            await ann.ask(agents.CancelRunRequest(run_id=run.run_id), agents.CancelRunResponse)
        await ann.events(agents.WatchRunRequest(run_id=run.run_id))
        again = await ann.ask(agents.CancelRunRequest(run_id=run.run_id), agents.CancelRunResponse)
        assert again.run.state == run_pb2.RUN_STATE_CANCELLED
    finished = (await ann.run_to_the_end(text_spec()))[0].run_id
    late = await ann.ask(agents.CancelRunRequest(run_id=finished), agents.CancelRunResponse)
    assert late.run.state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_busy_conversation_takes_four_more_and_is_not_deleted(either_door: Door) -> None:
    ann = either_door.ann
    async with busy(ann) as run:
        spec = text_spec("waits", run.conversation_id)
        for _ in range(4):
            await ann.start(spec)
        failure = await ann.refused(agents.StartRunRequest(run=spec))
        assert (failure.code, failure.reason) == (CODE.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        spec.concurrency_policy = run_pb2.CONCURRENCY_POLICY_REJECT
        failure = await ann.refused(agents.StartRunRequest(run=spec))
        assert (failure.code, failure.reason) == (CODE.FAILED_PRECONDITION, "CONVERSATION_BUSY")
        delete = conversations.DeleteConversationRequest(conversation_id=run.conversation_id)
        assert (await ann.refused(delete)).reason == "CONVERSATION_BUSY"


async def test_words_for_a_run_are_refused_when_they_are_too_many_or_too_late(either_door: Door) -> None:
    ann = either_door.ann
    async with busy(ann) as run:
        steer = agents.SteerRunRequest(run_id=run.run_id, input=text_spec("and this").input)
        for _ in range(16):
            await ann.ask(steer, agents.SteerRunResponse)
        failure = await ann.refused(steer)
        assert (failure.code, failure.reason) == (CODE.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert failure.metadata == {"max_pending": "16"}
        assert (await either_door.bob.refused(steer)).code == CODE.NOT_FOUND
    await ann.events(agents.WatchRunRequest(run_id=run.run_id))
    failure = await ann.refused(steer)
    assert (failure.code, failure.reason) == (CODE.FAILED_PRECONDITION, "RUN_NOT_STEERABLE")
    assert failure.metadata == {"state": "CANCELLED"}


async def test_images_are_added_to_a_run_until_they_are_too_much_with_its_own(either_door: Door) -> None:
    ann = either_door.ann
    picture = content_pb2.ContentPart(image=content_pb2.Image(data=bytes(2**20), media_type="image/png"))
    async with busy(ann) as run:
        steer = agents.SteerRunRequest(run_id=run.run_id, input=[picture])
        for _ in range(3):
            await ann.ask(steer, agents.SteerRunResponse)
        failure = await ann.refused(steer)
        assert (failure.code, fields_of(failure)) == (CODE.INVALID_ARGUMENT, ["input"])
