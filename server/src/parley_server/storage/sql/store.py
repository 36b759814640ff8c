"""The SQL store: all repositories over one database, opened and closed together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from parley_server.domain.context import RequestContext
from parley_server.domain.run_event import EventCodec
from parley_server.storage.repositories import ConversationRepository, RunRepository, UserStore
from parley_server.storage.sql.api_keys import SqlApiKeyRepository
from parley_server.storage.sql.conversations import SqlConversationRepository
from parley_server.storage.sql.database import Database
from parley_server.storage.sql.paging import PageTokens
from parley_server.storage.sql.run_log import RunLog
from parley_server.storage.sql.runs import SqlRunRepository
from parley_server.storage.sql.worker_store import SqlWorkerStore
from parley_server.storage.sql.writer import Writer


@dataclass(frozen=True, slots=True)
class SqlUserStore:
    """Implements `UserStore`."""

    conversations: ConversationRepository
    runs: RunRepository


class SqlStore:
    """Implements `Store`; `worker` is the other door, handed only to those who may have it."""

    def __init__(self, database: Database, writer: Writer, run_log: RunLog, tokens: PageTokens) -> None:
        self._database = database
        self._writer = writer
        self._run_log = run_log
        self._tokens = tokens
        self.api_keys = SqlApiKeyRepository(database, writer, tokens)
        self.worker = SqlWorkerStore(writer, run_log)

    def for_user(self, context: RequestContext) -> UserStore:
        """Open the store for one user; see `Store.for_user`."""
        return SqlUserStore(
            SqlConversationRepository(context, self._database, self._writer, self._run_log, self._tokens),
            SqlRunRepository(context, self._database, self._writer, self._run_log, self._tokens),
        )


@asynccontextmanager
async def open_store(database: Database, codec: EventCodec, page_token_key: bytes) -> AsyncIterator[SqlStore]:
    """Open the store over an open database; on leaving, what was appended is committed first."""
    writer = Writer(database)
    run_log = RunLog(writer, codec)
    try:
        async with writer:
            yield SqlStore(database, writer, run_log, PageTokens(page_token_key))
    finally:
        run_log.close()
