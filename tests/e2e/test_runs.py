"""Runs as any client sees them: a real server, the generated stubs, a socket."""

import asyncio

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, watch
from google.rpc import error_details_pb2, status_pb2
from parley.v1 import (
    admin_service_pb2,
    agent_service_pb2,
    conversation_service_pb2,
    run_event_pb2,
    run_pb2,
    tool_pb2,
)
from run_history import check_run, text_of

LONG = "Please count to 50"


async def start(stubs: Stubs, spec: run_pb2.RunSpec, request_id: str = "") -> run_pb2.Run:
    request = agent_service_pb2.StartRunRequest(run=spec, request_id=request_id)
    return (await stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run


async def get(stubs: Stubs, run_id: str) -> run_pb2.Run:
    return (await stubs.agents.GetRun(agent_service_pb2.GetRunRequest(run_id=run_id), timeout=RPC_DEADLINE_S)).run


async def cancel(stubs: Stubs, run_id: str) -> run_pb2.Run:
    request = agent_service_pb2.CancelRunRequest(run_id=run_id, reason="enough")
    return (await stubs.agents.CancelRun(request, timeout=RPC_DEADLINE_S)).run


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the one ErrorInfo's reason."""
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    found = [any_ for any_ in status.details if any_.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(found) == 1
    info = error_details_pb2.ErrorInfo()
    found[0].Unpack(info)
    assert info.domain == "parley.v1"
    return str(info.reason)


async def until(stubs: Stubs, run_id: str, kind: str) -> run_event_pb2.RunEvent:
    """Watch until an event of that kind."""
    call = stubs.agents.WatchRun(agent_service_pb2.WatchRunRequest(run_id=run_id), timeout=RPC_DEADLINE_S)
    async for response in call:
        if response.event.WhichOneof("event") == kind:
            call.cancel()
            return response.event
    raise AssertionError(f"the run ended without {kind}")


async def test_a_turn_streams_calls_a_tool_and_ends(stubs: Stubs) -> None:
    events = await run_agent(stubs, run_spec("What is 17 * 23?"))
    check_run(events)
    assert "391" in text_of(events)
    calls = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert [(call.name, call.status) for call in calls] == [("calculator", tool_pb2.TOOL_CALL_STATUS_OK)]
    end = events[-1].run_finished
    assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_SUCCEEDED, run_pb2.STOP_REASON_ANSWERED)
    assert (end.usage.model_calls, end.usage.tool_calls) == (2, 1)
    run = await get(stubs, events[0].run_id)
    assert (run.state, run.last_seq, run.output_text) == (end.state, len(events), text_of(events))
    assert await watch(stubs, run.run_id) == events
    assert await watch(stubs, run.run_id, 3) == events[3:]
    assert await watch(stubs, run.run_id, len(events)) == []


async def test_a_started_run_goes_on_by_itself_and_is_watched_by_many(stubs: Stubs) -> None:
    run = await start(stubs, run_spec(LONG))
    assert run.state in (run_pb2.RUN_STATE_QUEUED, run_pb2.RUN_STATE_RUNNING)
    first, second = await asyncio.gather(watch(stubs, run.run_id), watch(stubs, run.run_id))
    check_run(first)
    assert first == second
    assert len([event for event in first if event.HasField("text_delta")]) > 10


async def test_ending_the_watch_does_not_end_the_run(stubs: Stubs) -> None:
    call = stubs.agents.RunAgent(agent_service_pb2.RunAgentRequest(run=run_spec(LONG)), timeout=RPC_DEADLINE_S)
    seen = []
    async for response in call:
        seen.append(response.event)
        if response.event.HasField("text_delta"):
            break
    call.cancel()
    events = await watch(stubs, seen[0].run_id)
    check_run(events)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED


async def test_the_conversation_keeps_what_was_said(stubs: Stubs) -> None:
    first = await run_agent(stubs, run_spec("What is 2 + 3?"))
    conversation_id = first[0].conversation_id
    await run_agent(stubs, run_spec("hello", conversation_id))
    request = conversation_service_pb2.ListMessagesRequest(conversation_id=conversation_id)
    messages = (await stubs.conversations.ListMessages(request, timeout=RPC_DEADLINE_S)).messages
    assert [message.WhichOneof("item") for message in messages] == [
        "user", "tool_call", "assistant", "user", "assistant",
    ]  # fmt: skip
    assert messages[2].assistant.text == text_of(first)
    got = await stubs.conversations.GetConversation(
        conversation_service_pb2.GetConversationRequest(conversation_id=conversation_id), timeout=RPC_DEADLINE_S
    )
    assert (got.conversation.title, got.conversation.active_run_id) == ("What is 2 + 3?", "")


async def test_cancel_is_durable_idempotent_and_keeps_the_cut_text(stubs: Stubs) -> None:
    run = await start(stubs, run_spec(LONG))
    await until(stubs, run.run_id, "text_delta")
    states = {(await cancel(stubs, run.run_id)).state for _ in range(3)}
    assert states <= {run_pb2.RUN_STATE_CANCELLING, run_pb2.RUN_STATE_CANCELLED}
    events = await watch(stubs, run.run_id)
    check_run(events)
    end = events[-1].run_finished
    assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_CANCELLED, run_pb2.STOP_REASON_CANCEL_REQUESTED)
    completed = next(event.message_completed for event in events if event.HasField("message_completed"))
    assert completed.incomplete
    assert completed.text == text_of(events)
    assert (await cancel(stubs, run.run_id)).state == run_pb2.RUN_STATE_CANCELLED


async def test_a_cancel_right_after_the_start_is_honoured(stubs: Stubs) -> None:
    run = await start(stubs, run_spec(LONG))
    await cancel(stubs, run.run_id)
    events = await watch(stubs, run.run_id)
    check_run(events)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_CANCELLED


async def test_runs_of_one_conversation_go_one_after_the_other(stubs: Stubs) -> None:
    first = await start(stubs, run_spec(LONG))
    waiting = [await start(stubs, run_spec(f"What is {n} + 1?", first.conversation_id)) for n in range(4)]
    assert [(await until(stubs, run.run_id, "run_accepted")).run_accepted.queue_position for run in waiting] == [
        1, 2, 3, 4,
    ]  # fmt: skip
    with pytest.raises(grpc.aio.AioRpcError) as full:
        await start(stubs, run_spec("one more", first.conversation_id))
    assert (full.value.code(), reason_of(full.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    rejecting = run_spec("no", first.conversation_id)
    rejecting.concurrency_policy = run_pb2.CONCURRENCY_POLICY_REJECT
    with pytest.raises(grpc.aio.AioRpcError) as busy:
        await start(stubs, rejecting)
    assert (busy.value.code(), reason_of(busy.value)) == (grpc.StatusCode.FAILED_PRECONDITION, "CONVERSATION_BUSY")
    await cancel(stubs, waiting[1].run_id)
    await cancel(stubs, first.run_id)
    logs = [await watch(stubs, run.run_id) for run in waiting]
    for events in logs:
        check_run(events)
    assert [len(events) for events in logs][1] == 2
    assert [text_of(events) for events in logs] == ["0 + 1 = 1", "", "2 + 1 = 3", "3 + 1 = 4"]
    ends = [events[-1].emit_time.ToNanoseconds() for n, events in enumerate(logs) if n != 1]
    starts = [events[1].emit_time.ToNanoseconds() for n, events in enumerate(logs) if n != 1]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


async def test_a_request_id_is_one_run_in_both_rpcs(stubs: Stubs) -> None:
    runs = await asyncio.gather(*(start(stubs, run_spec("hello"), "same") for _ in range(20)))
    assert len({run.run_id for run in runs}) == 1
    events = await run_agent(stubs, run_spec("hello"), "same")
    check_run(events)
    assert events[0].run_id == runs[0].run_id
    with pytest.raises(grpc.aio.AioRpcError) as reused:
        await start(stubs, run_spec("other words"), "same")
    assert (reused.value.code(), reason_of(reused.value)) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_a_deadline_ends_the_run_as_expired(stubs: Stubs) -> None:
    spec = run_spec(LONG)
    spec.limits.deadline.FromMilliseconds(400)
    events = await run_agent(stubs, spec)
    check_run(events)
    end = events[-1].run_finished
    assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_EXPIRED, run_pb2.STOP_REASON_DEADLINE)


async def test_a_step_limit_fails_the_run_with_its_reason(stubs: Stubs) -> None:
    spec = run_spec("What is 2 * 2?")
    spec.limits.max_steps = 1
    events = await run_agent(stubs, spec)
    check_run(events)
    end = events[-1].run_finished
    assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_FAILED, run_pb2.STOP_REASON_MAX_STEPS)
    info = error_details_pb2.ErrorInfo()
    end.error.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("STEP_LIMIT_REACHED", {"max_steps": "1"})


@pytest.mark.parametrize(("after_seq", "code", "reason"), [(10**9, grpc.StatusCode.OUT_OF_RANGE, "CURSOR_AHEAD")])
async def test_a_cursor_beyond_the_end_is_refused(
    stubs: Stubs, after_seq: int, code: grpc.StatusCode, reason: str
) -> None:
    run_id = (await run_agent(stubs, run_spec("hello")))[0].run_id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await watch(stubs, run_id, after_seq)
    assert (refused.value.code(), reason_of(refused.value)) == (code, reason)


async def test_lists_filter_and_page(stubs: Stubs) -> None:
    ids = []
    for n in range(3):
        spec = run_spec("hello")
        spec.labels["suite"] = "lists"
        spec.labels["n"] = str(n)
        ids.append((await run_agent(stubs, spec))[0].run_id)
    request = agent_service_pb2.ListRunsRequest(page_size=2, labels={"suite": "lists"})
    first = await stubs.agents.ListRuns(request, timeout=RPC_DEADLINE_S)
    request.page_token = first.next_page_token
    rest = await stubs.agents.ListRuns(request, timeout=RPC_DEADLINE_S)
    assert [run.run_id for run in [*first.runs, *rest.runs]] == ids[::-1]
    assert rest.next_page_token == ""
    assert not any(run.output_text for run in first.runs)


async def test_the_server_says_what_it_is(stubs: Stubs) -> None:
    info = await stubs.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=RPC_DEADLINE_S)
    assert info.offline_model
    assert info.default_agent_id == "assistant"
    agents = await stubs.agents.ListAgents(agent_service_pb2.ListAgentsRequest(), timeout=RPC_DEADLINE_S)
    assert [agent.agent_id for agent in agents.agents] == ["assistant"]
    assert sorted(agents.agents[0].tool_names) == [
        "calculator",
        "current_time",
        "forget_note",
        "read_result",
        "recall",
        "remember",
    ]
