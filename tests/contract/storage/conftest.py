"""One suite for every engine: the fixtures hand each test a store on a real database."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest
from contract.storage.engines import Engine, PostgresEngine, SqliteEngine
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import ALL_SCOPES, Principal, PrincipalKind
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql.clock import Clock, utc_now
from parley_server.storage.sql.store import SqlStore, open_store
from postgres_server import PostgresServer


class OpenStore(Protocol):
    """Opens the same database again and again: what a restart does."""

    def __call__(
        self, *, ttl: timedelta | None = None, clock: Clock = utc_now
    ) -> AbstractAsyncContextManager[SqlStore]: ...


@pytest.fixture(params=["sqlite", "postgres"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """A fresh database."""
    if request.param == "sqlite":
        yield SqliteEngine(tmp_path / "parley.db")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    async with server.database() as url:
        yield PostgresEngine(url)


@pytest.fixture
def open_same_store(engine: Engine) -> OpenStore:
    @asynccontextmanager
    async def opened(*, ttl: timedelta | None = None, clock: Clock = utc_now) -> AsyncIterator[SqlStore]:
        async with (
            engine.open() as database,
            open_store(database, ProtoEventCodec(), b"page token key", conversation_ttl=ttl, clock=clock) as store,
        ):
            yield store

    return opened


@pytest.fixture
async def store(open_same_store: OpenStore) -> AsyncIterator[SqlStore]:
    async with open_same_store() as opened:
        yield opened


def context_for(user_id: str) -> RequestContext:
    principal = Principal(kind=PrincipalKind.USER, subject=user_id, scopes=ALL_SCOPES, method="test")
    return RequestContext(user_id=user_id, principal=principal, request_id="req", timestamp=datetime.now(UTC))


@pytest.fixture
def ann() -> RequestContext:
    return context_for("ann")


@pytest.fixture
def bob() -> RequestContext:
    return context_for("bob")
