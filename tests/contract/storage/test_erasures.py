"""Erasing a user on every engine: no row and no byte of his is left, and nothing of anybody else's is gone."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from contract.storage.conftest import OpenStore, context_for
from contract.storage.engines import Engine, PostgresEngine, Rows
from contract.storage.full_user import erase, fill, scrub, service_key, wait_for_approval
from contract.storage.test_repositories import answer, spec
from parley_server.domain.access_errors import AccountErasingError
from parley_server.domain.context import RequestContext
from parley_server.storage.sql.store import SqlStore
from parley_server.storage.sql.tables import metadata
from parley_server.storage.sql.usage_erasure import NOBODY
from postgres_server import PostgresServer, session_on

CANARY = "canary7f3a"
HIS = "harbour4711"


async def tables_of(engine: Engine) -> Mapping[str, Rows]:
    """Return every row there is, by its table, but for the journal, which is swept by the way."""
    tables = [table for name, table in metadata.tables.items() if name != "run_journal"]
    found = {}
    for table in tables:
        columns = ", ".join(f'"{column.name}"' for column in table.c)
        found[table.name] = sorted(await engine.rows(f"SELECT {columns} FROM {table.name}"), key=repr)  # noqa: S608
    return found


def occurrences(folder: Path, word: str) -> dict[str, int]:
    """Count a word in all files below a folder, whatever the case."""
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    counts = {name: file.read_bytes().lower().count(word.encode()) for name, file in files.items()}
    return {name: count for name, count in counts.items() if count}


async def files_of(engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return where an engine keeps the database, once all of it is there that is only in memory so far."""
    if not isinstance(engine, PostgresEngine):
        return tmp_path
    server: PostgresServer = request.getfixturevalue("postgres")
    async with session_on(engine.url) as session:
        await session.execute("CHECKPOINT")
        ((oid,),) = await engine.rows("SELECT oid FROM pg_database WHERE datname = current_database()")
    # What the log of the engine itself (pg_wal) still has it overwrites by and by.
    return server.data / "base" / str(oid)


async def sample(engine: Engine) -> None:
    """Have PostgreSQL look at what it has, as it does by itself."""
    if isinstance(engine, PostgresEngine):
        async with session_on(engine.url) as session:
            await session.execute("ANALYZE")


def others(tables: Mapping[str, Rows], user_id: str) -> Mapping[str, Rows]:
    """Return the rows that have nothing to do with a user: neither he nor an id of his is in them."""
    his: set[object] = {user_id}
    for table in metadata.tables.values():
        columns = table.c.keys()
        for name in {"conversation_id", "run_id", "result_id"} & set(columns):
            if "user_id" in columns and table.name in tables:
                user, place = columns.index("user_id"), columns.index(name)
                his |= {row[place] for row in tables[table.name] if row[user] == user_id}
    return {name: [row for row in rows if not his & {cell for cell in row if cell}] for name, rows in tables.items()}


async def test_no_row_and_no_byte_is_left_and_others_keep_everything(
    open_same_store: OpenStore, engine: Engine, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    ann, bob = context_for("ann"), context_for("bob")
    async with open_same_store() as store:
        # Side by side, so that their rows are in the same pages.
        await asyncio.gather(fill(store, bob, HIS), fill(store, ann, CANARY))
        run = await wait_for_approval(store, ann, CANARY)
        await sample(engine)
        assert sum(occurrences(await files_of(engine, request, tmp_path), CANARY).values()) > 500
        filled = await tables_of(engine)
        kept = others(filled, "ann")
        untouched = {name for name in filled if filled[name] == kept[name]}
        assert untouched == {"audit_log", "budgets", "erasures", "quota_holds", "steers"}
        await store.worker.appender(run.run_id).finish(answer("x"))
        await store.api_keys.create(service_key("ann"))
        await erase(store, "ann")
        left = await tables_of(engine)
        [service] = [row for row in left["api_keys"] if row[1] == "service"]
        # What was used counts on where limits are for many together, and nobody can tell whose it was.
        [unnamed] = [row for row in left["usage_days"] if row[0] == NOBODY]
        assert (unnamed[2], unnamed[3]) == (NOBODY, "")
        more = {"api_keys": service, "usage_days": unnamed}
        assert {name: [row for row in rows if row != more.get(name)] for name, rows in left.items()} == kept
        assert occurrences(await files_of(engine, request, tmp_path), CANARY) == {}
    assert occurrences(await files_of(engine, request, tmp_path), CANARY) == {}


async def test_what_is_written_for_a_user_meanwhile_is_refused_and_what_was_asked_before_too(
    store: SqlStore, ann: RequestContext, bob: RequestContext
) -> None:
    await store.erasures.begin("ann")
    for write in (
        store.for_user(ann).runs.accept(spec(), None),
        store.for_user(ann).conversations.create("new", {}),
        store.for_user(ann).notes.add("new"),
    ):
        with pytest.raises(AccountErasingError):
            await write
    await store.for_user(bob).notes.add("his own")
    assert await store.erasures.finish("ann")
    with pytest.raises(AccountErasingError):
        await store.for_user(ann).notes.add("asked for long ago")
    await asyncio.sleep(0)
    await store.for_user(context_for("ann")).notes.add("a new beginning")


async def test_an_erasure_ends_when_nothing_is_left_and_is_found_again_until_then(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        run = (await store.for_user(ann).runs.accept(spec(), None)).run
        await store.for_user(ann).notes.add("a note")
        await store.erasures.begin("ann")
        await store.erasures.begin("ann")
        assert await store.erasures.live_runs("ann") == (run.run_id,)
        assert not await store.erasures.finish("ann")
    async with open_same_store() as store:
        assert await store.erasures.pending() == ("ann",)
        with pytest.raises(AccountErasingError):
            await store.for_user(context_for("ann")).notes.add("new")
        await store.worker.take_over()
        await store.worker.appender(run.run_id).finish(answer("x"))
        assert not await store.erasures.finish("ann")
        while await store.erasures.erase_some("ann"):
            pass
        await scrub(store)
        assert await store.erasures.finish("ann")
        assert await store.erasures.pending() == ()
