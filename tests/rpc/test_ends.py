"""How runs end, through the public door: the contract's table, row by row."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
from parley.v1 import agent_service_pb2 as pb
from parley.v1 import run_event_pb2, run_pb2, tool_pb2
from rpc.run_server import RunServer, run_server, wish
from run_history import check_run, check_told


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunServer]:
    async with run_server(tmp_path_factory.mktemp("ends"), timedelta(milliseconds=50)) as running:
        yield running


def limited(text: str, **limits: int) -> run_pb2.RunSpec:
    spec = wish(text)
    spec.limits.CopyFrom(run_pb2.Limits(**limits))  # type: ignore[arg-type]  # names vary
    return spec


def hasty(text: str) -> run_pb2.RunSpec:
    spec = wish(text)
    spec.limits.deadline.FromMilliseconds(300)
    return spec


BY_ITSELF: dict[str, tuple[run_pb2.RunSpec, str, str]] = {
    "an answer": (wish("answer"), "SUCCEEDED", "ANSWERED"),
    "an answer that is cut": (wish("length"), "SUCCEEDED", "OUTPUT_LENGTH"),
    "an answer that is filtered": (wish("filter"), "SUCCEEDED", "CONTENT_FILTER"),
    "a refusal": (wish("refuse"), "SUCCEEDED", "REFUSAL"),
    "a stream that breaks": (wish("break"), "FAILED", "ERROR"),
    "too many steps": (limited("loop", max_steps=2), "FAILED", "MAX_STEPS"),
    "too many calls": (limited("loop", max_tool_calls=1), "FAILED", "MAX_TOOL_CALLS"),
    "the same call again and again": (wish("loop"), "FAILED", "LOOP_DETECTED"),
    "too many tokens": (limited("loop", max_output_tokens=1), "FAILED", "MAX_OUTPUT_TOKENS"),
    "a deadline in the model's silence": (hasty("silence"), "EXPIRED", "DEADLINE"),
    "a deadline in the model's stream": (hasty("stall"), "EXPIRED", "DEADLINE"),
    "a deadline in a READ": (hasty("read"), "EXPIRED", "DEADLINE"),
    "a deadline in an IDEMPOTENT call": (hasty("put"), "EXPIRED", "DEADLINE"),
    "a deadline in a WRITE": (hasty("book"), "EXPIRED", "DEADLINE"),
}
# Not reachable before approvals.
NOT_YET = {"APPROVAL_NEEDED"}


async def check_end(server: RunServer, run_id: str, state: str, stop_reason: str) -> list[run_event_pb2.RunEvent]:
    """Watch a run to its end and check that it is this one, told alike by its log and by GetRun."""
    events = await server.watch(run_id)
    check_run(events)
    run = await server.get(run_id)
    check_told(run, events)
    assert run_pb2.RunState.Name(run.state) == f"RUN_STATE_{state}"
    assert run_pb2.StopReason.Name(run.stop_reason) == f"STOP_REASON_{stop_reason}"
    assert run.HasField("error") == (state == "FAILED")
    return events


@pytest.mark.parametrize(("spec", "state", "stop_reason"), BY_ITSELF.values(), ids=BY_ITSELF.keys())
async def test_a_run_ends_by_itself(server: RunServer, spec: run_pb2.RunSpec, state: str, stop_reason: str) -> None:
    run = await server.start(spec)
    await check_end(server, run.run_id, state, stop_reason)
    late = await server.cancel(run.run_id)
    assert late == await server.get(run.run_id)
    assert run_pb2.StopReason.Name(late.stop_reason) == f"STOP_REASON_{stop_reason}"


async def test_a_run_that_waits_expires(server: RunServer) -> None:
    busy = await server.start(wish("stall"))
    spec = hasty("answer")
    spec.conversation_id = busy.conversation_id
    waiting = await server.start(spec)
    events = await check_end(server, waiting.run_id, "EXPIRED", "DEADLINE")
    assert [event.WhichOneof("event") for event in events] == ["run_accepted", "run_finished"]
    await server.cancel(busy.run_id)
    await check_end(server, busy.run_id, "CANCELLED", "CANCEL_REQUESTED")


Stop = Callable[[RunServer, run_pb2.Run], Awaitable[object]]


async def cancel(server: RunServer, run: run_pb2.Run) -> None:
    await server.cancel(run.run_id)


async def cancel_twice(server: RunServer, run: run_pb2.Run) -> None:
    for _ in range(2):
        assert (await server.cancel(run.run_id)).state in (run_pb2.RUN_STATE_CANCELLING, run_pb2.RUN_STATE_CANCELLED)


async def cancel_from_elsewhere(server: RunServer, run: run_pb2.Run) -> None:
    _, agents = await server.connect()
    await agents.CancelRun(pb.CancelRunRequest(run_id=run.run_id, reason="changed my mind"), timeout=10)


async def interrupt(server: RunServer, run: run_pb2.Run) -> None:
    spec = wish("answer", run.conversation_id)
    spec.concurrency_policy = run_pb2.CONCURRENCY_POLICY_INTERRUPT
    following = await server.start(spec)
    await check_end(server, following.run_id, "SUCCEEDED", "ANSWERED")


STOPS: dict[str, tuple[Stop, str]] = {
    "a cancel": (cancel, "CANCEL_REQUESTED"),
    "two cancels": (cancel_twice, "CANCEL_REQUESTED"),
    "a cancel from another connection": (cancel_from_elsewhere, "CANCEL_REQUESTED"),
    "an interrupt": (interrupt, "INTERRUPTED"),
}
# What a run is in, and the event by which a watcher knows; none: it is stopped as soon as it is accepted.
PLACES = {
    "nothing yet": ("stall", ""),
    "the model's silence": ("silence", "run_started"),
    "the model's stream": ("stall", "text_delta"),
    "a READ": ("read", "tool_call_started"),
    "an IDEMPOTENT call": ("put", "tool_call_started"),
    "a WRITE": ("book", "tool_call_started"),
}
STATUSES = {
    "read": tool_pb2.TOOL_CALL_STATUS_CANCELLED,
    "put": tool_pb2.TOOL_CALL_STATUS_CANCELLED,
    "book": tool_pb2.TOOL_CALL_STATUS_OK,
}


@pytest.mark.parametrize(("stop", "stop_reason"), STOPS.values(), ids=STOPS.keys())
@pytest.mark.parametrize(("text", "until"), PLACES.values(), ids=PLACES.keys())
async def test_a_run_is_stopped_wherever_it_is(
    server: RunServer, text: str, until: str, stop: Stop, stop_reason: str
) -> None:
    run = await server.start(wish(text))
    if until:
        await server.watch(run.run_id, until)
    await stop(server, run)
    events = await check_end(server, run.run_id, "CANCELLED", stop_reason)
    for event in events:
        if event.HasField("tool_call_finished"):
            assert event.tool_call_finished.status == STATUSES[text]
        if event.HasField("message_completed"):
            assert event.message_completed.incomplete == (text == "stall")


async def test_a_run_that_waits_is_cancelled(server: RunServer) -> None:
    busy = await server.start(wish("stall"))
    waiting = await server.start(wish("answer", busy.conversation_id))
    for _ in range(2):
        assert (await server.cancel(waiting.run_id)).state == run_pb2.RUN_STATE_CANCELLED
    await check_end(server, waiting.run_id, "CANCELLED", "CANCEL_REQUESTED")
    await cancel(server, busy)


async def test_a_run_whose_caller_is_gone_is_cancelled(server: RunServer) -> None:
    spec = wish("stall")
    spec.disconnect_policy = run_pb2.DISCONNECT_POLICY_CANCEL
    call = server.agents.RunAgent(pb.RunAgentRequest(run=spec), timeout=20)
    response = await anext(aiter(call))
    call.cancel()
    await server.over(response.event.run_id)
    await check_end(server, response.event.run_id, "CANCELLED", "DISCONNECTED")


def test_the_table_has_every_end_there_is() -> None:
    shown = {stop_reason for _, _, stop_reason in BY_ITSELF.values()} | {reason for _, reason in STOPS.values()}
    named = {name.removeprefix("STOP_REASON_") for name in run_pb2.StopReason.keys()}  # noqa: SIM118  # no mapping
    assert named - shown == {"UNSPECIFIED", "DISCONNECTED"} | NOT_YET
