"""The user's runs: accepting, reading, listing, and following their logs; on any engine."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, bindparam, exists, select

from parley_server.domain.context import RequestContext
from parley_server.domain.errors import CursorAheadError, NotFoundError, StorageUnavailableError
from parley_server.domain.run import Run, RunSpec
from parley_server.domain.run_event import StoredEvent
from parley_server.storage.repositories import Acceptance, Idempotency, Page, PageRequest, RunFilter
from parley_server.storage.sql import frames
from parley_server.storage.sql.acceptance import FIRST_TOKEN, RunAcceptance
from parley_server.storage.sql.database import Database
from parley_server.storage.sql.live_run import LiveRun
from parley_server.storage.sql.paging import PageTokens, fitting
from parley_server.storage.sql.rows import blob, number, run_of, string
from parley_server.storage.sql.run_log import RunLog
from parley_server.storage.sql.tables import conversations, run_archive, run_labels, runs
from parley_server.storage.sql.writer import Writer

_GET = select(runs).where(runs.c.user_id == bindparam("user_id"), runs.c.run_id == bindparam("run_id"))
_SIZED = ("labels_json", "end_json")
_OWN_CONVERSATION = select(conversations.c.conversation_id).where(
    conversations.c.user_id == bindparam("user_id"), conversations.c.conversation_id == bindparam("conversation_id")
)
# The archive page that holds a seq is the last one that starts at or before it.
_PAGE = (
    select(run_archive.c.first_seq, run_archive.c.frames)
    .where(run_archive.c.run_id == bindparam("run_id"), run_archive.c.first_seq <= bindparam("seq"))
    .order_by(run_archive.c.first_seq.desc())
    .limit(1)
)


class SqlRunRepository:
    """Implements `RunRepository` for one user."""

    def __init__(
        self, context: RequestContext, database: Database, writer: Writer, run_log: RunLog, tokens: PageTokens
    ) -> None:
        self._context = context
        self._database = database
        self._writer = writer
        self._run_log = run_log
        self._tokens = tokens

    async def accept(self, spec: RunSpec, idempotency: Idempotency | None) -> Acceptance:
        """Accept a run; see `RunRepository.accept`."""
        accepted = await self._writer.run(
            RunAcceptance(
                self._context,
                spec,
                idempotency,
                codec=self._run_log.codec,
                now=datetime.now(UTC),
            )
        )
        if accepted.run is None or accepted.event is None:
            return Acceptance(await self.get(accepted.run_id), created=False, starts_now=False)
        live = LiveRun(accepted.run, self._context.user_id, fencing_token=FIRST_TOKEN)
        live.journal_ids.append(accepted.journal_id)
        self._run_log.open(live, [accepted.event])
        return Acceptance(accepted.run, created=True, starts_now=accepted.starts_now)

    async def get(self, run_id: str) -> Run:
        """Return one; see `RunRepository.get`."""
        rows = await self._database.fetch(_GET, {"user_id": self._context.user_id, "run_id": run_id})
        if not rows:
            raise NotFoundError("run")
        return run_of(rows[0], last_seq=self._live_seq(run_id))

    async def list(self, run_filter: RunFilter, page: PageRequest) -> Page[Run]:
        """List, latest created first; see `RunRepository.list`."""
        user_id = self._context.user_id
        if run_filter.conversation_id and not await self._database.fetch(
            _OWN_CONVERSATION, {"user_id": user_id, "conversation_id": run_filter.conversation_id}
        ):
            raise NotFoundError("conversation")
        listing = ("runs", user_id, repr(run_filter))
        statement = (
            select(*(column for column in runs.c if column is not runs.c.output_text))
            .where(runs.c.user_id == user_id, *_conditions(run_filter))
            .order_by(runs.c.run_id.desc())
            .limit(page.size + 1)
        )
        if before := self._tokens.read(listing, page.token):
            statement = statement.where(runs.c.run_id < before)
        rows = await self._database.fetch(statement)
        taken = fitting(rows, page.size, _SIZED)
        items = tuple(run_of(row, last_seq=self._live_seq(string(row, "run_id"))) for row in rows[:taken])
        return Page(items, self._tokens.issue(listing, items[-1].run_id) if len(rows) > taken else "")

    async def watch(self, run_id: str, after_seq: int) -> AsyncGenerator[tuple[StoredEvent, ...]]:
        """Follow the log; see `RunRepository.watch`."""
        live = self._run_log.find(run_id)
        if live is not None and live.user_id == self._context.user_id:
            async with aclosing(live.follow(after_seq)) as batches:
                async for batch in batches:
                    yield batch
            return
        run = await self.get(run_id)
        if not run.state.is_terminal:
            # Unfinished and not in this process: its owner is not known here (yet).
            raise StorageUnavailableError
        async for batch in self._archived(run, after_seq):
            yield batch

    async def _archived(self, run: Run, after_seq: int) -> AsyncGenerator[tuple[StoredEvent, ...]]:
        if after_seq > run.last_seq:
            raise CursorAheadError(run.last_seq)
        while after_seq < run.last_seq:
            rows = await self._database.fetch(_PAGE, {"run_id": run.run_id, "seq": after_seq + 1})
            events = frames.unpack(number(rows[0], "first_seq"), blob(rows[0], "frames"))
            yield tuple(event for event in events if event.seq > after_seq)
            after_seq = events[-1].seq

    def _live_seq(self, run_id: str) -> int | None:
        live = self._run_log.find(run_id)
        return None if live is None else live.last_seq


def _conditions(run_filter: RunFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if run_filter.conversation_id:
        conditions.append(runs.c.conversation_id == run_filter.conversation_id)
    if run_filter.agent_id:
        conditions.append(runs.c.agent_id == run_filter.agent_id)
    if run_filter.states:
        conditions.append(runs.c.state.in_(run_filter.states))
    for key, value in run_filter.labels:
        label = (run_labels.c.run_id == runs.c.run_id) & (run_labels.c.key == key) & (run_labels.c.value == value)
        conditions.append(exists().where(label))
    return conditions
