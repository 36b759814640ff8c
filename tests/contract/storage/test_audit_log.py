"""The audit log on every engine: gapless, listed as asked for, append-only, and truncated without losing its proof."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from parley_server.domain.audit import AuditDecision, AuditEntry, AuditHead, RecordedEntry
from parley_server.domain.errors import PageTokenInvalidError
from parley_server.storage.audit_log import AuditFilter
from parley_server.storage.page import PageRequest
from parley_server.storage.retention import RetentionSettings, Sweeper
from parley_server.storage.sql.row_security import lift
from parley_server.storage.sql.store import SqlStore
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ALL = AuditFilter()


def entry(number: int, **changes: str) -> AuditEntry:
    return AuditEntry(
        BEGIN + timedelta(hours=number),
        changes.get("action", "delete"),
        AuditDecision(changes.get("decision", "allowed")),
        principal=changes.get("principal", "service:bot"),
        actors=("service:bot", "service:gate"),
        user_id=changes.get("user_id", "ann"),
        object_type="conversation",
        object_id=f"conv_{number}",
        request_id=f"req_{number}",
        peer="ipv4:10.0.0.1:5",
        credential_id="key",
        about=number or None,
        left_out=number,
    )


async def listed(store: SqlStore, only: AuditFilter = ALL, size: int = 100) -> list[RecordedEntry]:
    found: list[RecordedEntry] = []
    page = await store.audit.list(PageRequest(size), only)
    while True:
        found += page.items
        if not page.next_token:
            return found
        page = await store.audit.list(PageRequest(size, page.next_token), only)


async def test_what_is_recorded_comes_back_latest_first(store: SqlStore) -> None:
    entries = [entry(number) for number in range(5)]
    assert [await store.audit.record(each) for each in entries] == [1, 2, 3, 4, 5]
    found = await listed(store, size=2)
    assert [each.entry for each in found] == entries[::-1]
    assert [each.position for each in found] == [5, 4, 3, 2, 1]
    assert await store.audit_reader.head() == found[0].head


@pytest.mark.parametrize(
    ("only", "positions"),
    [
        (AuditFilter(user_id="bob"), [2]),
        (AuditFilter(principal="operator:root"), [3]),
        (AuditFilter(action="rotate"), [4]),
        (AuditFilter(decision=AuditDecision.DENIED), [5]),
        (AuditFilter(start_time=BEGIN + timedelta(hours=3)), [5, 4]),
        (AuditFilter(end_time=BEGIN + timedelta(hours=1)), [1]),
        (AuditFilter(user_id="ann", decision=AuditDecision.ALLOWED), [4, 3, 1]),
        (AuditFilter(user_id="an"), []),
    ],
)
async def test_a_filter_leaves_what_it_names(store: SqlStore, only: AuditFilter, positions: list[int]) -> None:
    changes = [{}, {"user_id": "bob"}, {"principal": "operator:root"}, {"action": "rotate"}, {"decision": "denied"}]
    await store.audit.record_all([entry(number, **change) for number, change in enumerate(changes)])
    assert [each.position for each in await listed(store, only, size=1)] == positions


async def test_a_page_token_is_good_for_its_filter_alone(store: SqlStore) -> None:
    await store.audit.record_all([entry(0), entry(1)])
    token = (await store.audit.list(PageRequest(1), ALL)).next_token
    with pytest.raises(PageTokenInvalidError):
        await store.audit.list(PageRequest(1, token), AuditFilter(user_id="ann"))


async def test_many_at_once_and_two_processes_leave_no_gap(open_same_store: OpenStore) -> None:
    async with open_same_store() as one, open_same_store() as other:
        positions = await asyncio.gather(
            *((one, other)[number % 2].audit.record(entry(number)) for number in range(200))
        )
        report = await one.audit_reader.verify()
    assert sorted(positions) == list(range(1, 201))
    assert (report.count, report.problem) == (200, None)
    assert report.head is not None
    assert report.head.position == 200


async def test_a_restart_goes_on_with_the_same_chain(open_same_store: OpenStore) -> None:
    for number in range(3):
        async with open_same_store() as store:
            assert await store.audit.record(entry(number)) == number + 1
            assert (await store.audit_reader.verify()).problem is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET peer = '' WHERE position = 2",
        "DELETE FROM audit_log WHERE position = 2",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "REPLACE INTO audit_log SELECT * FROM audit_log WHERE position = 2",
    ],
)
async def test_the_database_takes_new_rows_and_nothing_else(
    engine: Engine, open_same_store: OpenStore, statement: str
) -> None:
    async with open_same_store() as store:
        await store.audit.record_all([entry(number) for number in range(3)])
    before = await engine.rows("SELECT * FROM audit_log ORDER BY position")

    def change(connection: Connection) -> None:
        # Behind the wall there is no row that it could change.
        lift(connection)
        connection.execute(text(statement))

    async with engine.open() as database:
        with pytest.raises(Exception) as refused:  # noqa: PT011  # each engine has its own
            await database.transaction(change)
    assert isinstance(refused.value.__cause__, DBAPIError | sqlite3.Error)
    assert await engine.rows("SELECT * FROM audit_log ORDER BY position") == before


@asynccontextmanager
async def truncated_log(open_same_store: OpenStore, days: int = 10) -> AsyncIterator[SqlStore]:
    """Open a log of whose ten days, an entry a day, `days` are kept."""
    async with open_same_store() as store:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        for number in range(10):
            moment = today - timedelta(days=10 - number - 1)
            await store.audit.record(AuditEntry(moment, "delete", object_id=str(number)))
        await Sweeper(store.retention, RetentionSettings(), audit_days=days).sweep()
        yield store


async def test_what_is_older_than_it_is_kept_goes_and_the_rest_verifies(open_same_store: OpenStore) -> None:
    async with truncated_log(open_same_store, days=3) as store:
        found = await listed(store)
        assert [each.entry.object_id for each in found[1:]] == ["9", "8", "7", "6"]
        truncation = found[0].entry
        assert (truncation.action, truncation.principal, truncation.about) == ("audit truncate", "server", 6)
        report = await store.audit_reader.verify()
        assert (report.count, report.problem) == (5, None)
        assert (await store.audit_reader.verify(9)).problem is None


async def test_a_log_from_which_nothing_is_due_is_left_as_it_is(open_same_store: OpenStore) -> None:
    async with truncated_log(open_same_store) as store:
        assert len(await listed(store)) == 10
        await Sweeper(store.retention, RetentionSettings()).sweep()
        assert len(await listed(store)) == 10


async def test_a_log_all_of_which_is_old_keeps_the_word_of_it(store: SqlStore) -> None:
    await store.audit.record_all([entry(number) for number in range(5)])
    assert await store.audit.truncate(datetime.now(UTC)) == 5
    assert [each.position for each in await listed(store)] == [6]
    assert (await store.audit_reader.verify()).problem is None


async def test_an_expected_head_is_found_or_its_want_is_told(open_same_store: OpenStore) -> None:
    async with truncated_log(open_same_store, days=3) as store:
        heads: Sequence[AuditHead] = [each.head for each in await listed(store)]
        for head in heads:
            assert (await store.audit_reader.verify(1, head)).problem is None
        for wrong in (AuditHead(12, bytes(32)), AuditHead(9, bytes(32)), AuditHead(3, bytes(32))):
            report = await store.audit_reader.verify(1, wrong)
            assert report.problem is not None
            assert report.problem.position == wrong.position
