"""The SQL store: all repositories over one database, opened and closed together."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from parley_server.domain.audit_chain import AuditChain
from parley_server.domain.context import RequestContext
from parley_server.domain.run_event import EventCodec
from parley_server.metrics.recorder import SILENT, Recorder
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.repositories import UserStore
from parley_server.storage.sql.accounts import SqlAccountDirectory
from parley_server.storage.sql.acting import ADMINISTRATION, RUN_LOG, acting_for
from parley_server.storage.sql.api_keys import SqlApiKeyRepository
from parley_server.storage.sql.archive import ArchiveReader
from parley_server.storage.sql.audit_log import SqlAuditLog
from parley_server.storage.sql.audit_verification import AuditReader
from parley_server.storage.sql.budgets import SqlBudgetRepository
from parley_server.storage.sql.clock import Clock, utc_now
from parley_server.storage.sql.database import MICROSECOND, Database, Reader
from parley_server.storage.sql.erasures import SqlErasures
from parley_server.storage.sql.retention import SqlRetention
from parley_server.storage.sql.run_log import RunLog
from parley_server.storage.sql.usage import SqlUsageRepository
from parley_server.storage.sql.user_store import SqlUserStore
from parley_server.storage.sql.user_writer import ErasureGate, UserWriter
from parley_server.storage.sql.worker_store import SqlWorkerStore
from parley_server.storage.sql.writer import Writer, Writes


class SqlStore:
    """Implements `Store`; `worker`, `retention`, `erasures`, `audit` and `audit_reader` are doors for those who may."""

    def __init__(
        self, database: Database, writer: Writer, run_log: RunLog, hash_key: bytes, *, ttl: int | None
    ) -> None:
        self._database = database
        self._writer = writer
        self._run_log = run_log
        self.page_tokens = tokens = PageTokens(hash_key)
        self._ttl = ttl
        chain = AuditChain(hash_key)
        # Of no user's, or of all: what is handed on from here is told apart by who may have which door.
        reader, writes = Reader(database, ADMINISTRATION), Writes(writer, ADMINISTRATION)
        self.audit = SqlAuditLog(reader, writes, tokens, chain)
        self.audit_reader = AuditReader(reader, chain)
        self.api_keys = SqlApiKeyRepository(reader, writes, tokens)
        self._gate = ErasureGate()
        self.accounts = SqlAccountDirectory(database)
        self.erasures = SqlErasures(database, reader, writes, run_log, self._gate)
        self.usage = SqlUsageRepository("", reader, tokens)
        self.budgets = SqlBudgetRepository(reader, writes, run_log.clock)
        self.worker = SqlWorkerStore(writes, Writes(writer, RUN_LOG), run_log)
        self.retention = SqlRetention(reader, writes, run_log, self.audit, ttl=ttl)

    def watch_availability(self, tell: Callable[[bool], None]) -> None:
        """Call `tell` when the store can write no more, and when it can again."""
        self._writer.watch_availability(tell)

    def for_user(self, context: RequestContext) -> UserStore:
        """Open the store for one user; see `Store.for_user`."""
        acting = acting_for(context.user_id)
        reader = Reader(self._database, acting)
        writes = UserWriter(Writes(self._writer, acting), self._gate, context)
        return SqlUserStore(context, reader, writes, self._run_log, self.page_tokens, ttl=self._ttl)


@asynccontextmanager
async def open_store(
    database: Database,
    codec: EventCodec,
    hash_key: bytes,
    recorder: Recorder = SILENT,
    conversation_ttl: timedelta | None = None,
    clock: Clock = utc_now,
) -> AsyncIterator[SqlStore]:
    """Open the store over an open database; on leaving, what was appended is committed first.

    Page tokens and the audit log are bound by keys made of `hash_key`. Conversations expire `conversation_ttl` after
    their last change; None: never. `clock` tells the time of what is used and of what limits leave.
    """
    writer = Writer(database, recorder)
    run_log = RunLog(writer, ArchiveReader(), codec, recorder, clock)
    try:
        async with writer:
            ttl = None if conversation_ttl is None else conversation_ttl // MICROSECOND
            yield SqlStore(database, writer, run_log, hash_key, ttl=ttl)
    finally:
        run_log.close()
