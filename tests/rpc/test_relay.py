"""The relay of a run's log: stored bytes as they are, heartbeats, the end of the run, the server's drain."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest
from parley.v1 import agent_service_pb2 as pb
from parley_server.domain.errors import ServerDrainingError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.run import Run, RunSpec, RunState
from parley_server.domain.run_event import RunEvent, StoredEvent, TextDelta
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.rpc.servicers.relay import relay
from parley_server.storage.repositories import Acceptance, Page, PageRequest, RunFilter

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

    async def list(self, run_filter: RunFilter, page: PageRequest) -> Page[Run]:
        raise AssertionError((run_filter, page))

    async def accept(self, spec: RunSpec, idempotency: Idempotency | None) -> Acceptance:
        raise AssertionError((spec, idempotency))


async def test_the_stored_bytes_are_sent_as_they_are() -> None:
    log = Log((stored(1), stored(2)), (stored(3),))
    assert [sent async for sent in relay(log, "run_1", 0, Drain())] == [stored(seq).payload for seq in (1, 2, 3)]
    assert log.closed.is_set()


async def test_quiet_is_told_by_a_heartbeat_with_the_last_seq() -> None:
    log = Log((), (stored(8),), (), ())
    sent = [pb.WatchRunResponse.FromString(each).event async for each in relay(log, "run_1", 7, Drain())]
    assert [event.WhichOneof("event") for event in sent] == ["heartbeat", "text_delta", "heartbeat", "heartbeat"]
    assert [event.heartbeat.last_seq for event in sent] == [7, 0, 8, 8]
    assert [event.seq for event in sent] == [0, 8, 0, 0]
    assert {(event.run_id, event.conversation_id) for event in sent} == {("run_1", "conv_1")}
    assert sent[0].attempt == 2
    assert abs(sent[0].emit_time.seconds - datetime.now(UTC).timestamp()) < 60


async def test_a_drain_ends_a_relay_that_waits_between_events() -> None:
    drain, log = Drain(), Log((stored(1),), ends=False)
    events = relay(log, "run_1", 0, drain)
    assert await anext(events) == stored(1).payload
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.01)
    drain.start()
    drain.start()
    with pytest.raises(ServerDrainingError):
        await waiting
    assert log.closed.is_set()


async def test_a_drain_ends_a_relay_that_has_more_to_say() -> None:
    drain, log = Drain(), Log((stored(1),), (stored(2),))
    events = relay(log, "run_1", 0, drain)
    await anext(events)
    drain.start()
    with pytest.raises(ServerDrainingError):
        await anext(events)
    assert log.closed.is_set()


async def test_what_ends_in_time_is_not_ended_by_the_drain() -> None:
    drain = Drain()
    assert await drain.bound(lambda: asyncio.sleep(0, "done")) == "done"
    with pytest.raises(TimeoutError):
        await drain.bound(late)
    assert not drain.started


async def late() -> None:
    raise TimeoutError
