"""Relays a run's log to a reader. It owns nothing: what its end means for the run is for those to say who are told."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from functools import partial

from parley_server.domain.run_event import HistoryTruncated
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.run_event import heartbeat, history_truncated
from parley_server.runs.presence import Attendance
from parley_server.storage.repositories import RunRepository


async def relay(
    runs: RunRepository, run_id: str, after_seq: int, drain: Drain, attendance: Attendance
) -> AsyncGenerator[bytes]:
    """Yield the stored bytes of every event above `after_seq`, and a heartbeat when it is quiet.

    What is folded away is told by one `history_truncated`, before the first gap. In the end the attendance is left:
    as lost when the call was cancelled or nobody takes what is yielded, and this server is not the reason.

    Raises:
        NotFoundError, CursorAheadError: as `RunRepository.watch` says.
        ServerDrainingError: the server is stopping; the last event that was yielded is whole.
    """
    last_seq = after_seq
    with _attending(attendance, drain):
        async with aclosing(runs.watch(run_id, after_seq)) as batches:
            following = partial(anext, batches, None)
            while (batch := await drain.bound(following)) is not None:
                if isinstance(batch, HistoryTruncated):
                    yield history_truncated(await runs.get(run_id), batch.first_available_seq)
                    continue
                for event in batch:
                    yield event.payload
                    last_seq = event.seq
                if not batch:
                    yield heartbeat(await runs.get(run_id), last_seq)


@contextmanager
def _attending(attendance: Attendance, drain: Drain) -> Iterator[None]:
    is_lost = False
    try:
        yield
    except (GeneratorExit, asyncio.CancelledError):
        is_lost = not drain.started
        raise
    finally:
        attendance.leave(is_lost=is_lost)
