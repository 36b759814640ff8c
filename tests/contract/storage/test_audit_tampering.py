"""Whoever has the whole database and not the key can change nothing of the audit log unnoticed; on every engine."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parley_server.domain.audit import AuditDecision, AuditEntry, AuditHead, AuditReport
from parley_server.domain.audit_chain import AuditChain
from parley_server.storage.sql.acting import ADMINISTRATION
from parley_server.storage.sql.audit_rows import row_of_entry
from parley_server.storage.sql.audit_verification import AuditReader
from parley_server.storage.sql.database import Database, Reader
from parley_server.storage.sql.tables import audit_log
from sqlalchemy import Connection, delete, insert, select, text

HASH_KEY = b"page token key"
ROWS = 12
# What stands in the way of the owner of the tables.
BARS = {
    "sqlite": [f"DROP TRIGGER audit_log_{event}" for event in ("update", "delete", "insert")],
    "postgresql": ["ALTER TABLE audit_log DISABLE TRIGGER USER", "ALTER TABLE audit_log NO FORCE ROW LEVEL SECURITY"],
}
NAMES = [column.name for column in audit_log.columns]

Log = list[dict[str, object]]


@dataclass
class Stolen:
    """The whole of a log in the hands of somebody who has no key; `genuine` is what it should say."""

    database: Database
    genuine: Log
    is_truncated: bool

    async def report_on(self, rows: Log, expected: AuditHead | None = None) -> AuditReport:
        """Put `rows` in the log's place and verify them."""

        def put(connection: Connection) -> None:
            connection.execute(delete(audit_log))
            if rows:
                connection.execute(insert(audit_log), rows)

        await self.database.transaction(put)
        return await AuditReader(Reader(self.database, ADMINISTRATION), AuditChain(HASH_KEY)).verify(1, expected)


def entry(number: int) -> AuditEntry:
    names = ("", "ann", "service:bot")
    return AuditEntry(
        datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        "delete",
        list(AuditDecision)[number % 2],
        principal=names[number % 3],
        actors=names[1 : number % 3 + 1],
        user_id="ann",
        object_id=f"conv_{number}",
        about=number if number % 4 == 3 else None,
    )


@pytest.fixture(params=[0, 5])
async def stolen(engine: Engine, open_same_store: OpenStore, request: pytest.FixtureRequest) -> AsyncIterator[Stolen]:
    """A log as it was written, or one whose first five entries were truncated."""
    truncated: int = request.param
    async with open_same_store() as store:
        await store.audit.record_all([entry(number) for number in range(ROWS + truncated)])
        await store.audit.truncate(entry(truncated).time)
    async with engine.open() as database:

        def take(connection: Connection) -> Log:
            for statement in BARS[connection.dialect.name]:
                connection.execute(text(statement))
            rows = connection.execute(select(audit_log).order_by(audit_log.c.position)).mappings()
            return [dict(row) for row in rows]

        yield Stolen(database, await database.transaction(take), is_truncated=bool(truncated))


def other(value: object, data: st.DataObject) -> object:
    """Draw another value for a column."""
    match value:
        case bytes():
            drawn: st.SearchStrategy[object] = st.binary(min_size=32, max_size=32) | st.sampled_from([b"", bytes(32)])
        case str():
            words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=16)
            drawn = words | st.sampled_from(["allowed", "denied", value + " ", " " + value, value.upper()])
        case _:
            drawn = st.integers(-(2**63), 2**63 - 1) | st.integers(0, ROWS + 1)
    return data.draw(drawn.filter(lambda new: new != value))


def changed(log: Log, data: st.DataObject) -> Log:
    place, name = data.draw(st.integers(0, len(log) - 1)), data.draw(st.sampled_from(NAMES))
    row = log[place] | {name: other(log[place][name], data)}
    if name == "decision":
        row[name] = str(row[name])[:16]
    return without_clash([*log[:place], row, *log[place + 1 :]])


def deleted(log: Log, data: st.DataObject) -> Log:
    first = data.draw(st.integers(0, len(log) - 2))
    last = data.draw(st.integers(first + 1, len(log) - 1))
    return log[:first] + log[last:]


def deleted_and_closed_up(log: Log, data: st.DataObject) -> Log:
    return numbered(deleted(log, data), log)


def swapped(log: Log, data: st.DataObject) -> Log:
    one, two = data.draw(st.lists(st.integers(0, len(log) - 1), min_size=2, max_size=2, unique=True))
    rows = list(log)
    rows[one], rows[two] = log[two], log[one]
    return numbered(rows, log)


def put_in(log: Log, data: st.DataObject) -> Log:
    place, copied = data.draw(st.integers(0, len(log))), data.draw(st.integers(0, len(log) - 1))
    return numbered([*log[:place], log[copied], *log[place:]], log)


def numbered(rows: Log, log: Log) -> Log:
    """Give rows the positions that an untouched log of as many has."""
    start = log[0]["position"]
    assert isinstance(start, int)
    return [row | {"position": start + number} for number, row in enumerate(rows)]


def without_clash(rows: Log) -> Log:
    """Keep the last of those rows that now have one position."""
    return list({row["position"]: row for row in rows}.values())


TAMPERINGS: Sequence[Callable[[Log, st.DataObject], Log]] = (
    changed,
    changed,
    deleted,
    deleted_and_closed_up,
    swapped,
    put_in,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_no_tampering_goes_unnoticed_but_the_want_of_the_newest(stolen: Stolen, data: st.DataObject) -> None:
    rows = data.draw(st.sampled_from(TAMPERINGS))(stolen.genuine, data)
    is_prefix = rows == stolen.genuine[: len(rows)]
    # Whatever was truncated is told by the newest entry.
    may_pass = rows == stolen.genuine if stolen.is_truncated else is_prefix
    assert ((await stolen.report_on(rows)).problem is None) == may_pass
    if not may_pass and not is_prefix:
        return
    newest = stolen.genuine[-1]
    position, mac = newest["position"], newest["mac"]
    assert isinstance(position, int)
    assert isinstance(mac, bytes)
    expected = AuditHead(position, mac)
    assert ((await stolen.report_on(rows, expected)).problem is None) == (rows == stolen.genuine)


async def test_the_first_wrong_entry_is_named(stolen: Stolen) -> None:
    start = int(str(stolen.genuine[0]["position"]))
    for place in range(1, ROWS):
        gone = await stolen.report_on([*stolen.genuine[:place], *stolen.genuine[place + 1 :]])
        if place < len(stolen.genuine) - 1:
            assert gone.problem is not None
            assert (gone.problem.position, gone.count) == (start + place, place)
        edited = [*stolen.genuine]
        edited[place] = edited[place] | {"peer": "elsewhere"}
        report = await stolen.report_on(edited)
        assert report.problem is not None
        assert (report.problem.position, report.count) == (start + place, place)


async def test_what_a_stranger_writes_with_a_key_of_his_own_does_not_verify(stolen: Stolen) -> None:
    forger = AuditChain(b"a guess")
    newest = stolen.genuine[-1]
    head = AuditHead(int(str(newest["position"])), bytes(str(newest["mac"]), "ascii")[:32])
    forged = row_of_entry(forger.follow(head, entry(1)))
    report = await stolen.report_on([*stolen.genuine, forged])
    assert report.problem is not None
    assert report.problem.position == head.position + 1


async def test_a_database_that_never_was_audited_is_whole(engine: Engine) -> None:
    async with engine.open() as database:
        reader = AuditReader(Reader(database, ADMINISTRATION), AuditChain(HASH_KEY))
        assert await reader.verify() == AuditReport(0, None, None, None, None)
        assert await reader.head() is None
        report = await reader.verify(expected=AuditHead(1, bytes(32)))
    assert report.problem is not None


def nudged(name: str, value: object) -> object:
    match value:
        case _ if name == "decision":
            return "denied" if value == "allowed" else "allowed"
        case str():
            return f"{value}x"
        case bytes():
            return value[::-1]
        case int():
            return value + 100
        case _:
            return 1


@pytest.mark.parametrize("name", NAMES)
async def test_every_column_counts(stolen: Stolen, name: str) -> None:
    for place in (1, 3):
        edited = [dict(row) for row in stolen.genuine]
        edited[place][name] = nudged(name, edited[place][name])
        report = await stolen.report_on(edited)
        assert report.problem is not None
        assert report.count == place
