"""`parley-server db compact`: what deletion leaves in a large database goes when it is written anew."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from contract.storage.conftest import context_for
from contract.storage.engines import Engine, PostgresEngine, SqliteEngine
from contract.storage.full_user import erase, fill
from contract.storage.test_erasures import files_of, occurrences
from nursery import ran
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql import postgres_scrub, sqlite_scrub
from parley_server.storage.sql.store import open_store
from postgres_server import PostgresServer
from server_process import running_server

CANARY = "canary7f3a"


@dataclass(frozen=True)
class Installation:
    """A data directory and its database."""

    engine: Engine
    data_dir: Path
    url: str

    def compact(self) -> tuple[int, str]:
        command = [sys.executable, "-m", "parley_server", "db", "compact", "--data-dir", str(self.data_dir)]
        done = ran(command, os.environ | ({"PARLEY_STORAGE__URL": self.url} if self.url else {}))
        return done.returncode, done.stderr


@pytest.fixture(params=["sqlite", "postgres"])
async def installation(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Installation]:
    if request.param == "sqlite":
        yield Installation(SqliteEngine(tmp_path / "parley.db"), tmp_path, "")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    async with server.database() as url:
        yield Installation(PostgresEngine(url), tmp_path, url)


async def test_what_is_too_large_to_be_written_anew_at_once_is_told_and_goes_later(
    installation: Installation, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sqlite_scrub, postgres_scrub):
        monkeypatch.setattr(module, "REWRITTEN_BYTES", 1)
    async with installation.engine.open() as database, open_store(database, ProtoEventCodec(), b"k") as store:
        others = [fill(store, context_for(user), "others4711", 6) for user in ("bob", "zoe")]
        await asyncio.gather(fill(store, context_for("ann"), CANARY, 6), *others)
        await erase(store, "ann")
    before = await installation.engine.rows("SELECT count(*) FROM messages")
    assert await asyncio.to_thread(installation.compact) == (0, "")
    assert occurrences(await files_of(installation.engine, request, tmp_path), CANARY) == {}
    assert await installation.engine.rows("SELECT count(*) FROM messages") == before


def test_a_file_that_a_server_has_is_left_alone(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        code, told = Installation(SqliteEngine(tmp_path / "parley.db"), tmp_path, "").compact()
        assert code != 0
        assert server.address in told
