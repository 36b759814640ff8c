"""Relays a run's log to a reader. It owns nothing: whatever becomes of it, the run goes on."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from parley_server.domain.run_event import HistoryTruncated
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.run_event import heartbeat, history_truncated
from parley_server.storage.repositories import RunRepository


async def relay(runs: RunRepository, run_id: str, after_seq: int, drain: Drain) -> AsyncGenerator[bytes]:
    """Yield the stored bytes of every event above `after_seq`, and a heartbeat when it is quiet.

    What is folded away is told by one `history_truncated`, before the first gap.

    Raises:
        NotFoundError, CursorAheadError: as `RunRepository.watch` says.
        ServerDrainingError: the server is stopping; the last event that was yielded is whole.
    """
    last_seq = after_seq
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
