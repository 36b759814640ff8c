"""A run's events reach their reader once and in order, whatever happens to the connection."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lasting_port import lasting_port
from parley.v1.run_event_pb2 import Heartbeat, HistoryTruncated, RunEvent
from parley.v1.run_pb2 import RUN_STATE_SUCCEEDED, STOP_REASON_ANSWERED, Run
from parley_client import (
    AbortedError,
    CallCancelledError,
    ClientClosedError,
    InternalError,
    NotFoundError,
    OutOfRangeError,
    ParleyClient,
    ParleyError,
    ProtocolError,
    ReconnectLimits,
    RunStream,
    UnavailableError,
)
from parley_client.event_order import EventOrder
from unit.client.event_log import CONVERSATION_ID, RUN_ID, answered, failed
from unit.client.scripted_server import Cut, CuttingProxy, Ending, ScriptedRun, abort, end_ok, hang, serving
from unit.client.statuses import retry_info, trailers

HASTY = ReconnectLimits(connect_for_s=5, reconnect_for_s=5, first_delay_s=0.001, longest_delay_s=0.01)
UNAVAILABLE = abort(grpc.StatusCode.UNAVAILABLE)


@asynccontextmanager
async def client_of(run: ScriptedRun, limits: ReconnectLimits = HASTY) -> AsyncIterator[ParleyClient]:
    async with serving(run) as address, ParleyClient(address, "", reconnect=limits) as client:
        yield client


async def seqs(stream: RunStream) -> list[int]:
    return [event.seq async for event in stream]


async def test_a_whole_run_in_one_call() -> None:
    run = ScriptedRun(answered("It ", "is ", "391."))
    async with client_of(run) as client, client.run("What is 17 * 23?") as stream:
        assert (stream.run_id, stream.conversation_id) == (RUN_ID, CONVERSATION_ID)
        assert await seqs(stream) == [1, 2, 3, 4, 5, 6, 7]
    assert stream.text == "It is 391."
    assert stream.finished is not None
    assert stream.finished.state == RUN_STATE_SUCCEEDED
    assert stream.error is None
    assert run.attachments == [("RunAgent", 0)]


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(UNAVAILABLE, id="unavailable"),
        pytest.param(abort(grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING"), id="draining"),
        pytest.param(abort(grpc.StatusCode.ABORTED, "SLOW_CONSUMER"), id="slow consumer"),
        pytest.param(abort(grpc.StatusCode.INTERNAL), id="reset stream"),
        pytest.param(abort(grpc.StatusCode.CANCELLED), id="cancelled on the way"),
        pytest.param(end_ok, id="ok without an end"),
    ],
)
async def test_a_stream_that_breaks_goes_on_after_the_last_event(ending: Ending) -> None:
    run = ScriptedRun(answered("a", "b", "c"), cuts=[Cut(3, ending), Cut(2, ending)])
    async with client_of(run) as client, client.run("go") as stream:
        assert await seqs(stream) == [1, 2, 3, 4, 5, 6, 7]
    assert stream.text == "abc"
    assert run.attachments == [("RunAgent", 0), ("WatchRun", 3), ("WatchRun", 5)]


async def test_a_lost_connection_goes_on_after_the_last_event() -> None:
    run = ScriptedRun(answered("a", "b", "c"), cuts=[Cut(4, hang), Cut(1, hang)])
    async with serving(run) as address:
        proxy = CuttingProxy(address)
        async with proxy.listening() as target, ParleyClient(target, "", reconnect=HASTY) as client:
            received = []
            async with client.run("go") as stream:
                async for event in stream:
                    received.append(event.seq)
                    if event.seq in {4, 5}:
                        proxy.cut()
    assert received == [1, 2, 3, 4, 5, 6, 7]
    assert run.attachments == [("RunAgent", 0), ("WatchRun", 4), ("WatchRun", 5)]
    assert proxy.connections == 3


async def test_a_silent_stream_is_taken_for_dead() -> None:
    run = ScriptedRun(answered("a", "b"), cuts=[Cut(3, hang)])
    limits = ReconnectLimits(first_delay_s=0.001, longest_silence_s=0.1)
    heard: list[ParleyError] = []
    async with (
        client_of(run, limits) as client,
        client.run("go", on_reconnect=lambda error, _: heard.append(error)) as stream,
    ):
        assert await seqs(stream) == [1, 2, 3, 4, 5, 6]
    assert [error.message for error in heard] == ["the server has gone silent"]


async def test_silence_that_lasts_longer_than_the_budget_is_no_failed_attempt() -> None:
    run = ScriptedRun(answered("a", "b"), cuts=[Cut(3, hang)])
    limits = ReconnectLimits(first_delay_s=0.001, longest_silence_s=0.2, reconnect_for_s=0.1)
    async with client_of(run, limits) as client, client.run("go") as stream:
        assert await seqs(stream) == [1, 2, 3, 4, 5, 6]


async def test_a_server_that_restarts_is_found_again() -> None:
    log = answered("a", "b", "c")
    address = f"127.0.0.1:{lasting_port()}"
    async with serving(before := ScriptedRun(log, cuts=[Cut(3, hang)]), address=address):
        client = ParleyClient(address, "", reconnect=ReconnectLimits(first_delay_s=0.05, longest_delay_s=0.1))
        await client.__aenter__()
        stream = await client.run("go").__aenter__()
        first = [(await anext(stream)).seq for _ in range(3)]
    async with serving(after := ScriptedRun(log), address=address):
        assert first + await seqs(stream) == [1, 2, 3, 4, 5, 6, 7]
        await client.__aexit__(None, None, None)
    assert (before.attachments, after.attachments) == ([("RunAgent", 0)], [("WatchRun", 3)])


async def test_run_agent_that_breaks_before_the_first_event_is_repeated_with_its_request_id() -> None:
    run = ScriptedRun(answered("a"), cuts=[Cut(0, UNAVAILABLE), Cut(0, end_ok), Cut(2, UNAVAILABLE)])
    async with client_of(run) as client, client.run("go") as stream:
        assert await seqs(stream) == [1, 2, 3, 4, 5]
    assert run.attachments == [("RunAgent", 0), ("RunAgent", 0), ("RunAgent", 0), ("WatchRun", 2)]
    request_ids = {call.request_id for call in run.calls if call.method == "RunAgent"}
    assert len(request_ids) == 1
    assert request_ids != {""}


@pytest.mark.parametrize("seed", range(20))
async def test_random_cuts_lose_and_repeat_nothing(seed: int) -> None:
    rng = random.Random(seed)
    pieces = [f"piece {n} " for n in range(rng.randrange(1, 60))]
    endings = [UNAVAILABLE, end_ok, abort(grpc.StatusCode.ABORTED, "SLOW_CONSUMER"), abort(grpc.StatusCode.INTERNAL)]
    cuts = [Cut(rng.randrange(12), rng.choice(endings)) for _ in range(rng.randrange(12))]
    run = ScriptedRun(answered(*pieces), cuts=cuts)
    heard: list[ParleyError] = []
    async with client_of(run) as client:
        async with client.run("go", on_reconnect=lambda error, _: heard.append(error)) as stream:
            assert await seqs(stream) == [event.seq for event in run.log]
        assert stream.text == "".join(pieces)
    assert len(heard) == len(run.attachments) - 1


async def test_random_connection_losses_lose_and_repeat_nothing() -> None:
    rng = random.Random(391)
    run = ScriptedRun(answered(*(f"{n} " for n in range(400))))
    async with serving(run) as address:
        proxy = CuttingProxy(address)
        async with proxy.listening() as target, ParleyClient(target, "", reconnect=HASTY) as client:
            received = []
            async with client.run("go") as stream:
                async for event in stream:
                    received.append(event.seq)
                    if rng.random() < 0.03:
                        proxy.cut()
                        await asyncio.sleep(rng.random() / 100)
    assert received == list(range(1, 405))
    assert proxy.connections > 3


async def test_a_gap_is_an_error() -> None:
    log = answered("a", "b", "c")
    del log[3]
    async with client_of(ScriptedRun(log)) as client, client.run("go") as stream:
        with pytest.raises(ProtocolError, match="event 5 came where 4 had to"):
            await seqs(stream)


async def test_a_repeated_event_is_an_error() -> None:
    log = answered("a", "b", "c")
    log.insert(3, log[2])
    async with client_of(ScriptedRun(log)) as client, client.run("go") as stream:
        with pytest.raises(ProtocolError, match="event 3 came where 4 had to"):
            await seqs(stream)


async def test_an_event_of_another_run_is_an_error() -> None:
    log = answered("a")
    log[2].run_id = "run-2"
    async with client_of(ScriptedRun(log)) as client, client.run("go") as stream:
        with pytest.raises(ProtocolError, match="'run-2'"):
            await seqs(stream)


async def test_a_truncated_history_may_have_gaps_and_says_the_answer() -> None:
    whole = answered("a", "b", "c")
    truncated = RunEvent(
        run_id=RUN_ID,
        conversation_id=CONVERSATION_ID,
        history_truncated=HistoryTruncated(first_available_seq=6, run=Run(output_text="abc")),
    )
    run = ScriptedRun([truncated, *whole[5:]])
    async with client_of(run) as client, client.watch(RUN_ID) as stream:
        assert await seqs(stream) == [0, 6, 7]
        assert stream.text == "abc"


async def test_the_licence_for_gaps_ends_with_its_stream() -> None:
    whole = answered("a", "b", "c")
    truncated = RunEvent(run_id=RUN_ID, history_truncated=HistoryTruncated(first_available_seq=2))
    run = ScriptedRun([truncated, whole[1], whole[3]], cuts=[Cut(2, UNAVAILABLE)])
    async with client_of(run) as client, client.watch(RUN_ID) as stream:
        with pytest.raises(ProtocolError, match="event 4 came where 3 had to"):
            await seqs(stream)


async def test_heartbeats_are_kept_from_the_reader() -> None:
    log = answered("a")
    log.insert(2, RunEvent(run_id=RUN_ID, conversation_id=CONVERSATION_ID, heartbeat=Heartbeat(last_seq=2)))
    async with client_of(ScriptedRun(log)) as client, client.run("go") as stream:
        assert await seqs(stream) == [1, 2, 3, 4, 5]


async def test_an_event_of_an_unknown_kind_is_passed_on() -> None:
    log = answered("a")
    known = RunEvent(run_id=RUN_ID, conversation_id=CONVERSATION_ID, seq=2).SerializeToString()
    log[1] = RunEvent.FromString(known + b"\xfa\x3e\x02\x08\x01")  # field 1007, which no version has
    async with client_of(ScriptedRun(log)) as client, client.run("go") as stream:
        assert await seqs(stream) == [1, 2, 3, 4, 5]


async def test_a_watch_at_the_end_of_a_finished_run_ends_at_once() -> None:
    run = ScriptedRun(answered("391"))
    run.run = Run(
        run_id=RUN_ID,
        conversation_id=CONVERSATION_ID,
        state=RUN_STATE_SUCCEEDED,
        stop_reason=STOP_REASON_ANSWERED,
        last_seq=5,
        output_text="391",
    )
    async with client_of(run) as client, client.watch(RUN_ID, 5) as stream:
        assert await seqs(stream) == []
        assert stream.text == "391"
        assert stream.finished is not None
        assert stream.finished.stop_reason == STOP_REASON_ANSWERED


async def test_a_failed_run_is_data_and_not_an_exception() -> None:
    async with client_of(ScriptedRun(failed("MODEL_UNAVAILABLE", "no model"))) as client, client.run("go") as stream:
        await stream.wait()
        assert isinstance(stream.error, UnavailableError)
        assert (stream.error.reason, stream.error.message) == ("MODEL_UNAVAILABLE", "no model")


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", NotFoundError),
        (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_AHEAD", OutOfRangeError),
        (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR", InternalError),
        (grpc.StatusCode.ABORTED, "SOMETHING_ELSE", AbortedError),
    ],
)
async def test_what_will_not_pass_is_raised_at_once(
    code: grpc.StatusCode, reason: str, expected: type[ParleyError]
) -> None:
    run = ScriptedRun(answered("a"), cuts=[Cut(2, UNAVAILABLE), Cut(0, abort(code, reason))])
    async with client_of(run) as client, client.run("go") as stream:
        with pytest.raises(expected) as caught:
            await seqs(stream)
    assert caught.value.reason == reason
    assert len(run.attachments) == 2


async def test_the_budget_ends_the_attempts() -> None:
    run = ScriptedRun(answered("a"), cuts=[Cut(2, UNAVAILABLE)] + [Cut(0, UNAVAILABLE)] * 1000)
    limits = ReconnectLimits(connect_for_s=9, reconnect_for_s=0.3, first_delay_s=0.01, longest_delay_s=0.05)
    async with client_of(run, limits) as client, client.run("go") as stream:
        began = asyncio.get_running_loop().time()
        with pytest.raises(UnavailableError):
            await seqs(stream)
    assert 0.2 < asyncio.get_running_loop().time() - began < 2
    assert len(run.attachments) > 3


async def test_nobody_there_is_told_within_the_shorter_budget(unused_tcp_port: int) -> None:
    limits = ReconnectLimits(connect_for_s=0.2, reconnect_for_s=60)
    async with ParleyClient(f"127.0.0.1:{unused_tcp_port}", "", reconnect=limits) as client:
        with pytest.raises(UnavailableError):
            async with client.run("go"):
                pass


@pytest.mark.parametrize(
    "wish",
    [
        pytest.param(trailers(grpc.StatusCode.UNAVAILABLE, "busy", retry_info(0.3))[0], id="RetryInfo"),
        pytest.param(("grpc-retry-pushback-ms", "300"), id="pushback"),
    ],
)
async def test_the_servers_wish_to_wait_is_honoured(wish: tuple[str, str | bytes]) -> None:
    run = ScriptedRun(answered("a"), cuts=[Cut(2, abort(grpc.StatusCode.UNAVAILABLE, "", wish))])
    waits: list[float] = []
    async with client_of(run) as client, client.run("go", on_reconnect=lambda _, wait: waits.append(wait)) as stream:
        assert await seqs(stream) == [1, 2, 3, 4, 5]
    assert len(waits) == 1
    assert 0.3 <= waits[0] < 0.4


async def test_a_server_that_asks_not_to_be_tried_again_is_not() -> None:
    refusal = abort(grpc.StatusCode.UNAVAILABLE, "", ("grpc-retry-pushback-ms", "-1"))
    run = ScriptedRun(answered("a"), cuts=[Cut(2, refusal)])
    async with client_of(run) as client, client.run("go") as stream:
        with pytest.raises(UnavailableError):
            await seqs(stream)
    assert run.attachments == [("RunAgent", 0)]


async def test_leaving_the_context_ends_the_call_and_not_the_run() -> None:
    run = ScriptedRun(answered("a", "b"), cuts=[Cut(3, hang)])
    async with client_of(run) as client:
        async with client.run("go") as stream:
            async for event in stream:
                if event.seq == 3:
                    break
            assert run.open_streams == 1
        await until(lambda: run.open_streams == 0)
    assert [call.method for call in run.calls] == ["RunAgent"]


async def test_a_read_that_was_cancelled_can_be_repeated() -> None:
    run = ScriptedRun(answered("a", "b"), cuts=[Cut(3, hang)])
    async with client_of(run) as client, client.run("go") as stream:
        received = [(await anext(stream)).seq for _ in range(3)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(stream)
        assert received + await seqs(stream) == [1, 2, 3, 4, 5, 6]
    assert run.attachments == [("RunAgent", 0), ("WatchRun", 3)]


async def test_a_cancelled_task_is_cancelled_and_not_reattached() -> None:
    run = ScriptedRun(answered("a", "b"), cuts=[Cut(3, hang)])
    async with client_of(run) as client, client.run("go") as stream:
        reading = asyncio.create_task(seqs(stream))
        await until(lambda: stream.last_seq == 3)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert run.attachments == [("RunAgent", 0)]


async def test_closing_a_stream_ends_its_reader_in_another_task() -> None:
    run = ScriptedRun(answered("a", "b"), cuts=[Cut(3, hang)])
    async with client_of(run) as client:
        async with client.run("go") as stream:
            reading = asyncio.create_task(seqs(stream))
            await until(lambda: stream.last_seq == 3)
        assert await reading == [1, 2, 3]


async def test_closing_the_client_ends_its_readers_with_an_error() -> None:
    run = ScriptedRun(answered("a", "b"), cuts=[Cut(3, hang)])
    async with client_of(run) as client:
        stream = await client.run("go").__aenter__()
        reading = asyncio.create_task(seqs(stream))
        await until(lambda: stream.last_seq == 3)
    with pytest.raises(ClientClosedError):
        await reading
    with pytest.raises(CallCancelledError):
        await client.get_run(RUN_ID)


async def test_a_run_is_cancelled_from_beside_its_reader() -> None:
    run = ScriptedRun(answered("a"))
    async with client_of(run) as client, client.run("go") as stream:
        cancelled = await stream.cancel("not needed any more")
        assert cancelled.run_id == RUN_ID
        await stream.wait()
    assert [call.method for call in run.calls] == ["RunAgent", "CancelRun"]


@given(places=st.lists(st.integers(min_value=0, max_value=8), max_size=6))
def test_the_order_takes_the_log_over_any_cuts(places: list[int]) -> None:
    log = answered("a", "b", "c", "d")
    order = EventOrder(RUN_ID, 0)
    for place in [*places, len(log)]:
        order.attached()
        for event in log[order.last_seq : max(place, order.last_seq)]:
            order.check(event)
    assert order.last_seq == len(log)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is awaited has no event to set
            await asyncio.sleep(0.005)
