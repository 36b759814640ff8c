"""A live run in memory: what its owner has appended and the durable tail its watchers read."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from parley_server.domain.errors import CursorAheadError, StorageUnavailableError
from parley_server.domain.quota import Consumer
from parley_server.domain.run import Run, Steer
from parley_server.domain.run_event import (
    EventBody,
    EventCodec,
    ReasoningDelta,
    RunEvent,
    RunFinished,
    RunStarted,
    StoredEvent,
    TextDelta,
    UsageUpdated,
)
from parley_server.domain.usage import Usage
from parley_server.storage.sql import frames
from parley_server.storage.sql.tail import Tail

HEARTBEAT_S = 15.0
MAX_PENDING_BYTES = 256 * 1024
MAX_BATCH_EVENTS = 256

# Writes that belong to the log: run in its transaction, once it is certain that the run is still ours.
Tx = Callable[[Connection, "Sealed"], None]
ReadPage = Callable[[str, int], Awaitable[frames.Page]]


@dataclass(slots=True)
class _Pending:
    """An appended event without a seq; deltas of one item gather in `texts`."""

    body: EventBody
    item_id: str
    texts: list[str] = field(default_factory=list)
    use: "CountedUse | None" = None

    def merged(self) -> EventBody:
        if len(self.texts) > 1 and isinstance(self.body, (TextDelta, ReasoningDelta)):
            return type(self.body)("".join(self.texts))
        return self.body


@dataclass(frozen=True, slots=True)
class CountedUse:
    """What a step used, by the model that answered, and what was held for it; empty where nothing was."""

    model: str
    usage: Usage
    hold_id: str = ""


@dataclass(slots=True)
class Sealed:
    """Numbered, serialized events of one run on their way into a commit, and the writes that go with them.

    Each may be empty. `page` are older events, which go into the archive now. `journal_id` is the row the events
    became; set by the commit. `usage` is what the last `usage_updated` among them tells, `uses` what each of them adds.
    `time` is the events', `is_end` tells that the last of them is the run's, `is_retry` that a commit was tried before.
    """

    live: "LiveRun"
    events: tuple[StoredEvent, ...]
    txs: tuple[Tx, ...]
    time: datetime
    page: tuple[StoredEvent, ...] = ()
    journal_id: int = 0
    usage: Usage | None = None
    uses: tuple[CountedUse, ...] = ()
    is_end: bool = False
    is_retry: bool = False

    @property
    def first_seq(self) -> int:
        """The seq of the batch's first event."""
        return self.events[0].seq

    @property
    def unarchived(self) -> tuple[StoredEvent, ...]:
        """All events up to the batch's last one that are not in the archive after this commit."""
        return self.events if self.page else (*self.live.tail.loose, *self.events)


class LiveRun:
    """The log of one run that this process owns. All methods run on the loop."""

    def __init__(self, run: Run, consumer: Consumer, *, fencing_token: int) -> None:
        self.run_id = run.run_id
        self.conversation_id = run.conversation_id
        self.user_id = consumer.user_id
        self.consumer = consumer
        # An owner's events belong to an attempt, also the last one of a run that never began.
        self.attempt = max(run.attempt, 1)
        self.fencing_token = fencing_token
        self.tail = Tail()
        self.last_time = run.create_time
        # What the newest durable `usage_updated` tells.
        self.usage = run.usage
        # The model that was asked for, once the run has begun.
        self.model = ""
        # What is held of limits for the model call under way, for calls that were none, and whether anything ever was.
        self.hold_id = ""
        self.released: list[str] = []
        self.has_held = False
        self._appended_usage = run.usage
        self.ended = False
        self.watchers = 0
        self.error: Exception | None = None
        # What the user added and the model has not seen. The gate is held while more is accepted and when the end is
        # decided, so that a run's end knows of all that was accepted.
        self.steers: list[Steer] = []
        self.gate = asyncio.Lock()
        self.is_closing = False
        # Whether the store may have rows of it, also such as nobody heard of, and what was ever in `steers`.
        self.may_have_steers = False
        self._steer_ids: set[str] = set()
        self._pending: list[_Pending] = []
        self._txs: list[Tx] = []
        self._pending_bytes = 0
        self._sealed: Sealed | None = None
        # A dict for its order; every watcher is in it once for each commit, and may leave from anywhere.
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._quiet: asyncio.TimerHandle | None = None
        self._quiets = 0
        self._has_text = False

    @property
    def last_seq(self) -> int:
        """The seq of the newest durable event."""
        return self.tail.last_seq

    @property
    def is_settled(self) -> bool:
        """Tell whether everything appended is durable."""
        return not self._pending and not self._txs and self._sealed is None

    @property
    def is_full(self) -> bool:
        """Tell whether so much waits for the store that its owner should wait too."""
        return self._pending_bytes > MAX_PENDING_BYTES

    @property
    def is_steerable(self) -> bool:
        """Tell whether words can still be added; to be asked with the gate held."""
        return not self.is_closing and self.error is None

    def go_on_from(self, events: Iterable[RunEvent]) -> None:
        """Learn what a former owner's events tell of the run."""
        for event in events:
            self.last_time = max(self.last_time, event.emit_time)
            if isinstance(event.body, UsageUpdated):
                self.usage = self._appended_usage = event.body.usage
            elif isinstance(event.body, RunStarted):
                self.model = event.body.model

    def add_steer(self, steer: Steer) -> None:
        """Take words that are durable, once."""
        self.may_have_steers = True
        if steer.steer_id not in self._steer_ids:
            self._steer_ids.add(steer.steer_id)
            self.steers.append(steer)

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
            self._pending.append(_Pending(body, item_id, use=self._use_of(body)))
            return True
        self._pending_bytes += len(text)
        if self._merges(body, item_id):
            self._pending[-1].texts.append(text)
            return False
        self._pending.append(_Pending(body, item_id, [text]))
        is_first, self._has_text = not self._has_text, True
        return is_first

    def _use_of(self, body: EventBody) -> CountedUse | None:
        """Return what an event tells was used since the one before."""
        if isinstance(body, RunStarted):
            self.model = body.model
        if not isinstance(body, UsageUpdated):
            return None
        added, self._appended_usage = body.usage.since(self._appended_usage), body.usage
        model, added = (self.model, added) if body.use is None else (body.use.model, body.use.usage)
        hold_id, self.hold_id = self.hold_id, ""
        return CountedUse(model, added, hold_id)

    def _merges(self, body: EventBody, item_id: str) -> bool:
        last = self._pending[-1] if self._pending else None
        return last is not None and last.item_id == item_id and type(last.body) is type(body)

    def seal(self, codec: EventCodec, now: datetime) -> Sealed | None:
        """Number and serialize what is pending; after a failed commit hand out the same batch again."""
        if self._sealed is None and not self.is_settled:
            pending, self._pending, self._pending_bytes = self._pending, [], 0
            # A clock that was set back must not make the log look out of order.
            self.last_time = max(now, self.last_time)
            events = tuple(
                StoredEvent(seq, codec.encode(self._numbered(seq, entry, self.last_time)))
                for seq, entry in enumerate(pending, self.last_seq + 1)
            )
            txs, self._txs = tuple(self._txs), []
            usages = [entry.body.usage for entry in pending if isinstance(entry.body, UsageUpdated)]
            self._sealed = Sealed(
                self,
                events,
                txs,
                self.last_time,
                self.tail.page,
                usage=usages[-1] if usages else None,
                uses=tuple(entry.use for entry in pending if entry.use is not None),
                is_end=bool(pending) and isinstance(pending[-1].body, RunFinished),
            )
        return self._sealed

    def _numbered(self, seq: int, entry: _Pending, now: datetime) -> RunEvent:
        return RunEvent(self.run_id, self.conversation_id, seq, now, self.attempt, entry.item_id, entry.merged())

    def settle(self) -> list[int]:
        """Show the sealed batch to the watchers: it is durable. Return the rows of the journal that may go."""
        obsolete: list[int] = []
        if self._sealed is not None:
            if self._sealed.page:
                obsolete = self.tail.turn_page()
            if self._sealed.events:
                self.tail.extend(self._sealed.events, [self._sealed.journal_id])
            self.usage = self._sealed.usage or self.usage
            self._sealed = None
        self.wake()
        return obsolete

    def fail(self, error: Exception) -> None:
        """End this process's part in the run: nothing more can be appended."""
        self.error = error
        self._sealed = None
        self._pending.clear()
        self._txs.clear()
        self.wake()

    def wake(self) -> None:
        """Let everyone who waits look again."""
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self) -> None:
        """Wait for the next `wake`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)

    def _expect_quiet(self) -> None:
        """See to a `wake` when nothing happens for a while: one timer for all who wait, whom every event wakes."""
        if self._quiet is None:
            self._quiet = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._be_quiet)

    def _be_quiet(self) -> None:
        self._quiets += 1
        self.wake()

    async def settled(self) -> None:
        """Wait until everything appended so far is durable. Raises the error that ended this process's part."""
        while not self.is_settled:
            await self.changed()
        if self.error is not None:
            raise self.error

    async def over(self) -> None:
        """Wait until the run has ended. Raises StorageUnavailableError when this process has no more part in it."""
        while not self.ended:
            if self.error is not None:
                raise StorageUnavailableError
            await self.changed()

    async def follow(self, after_seq: int, read_page: ReadPage) -> AsyncGenerator[tuple[StoredEvent, ...]]:
        """Yield the durable events above `after_seq` as they come; see `RunRepository.watch`.

        What is no longer in memory comes from the archive by `read_page`. A run that has ended is followed no further
        than memory reaches: the last event that was yielded may not be its last.
        """
        if after_seq > self.last_seq:
            raise CursorAheadError(self.last_seq)
        position = after_seq
        # Kept while it is sent, so that whoever else lags as far shares it.
        page: frames.Page | None = None
        self.watchers += 1
        try:
            while True:
                if position + 1 >= self.tail.first_seq:
                    page, batch = None, self.tail.after(position, MAX_BATCH_EVENTS)
                elif self.ended:
                    return
                else:
                    page = await read_page(self.run_id, position + 1)
                    batch = tuple(event for event in page.events if event.seq > position)
                if batch:
                    position = batch[-1].seq
                    yield batch
                elif self.ended:
                    return
                elif self.error is not None:
                    raise StorageUnavailableError
                else:
                    self._expect_quiet()
                    quiets = self._quiets
                    await self.changed()
                    # Writes without an event wake, too, and are no sign of life.
                    if self._quiets != quiets and position == self.last_seq and not self.ended:
                        yield ()
        finally:
            self.watchers -= 1
