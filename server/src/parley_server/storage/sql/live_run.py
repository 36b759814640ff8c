"""A live run in memory: what its owner has appended and the durable tail its watchers read."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from parley_server.domain.errors import CursorAheadError, StorageUnavailableError
from parley_server.domain.run import Run
from parley_server.domain.run_event import (
    EventBody,
    EventCodec,
    ReasoningDelta,
    RunEvent,
    StoredEvent,
    TextDelta,
)

HEARTBEAT_S = 15.0
MAX_PENDING_BYTES = 256 * 1024
MAX_BATCH_EVENTS = 256

# Writes that belong to the log: run in its transaction, once it is certain that the run is still ours.
Tx = Callable[[Connection, "Sealed"], None]


@dataclass(slots=True)
class _Pending:
    """An appended event without a seq; deltas of one item gather in `texts`."""

    body: EventBody
    item_id: str
    texts: list[str] = field(default_factory=list)

    def merged(self) -> EventBody:
        if len(self.texts) > 1 and isinstance(self.body, (TextDelta, ReasoningDelta)):
            return type(self.body)("".join(self.texts))
        return self.body


@dataclass(slots=True)
class Sealed:
    """Numbered, serialized events of one run on their way into a commit, and the writes that go with them.

    Either may be empty. `journal_id` is the row the events became; set by the commit.
    """

    live: "LiveRun"
    events: tuple[StoredEvent, ...]
    txs: tuple[Tx, ...]
    journal_id: int = 0

    @property
    def first_seq(self) -> int:
        """The seq of the batch's first event."""
        return self.events[0].seq


class LiveRun:
    """The log of one run that this process owns. All methods run on the loop."""

    def __init__(self, run: Run, user_id: str, *, fencing_token: int) -> None:
        self.run_id = run.run_id
        self.conversation_id = run.conversation_id
        self.user_id = user_id
        # An owner's events belong to an attempt, also the last one of a run that never began.
        self.attempt = max(run.attempt, 1)
        self.fencing_token = fencing_token
        self.tail: list[StoredEvent] = []
        self.journal_ids: list[int] = []
        self.ended = False
        self.watchers = 0
        self.error: Exception | None = None
        self._pending: list[_Pending] = []
        self._txs: list[Tx] = []
        self._pending_bytes = 0
        self._sealed: Sealed | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._has_text = False

    @property
    def last_seq(self) -> int:
        """The seq of the newest durable event."""
        return len(self.tail)

    @property
    def is_settled(self) -> bool:
        """Tell whether everything appended is durable."""
        return not self._pending and not self._txs and self._sealed is None

    @property
    def is_full(self) -> bool:
        """Tell whether so much waits for the store that its owner should wait too."""
        return self._pending_bytes > MAX_PENDING_BYTES

    def write(self, tx: Tx) -> None:
        """Take a write that goes into the same commit as what is appended before the next await."""
        if self.error is not None:
            raise self.error
        self._txs.append(tx)

    def append(self, body: EventBody, item_id: str) -> bool:
        """Take one event; return whether it is urgent, which every event is but text after a run's first.

        Events that are appended without an await between them become durable together.
        """
        if self.error is not None:
            raise self.error
        text = body.text if isinstance(body, (TextDelta, ReasoningDelta)) else None
        if text is None:
            self._pending.append(_Pending(body, item_id))
            return True
        self._pending_bytes += len(text)
        if self._merges(body, item_id):
            self._pending[-1].texts.append(text)
            return False
        self._pending.append(_Pending(body, item_id, [text]))
        is_first, self._has_text = not self._has_text, True
        return is_first

    def _merges(self, body: EventBody, item_id: str) -> bool:
        last = self._pending[-1] if self._pending else None
        return last is not None and last.item_id == item_id and type(last.body) is type(body)

    def seal(self, codec: EventCodec, now: datetime) -> Sealed | None:
        """Number and serialize what is pending; after a failed commit hand out the same batch again."""
        if self._sealed is None and not self.is_settled:
            pending, self._pending, self._pending_bytes = self._pending, [], 0
            events = tuple(
                StoredEvent(seq, codec.encode(self._numbered(seq, entry, now)))
                for seq, entry in enumerate(pending, self.last_seq + 1)
            )
            txs, self._txs = tuple(self._txs), []
            self._sealed = Sealed(self, events, txs)
        return self._sealed

    def _numbered(self, seq: int, entry: _Pending, now: datetime) -> RunEvent:
        return RunEvent(self.run_id, self.conversation_id, seq, now, self.attempt, entry.item_id, entry.merged())

    def settle(self) -> None:
        """Show the sealed batch to the watchers: it is durable."""
        if self._sealed is not None:
            if self._sealed.events:
                self.tail.extend(self._sealed.events)
                self.journal_ids.append(self._sealed.journal_id)
            self._sealed = None
        self.wake()

    def fail(self, error: Exception) -> None:
        """End this process's part in the run: nothing more can be appended."""
        self.error = error
        self._sealed = None
        self._pending.clear()
        self._txs.clear()
        self.wake()

    def wake(self) -> None:
        """Let everyone who waits look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self, timeout_s: float | None = None) -> None:
        """Wait for the next `wake`, or for the timeout."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(timeout_s, _resolve, waiter) if timeout_s is not None else None
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def settled(self) -> None:
        """Wait until everything appended so far is durable. Raises the error that ended this process's part."""
        while not self.is_settled:
            await self.changed()
        if self.error is not None:
            raise self.error

    async def follow(self, after_seq: int) -> AsyncGenerator[tuple[StoredEvent, ...]]:
        """Yield the durable events above `after_seq` as they come; see `RunRepository.watch`."""
        if after_seq > self.last_seq:
            raise CursorAheadError(self.last_seq)
        position = after_seq
        self.watchers += 1
        try:
            while True:
                batch = tuple(self.tail[position : position + MAX_BATCH_EVENTS])
                if batch:
                    position += len(batch)
                    yield batch
                elif self.ended:
                    return
                elif self.error is not None:
                    raise StorageUnavailableError
                else:
                    await self.changed(HEARTBEAT_S)
                    if position == self.last_seq and not self.ended:
                        yield ()
        finally:
            self.watchers -= 1


def _resolve(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
