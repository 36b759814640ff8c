"""The relay of a run's log: stored bytes as they are, heartbeats, the end of the run, the server's drain."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import pytest
from parley.v1 import agent_service_pb2 as pb
from parley_server.domain.call_errors import ServerDrainingError, SlowConsumerError
from parley_server.domain.content import ContentPart
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.quota import Limit
from parley_server.domain.run import Run, RunSpec, RunState
from parley_server.domain.run_event import RunEvent, StoredEvent, TextDelta
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.rpc.servicers.relay import relay
from parley_server.runs.presence import Attendance
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.repositories import Acceptance, RunFilter

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
RUN = Run("run_1", "conv_1", "assistant", RunState.RUNNING, 2, NOW, NOW, 2)


def stored(seq: int) -> StoredEvent:
    event = RunEvent("run_1", "conv_1", seq, NOW, 1, "msg_1", TextDelta(f"delta {seq}"))
    return StoredEvent(seq, ProtoEventCodec().encode(event))


class Log:
    """A run repository whose log is the batches it is given; it then waits, or ends."""

    def __init__(self, *batches: tuple[StoredEvent, ...], ends: bool = True) -> None:
        self.closed = asyncio.Event()
        self._batches = batches
        self._ends = ends

    async def watch(self, run_id: str, after_seq: int) -> AsyncGenerator[tuple[StoredEvent, ...]]:
        assert run_id == "run_1"
        try:
            for batch in self._batches:
                if not batch or batch[-1].seq > after_seq:
                    yield batch
            if not self._ends:
                await asyncio.Event().wait()
        finally:
            self.closed.set()

    async def get(self, run_id: str) -> Run:
        assert run_id == RUN.run_id
        return RUN

    async def steer(self, run_id: str, parts: tuple[ContentPart, ...], idempotency: Idempotency | None) -> str:
        raise AssertionError((run_id, parts, idempotency))

    async def list(self, run_filter: RunFilter, page: PageRequest) -> Page[Run]:
        raise AssertionError((run_filter, page))

    async def accept(self, spec: RunSpec, idempotency: Idempotency | None, limits: Sequence[Limit] = ()) -> Acceptance:
        raise AssertionError((spec, idempotency, limits))

    async def accepted(self, idempotency: Idempotency | None) -> Run | None:
        raise AssertionError(idempotency)


class Presence:
    """Hears how calls end."""

    def __init__(self) -> None:
        self.left: list[bool] = []

    def call(self) -> Attendance:
        return Attendance(self.left.append)


async def test_the_stored_bytes_are_sent_as_they_are() -> None:
    log = Log((stored(1), stored(2)), (stored(3),))
    assert [sent async for sent in relay(log, "run_1", 0, Drain(), Presence().call())] == [
        stored(seq).payload for seq in (1, 2, 3)
    ]
    assert log.closed.is_set()


async def test_quiet_is_told_by_a_heartbeat_with_the_last_seq() -> None:
    log = Log((), (stored(8),), (), ())
    sent = [
        pb.WatchRunResponse.FromString(each).event async for each in relay(log, "run_1", 7, Drain(), Presence().call())
    ]
    assert [event.WhichOneof("event") for event in sent] == ["heartbeat", "text_delta", "heartbeat", "heartbeat"]
    assert [event.heartbeat.last_seq for event in sent] == [7, 0, 8, 8]
    assert [event.seq for event in sent] == [0, 8, 0, 0]
    assert {(event.run_id, event.conversation_id) for event in sent} == {("run_1", "conv_1")}
    assert sent[0].attempt == 2
    assert abs(sent[0].emit_time.seconds - datetime.now(UTC).timestamp()) < 60


async def test_a_drain_ends_a_relay_that_waits_between_events() -> None:
    drain, log, presence = Drain(), Log((stored(1),), ends=False), Presence()
    events = relay(log, "run_1", 0, drain, presence.call())
    assert await anext(events) == stored(1).payload
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.01)
    drain.start()
    drain.start()
    with pytest.raises(ServerDrainingError):
        await waiting
    assert log.closed.is_set()
    assert presence.left == [False]


async def test_a_drain_ends_a_relay_that_has_more_to_say() -> None:
    drain, log, presence = Drain(), Log((stored(1),), (stored(2),)), Presence()
    events = relay(log, "run_1", 0, drain, presence.call())
    await anext(events)
    drain.start()
    with pytest.raises(ServerDrainingError):
        await anext(events)
    assert log.closed.is_set()
    assert presence.left == [False]


async def test_a_cancelled_relay_has_lost_its_caller() -> None:
    log, presence = Log((stored(1),), ends=False), Presence()
    events = relay(log, "run_1", 0, Drain(), presence.call())
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert log.closed.is_set()
    assert presence.left == [True]


@pytest.mark.parametrize(("is_draining", "is_lost"), [(False, True), (True, False)])
async def test_a_relay_that_is_closed_has_lost_its_caller_unless_the_server_stops(
    is_draining: bool, is_lost: bool
) -> None:
    drain, presence = Drain(), Presence()
    events = relay(Log((stored(1),)), "run_1", 0, drain, presence.call())
    await anext(events)
    if is_draining:
        drain.start()
    await events.aclose()
    assert presence.left == [is_lost]


async def test_a_slow_reader_is_not_lost() -> None:
    presence = Presence()
    events = relay(Log((stored(1),)), "run_1", 0, Drain(), presence.call())
    await anext(events)
    with pytest.raises(SlowConsumerError):
        await events.athrow(SlowConsumerError("too slow"))
    assert presence.left == [False]


async def test_what_ends_in_time_is_not_ended_by_the_drain() -> None:
    drain = Drain()
    assert await drain.bound(lambda: asyncio.sleep(0, "done")) == "done"
    with pytest.raises(TimeoutError):
        await drain.bound(late)
    assert not drain.started


async def late() -> None:
    raise TimeoutError
