"""The user's runs: accepting, reading, listing, and following their logs; on any engine."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from sqlalchemy import bindparam, select

from parley_server.domain.content import ContentPart
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import CursorAheadError, NotFoundError, StorageUnavailableError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.per_user import UserKey
from parley_server.domain.quota import Consumer, Limit
from parley_server.domain.run import Run, RunSpec, RunState
from parley_server.domain.run_event import HistoryTruncated, StoredEvent
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.repositories import Acceptance, RunFilter
from parley_server.storage.sql import frames, request_ids
from parley_server.storage.sql.acceptance import FIRST_TOKEN, RunAcceptance
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.database import Reader, Row
from parley_server.storage.sql.expiry import of_living_conversation
from parley_server.storage.sql.live_run import LiveRun
from parley_server.storage.sql.own_filters import require_own
from parley_server.storage.sql.paging import fitting
from parley_server.storage.sql.rows import number, run_of, string
from parley_server.storage.sql.run_listing import COLUMNS, filter_parameters, listing
from parley_server.storage.sql.run_log import RunLog
from parley_server.storage.sql.steers import Steering
from parley_server.storage.sql.tables import runs
from parley_server.storage.sql.user_writer import UserWriter

_GET = select(*COLUMNS).where(
    runs.c.user_id == bindparam("user_id"), runs.c.run_id == bindparam("run_id"), of_living_conversation()
)
_SIZED = ("labels_json", "end_json")


class SqlRunRepository:
    """Implements `RunRepository` for one user."""

    def __init__(
        self,
        context: RequestContext,
        reader: Reader,
        writes: UserWriter,
        run_log: RunLog,
        tokens: PageTokens,
        *,
        ttl: int | None,
    ) -> None:
        self._context = context
        self._reader = reader
        self._writes = writes
        self._run_log = run_log
        self._tokens = tokens
        self._ttl = ttl

    async def accept(self, spec: RunSpec, idempotency: Idempotency | None, limits: Sequence[Limit] = ()) -> Acceptance:
        """Accept a run; see `RunRepository.accept`."""
        accepted = await self._writes.run(
            RunAcceptance(
                self._context,
                spec,
                idempotency,
                codec=self._run_log.codec,
                now=self._run_log.clock(),
                ttl=self._ttl,
                limits=limits,
            ),
            patient=True,
        )
        if accepted.run is None or accepted.event is None:
            return Acceptance(await self.get(accepted.run_id), created=False, starts_now=False)
        live = LiveRun(accepted.run, Consumer.of(self._context), fencing_token=FIRST_TOKEN)
        live.tail.extend([accepted.event], [accepted.journal_id])
        self._run_log.open(live)
        return Acceptance(
            accepted.run,
            created=True,
            starts_now=accepted.starts_now,
            interrupted_run_id=accepted.interrupted_run_id,
        )

    async def accepted(self, idempotency: Idempotency | None) -> Run | None:
        """Find the run of an equal request; see `RunRepository.accepted`."""
        if idempotency is None:
            return None
        # The writer's connection, so that a request whose commit is under way counts.
        run_id = await self._writes.run(lambda connection: request_ids.find(connection, self._context, idempotency))
        return None if run_id is None else await self.get(run_id)

    async def steer(self, run_id: str, parts: tuple[ContentPart, ...], idempotency: Idempotency | None) -> str:
        """Add words to a run; see `RunRepository.steer`."""
        steering = Steering(self._context, run_id, parts, idempotency, now=now_micros())
        live = self._run_log.of_user(self._context, run_id)
        if live is not None:
            async with live.gate:
                if live.is_steerable:
                    live.may_have_steers = True
                    accepted = await self._writes.run(steering, patient=True)
                    if accepted.pending is not None:
                        live.add_steer(accepted.pending)
                    return accepted.steer_id
            await live.over()
        elif not (await self.get(run_id)).state.is_terminal:
            # Unfinished and not in this process: its owner is not known here (yet).
            raise StorageUnavailableError
        return (await self._writes.run(steering)).steer_id

    async def get(self, run_id: str) -> Run:
        """Return one; see `RunRepository.get`."""
        return self._as_it_stands(await self._row(run_id))

    async def list(self, run_filter: RunFilter, page: PageRequest) -> Page[Run]:
        """List, latest created first; see `RunRepository.list`."""
        user_id = self._context.user_id
        await require_own(self._reader, user_id, conversation_id=run_filter.conversation_id)
        name = ("runs", user_id, repr(run_filter))
        before = self._tokens.read(name, page.token)
        place = {"user_id": user_id, "now": now_micros(), "limit": page.size + 1}
        if before:
            place["before"] = before
        rows = await self._reader.fetch(listing(run_filter, is_first=not before), place | filter_parameters(run_filter))
        taken = fitting(rows, page.size, _SIZED)
        items = tuple(self._as_it_stands(row) for row in rows[:taken])
        return Page(items, self._tokens.issue(name, items[-1].run_id) if len(rows) > taken else "")

    async def watch(self, run_id: str, after_seq: int) -> AsyncGenerator[tuple[StoredEvent, ...] | HistoryTruncated]:
        """Follow the log; see `RunRepository.watch`."""
        live = self._run_log.of_user(self._context, run_id)
        if live is not None:
            async with aclosing(live.follow(after_seq, self._page)) as batches:
                async for batch in batches:
                    after_seq = batch[-1].seq if batch else after_seq
                    yield batch
            if after_seq == live.last_seq:
                return
            # It has ended, and this watcher is further behind than memory reaches.
        row = await self._row(run_id)
        if not RunState(string(row, "state")).is_terminal:
            # Unfinished and not in this process: its owner is not known here (yet).
            raise StorageUnavailableError
        async for archived in self._archived(row, after_seq):
            yield archived

    async def _archived(self, run: Row, after_seq: int) -> AsyncGenerator[tuple[StoredEvent, ...] | HistoryTruncated]:
        last_seq, next_seq = number(run, "last_seq"), after_seq + 1
        if after_seq > last_seq:
            raise CursorAheadError(last_seq)
        is_cut = number(run, "folded_seq") > after_seq if run["folded_seq"] is not None else False
        told = False
        while after_seq < last_seq:
            page = await self._page(string(run, "run_id"), after_seq + 1)
            events = tuple(event for event in page.events if event.seq > after_seq)
            after_seq = page.last_seq
            # A run may also be folded while it is read.
            if events and not told and (is_cut or _has_gap(next_seq, events)):
                told = True
                yield HistoryTruncated(events[0].seq)
            if events:
                yield events
                next_seq = events[-1].seq + 1

    async def _page(self, run_id: str, seq: int) -> frames.Page:
        return await self._run_log.archive.page(self._reader, UserKey(self._context), run_id, seq)

    async def _row(self, run_id: str) -> Row:
        rows = await self._reader.fetch(_GET, {"user_id": self._context.user_id, "run_id": run_id, "now": now_micros()})
        if not rows:
            raise NotFoundError("run")
        return rows[0]

    def _as_it_stands(self, row: Row) -> Run:
        """Read a run; the log of one that is under way knows more than its row."""
        run, live = run_of(row), self._run_log.of_user(self._context, string(row, "run_id"))
        if live is None:
            return run
        usage = run.usage if run.state.is_terminal else live.usage
        return replace(run, last_seq=max(run.last_seq, live.last_seq), usage=usage)


def _has_gap(next_seq: int, events: Sequence[StoredEvent]) -> bool:
    return events[-1].seq - next_seq + 1 != len(events)
