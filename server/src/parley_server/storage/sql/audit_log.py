"""The audit log on any engine: every entry behind the last one, bound to it by the chain."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select

from parley_server.domain.audit import SERVER, TRUNCATE, AuditEntry, AuditHead, RecordedEntry
from parley_server.domain.audit_chain import BEFORE_ALL, AuditChain
from parley_server.storage.audit_log import AuditFilter
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.sql.audit_rows import entry_of_row, row_of_entry
from parley_server.storage.sql.database import Reader, to_micros
from parley_server.storage.sql.statements import first, write
from parley_server.storage.sql.tables import audit_log
from parley_server.storage.sql.writer import Writes

# What one transaction of a truncation takes away.
TRUNCATED_ROWS = 2000

HEAD = select(audit_log.c.position, audit_log.c.mac).order_by(audit_log.c.position.desc()).limit(1)
FIRST = select(audit_log.c.position).order_by(audit_log.c.position).limit(1)
_INSERT = insert(audit_log)
_FIRST_YOUNG = select(func.min(audit_log.c.position)).where(
    audit_log.c.position < bindparam("end"), audit_log.c.time >= bindparam("before")
)
_LAST_BEFORE = HEAD.where(audit_log.c.position < bindparam("end"))


class SqlAuditLog:
    """Implements `AuditLog`; `truncate` is for the sweeper alone."""

    def __init__(self, reader: Reader, writes: Writes, tokens: PageTokens, chain: AuditChain) -> None:
        self._reader = reader
        self._writes = writes
        self._tokens = tokens
        self._chain = chain
        self.last_position = 0
        """The last entry that this process has written; 0: none yet."""

    async def record(self, entry: AuditEntry) -> int:
        """Store an entry; see `AuditRecorder.record`."""
        return await self._append([entry])

    async def record_all(self, entries: Sequence[AuditEntry]) -> None:
        """Store entries; see `AuditRecorder.record_all`."""
        if entries:
            await self._append(entries)

    async def list(self, page: PageRequest, only: AuditFilter) -> Page[RecordedEntry]:
        """List, latest first; see `AuditLog.list`."""
        conditions = _conditions(only)
        listing = ("audit_log", *conditions)
        statement = select(audit_log).where(*conditions.values())
        if place := self._tokens.read(listing, page.token):
            statement = statement.where(audit_log.c.position < int(place))
        rows = await self._reader.fetch(statement.order_by(audit_log.c.position.desc()).limit(page.size + 1))
        items = tuple(map(entry_of_row, rows[: page.size]))
        next_token = self._tokens.issue(listing, str(items[-1].position)) if len(rows) > page.size else ""
        return Page(items, next_token)

    async def truncate(self, before: datetime) -> int:
        """Take away a part of the oldest entries, if they are from before then; return how many they were.

        Those go that come before the first entry which is not, so that what is left is without a gap. What the last of
        them was is told by a new entry, so that the rest can be verified.
        """
        return await self._writes.run(lambda connection: self._truncate(connection, before))

    async def _append(self, entries: Sequence[AuditEntry]) -> int:
        position = await self._writes.run(lambda connection: append(connection, self._chain, entries).position)
        self.last_position = max(self.last_position, position)
        return position

    def _truncate(self, connection: Connection, before: datetime) -> int:
        start = first(connection, FIRST, {})
        if start is None:
            return 0
        start_position = cast("int", start[0])
        end = start_position + TRUNCATED_ROWS
        young = first(connection, _FIRST_YOUNG, {"end": end, "before": to_micros(before)})
        if young is not None and young[0] is not None:
            end = cast("int", young[0])
        last_old = _head(first(connection, _LAST_BEFORE, {"end": end}))
        if last_old == BEFORE_ALL:
            return 0
        append(connection, self._chain, [_truncation(last_old)])
        connection.execute(delete(audit_log).where(audit_log.c.position <= last_old.position))
        return last_old.position - start_position + 1


def append(connection: Connection, chain: AuditChain, entries: Sequence[AuditEntry]) -> AuditHead:
    """Put entries, one at least, behind the last one, in the caller's transaction; return the new head."""
    head = _head(first(connection, HEAD, {}))
    rows = []
    for entry in entries:
        recorded = chain.follow(head, entry)
        rows.append(row_of_entry(recorded))
        head = recorded.head
    write(connection, _INSERT, *rows)
    return head


def _head(row: Sequence[object] | None) -> AuditHead:
    return BEFORE_ALL if row is None else AuditHead(cast("int", row[0]), cast("bytes", row[1]))


def _truncation(last_old: AuditHead) -> AuditEntry:
    return AuditEntry(
        datetime.now(UTC),
        TRUNCATE,
        principal=SERVER,
        object_type="audit_head",
        object_id=str(last_old),
        status="OK",
        about=last_old.position,
    )


def _conditions(only: AuditFilter) -> dict[str, ColumnElement[bool]]:
    """Return what a filter asks for, by what tells filters apart."""
    equal = (
        (audit_log.c.effective_user, only.user_id),
        (audit_log.c.principal, only.principal),
        (audit_log.c.action, only.action),
        (audit_log.c.decision, only.decision),
    )
    conditions = {f"{column.name}={value}": column == value for column, value in equal if value}
    if only.start_time is not None:
        start = to_micros(only.start_time)
        conditions[f"from={start}"] = audit_log.c.time >= start
    if only.end_time is not None:
        end = to_micros(only.end_time)
        conditions[f"before={end}"] = audit_log.c.time < end
    return conditions
