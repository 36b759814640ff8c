"""The store in this process, on either engine."""

import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from parley_server.domain.content import TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import ALL_SCOPES, Principal, PrincipalKind
from parley_server.domain.run import Run, RunSpec
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.run_log import RunAppender
from parley_server.storage.sql.database import Database
from parley_server.storage.sql.postgres import PostgresDatabase
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore, open_store

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))  # the private PostgreSQL of the tests

from postgres_server import PostgresServer, running_postgres  # noqa: E402  # found by the line above

__all__ = ["PostgresServer", "running_postgres"]

AnyDatabase = SqliteDatabase | PostgresDatabase

_PAGE_TOKEN_KEY = b"a benchmark's page tokens, no secret"


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for a block, on the disk of the repository: what is temporary may live in memory."""
    beside = ROOT / ".venv-bench"
    beside.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as name:
        yield Path(name)


@dataclass(frozen=True)
class Place:
    """An engine's own place for one database: a data directory, and a URL if the database is elsewhere."""

    engine: str
    data_dir: Path
    url: str = ""

    @property
    def path(self) -> Path:
        """The file of SQLite's."""
        return self.data_dir / "parley.db"

    def database(self) -> AnyDatabase:
        """Return the database, not yet opened."""
        return PostgresDatabase(self.url) if self.url else SqliteDatabase(self.path)


@asynccontextmanager
async def places(postgres: PostgresServer) -> AsyncIterator[tuple[Place, Place]]:
    """Make a place of each engine for a block; both have the schema, and nothing in it."""
    with folder() as data_dir, folder() as other_data_dir:
        async with SqliteDatabase(data_dir / "parley.db"):
            pass
        async with postgres.database() as url:
            yield Place("SQLite", data_dir), Place("PostgreSQL", other_data_dir, url)


@asynccontextmanager
async def opened(database: AnyDatabase) -> AsyncIterator[SqlStore]:
    """Open the store over a database."""
    async with database:
        held: Database = database
        async with open_store(held, ProtoEventCodec(), _PAGE_TOKEN_KEY) as store:
            yield store


def context_of(user_id: str) -> RequestContext:
    """Return the context of a user's request of this moment."""
    principal = Principal(kind=PrincipalKind.USER, subject=user_id, scopes=ALL_SCOPES, method="benchmark")
    return RequestContext(user_id=user_id, principal=principal, request_id="req", timestamp=datetime.now(UTC))


async def accepted(
    store: SqlStore, context: RequestContext, text: str = "hello", conversation_id: str = ""
) -> tuple[Run, RunAppender]:
    """Accept a run; return it and its pen."""
    spec = RunSpec(agent_id="assistant", conversation_id=conversation_id, input=(TextPart(text),))
    acceptance = await store.for_user(context).runs.accept(spec, None)
    return acceptance.run, store.worker.appender(acceptance.run.run_id)
