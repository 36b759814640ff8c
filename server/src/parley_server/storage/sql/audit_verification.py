"""Reading the whole audit log beside a running server: to verify it, and to hand it on."""

from collections.abc import AsyncIterator, Sequence

from sqlalchemy import bindparam, select

from parley_server.domain.audit import TRUNCATE, AuditHead, AuditProblem, AuditReport, RecordedEntry
from parley_server.domain.audit_chain import BEFORE_ALL, AuditChain, ChainCheck
from parley_server.domain.errors import StorageUnavailableError
from parley_server.storage.sql.audit_log import FIRST, HEAD
from parley_server.storage.sql.audit_rows import UnreadableEntryError, entry_of_row
from parley_server.storage.sql.database import Reader, Row
from parley_server.storage.sql.rows import blob, number
from parley_server.storage.sql.tables import audit_log

_BATCH = 500

_BEHIND = (
    select(audit_log)
    .where(audit_log.c.position > bindparam("position"))
    .order_by(audit_log.c.position)
    .limit(bindparam("limit"))
)
_AT = select(audit_log.c.position, audit_log.c.mac).where(audit_log.c.position == bindparam("position"))
_TRUNCATION = (
    select(audit_log.c.object_id).where(audit_log.c.action == TRUNCATE).order_by(audit_log.c.about.desc()).limit(1)
)


class AuditReader:
    """Reads the log in its order."""

    def __init__(self, reader: Reader, chain: AuditChain) -> None:
        self._reader = reader
        self._chain = chain

    async def head(self) -> AuditHead | None:
        """Return the newest entry's head; None: there is no entry."""
        return _head(await self._reader.fetch(HEAD))

    async def entries(self, after: int = 0) -> AsyncIterator[RecordedEntry]:
        """Yield all entries behind the position `after`. Raises UnreadableEntryError at one that is none."""
        while rows := await self._reader.fetch(_BEHIND, {"position": after, "limit": _BATCH}):
            for row in rows:
                yield entry_of_row(row)
            after = number(rows[-1], "position")

    async def verify(self, start: int = 1, expected: AuditHead | None = None) -> AuditReport:
        """Verify the entries from the position `start` on, all that are there by default.

        `expected` is a head that was kept elsewhere. Raises StorageUnavailableError.
        """
        while True:
            first = await self._first()
            report = await self._verify(start, first, expected)
            # What the server truncates meanwhile is missing and no problem.
            if report.problem is None or first == await self._first():
                return report

    async def _verify(self, start: int, first: int, expected: AuditHead | None) -> AuditReport:
        if first < 1:
            return _untrue(first, "was put in: positions begin with 1")
        start = max(start, first)
        begin = await self._before(start)
        if begin is None:
            return _untrue(start - 1, "is missing, and nothing says that it was truncated")
        check = ChainCheck(self._chain, begin, expected)
        position = begin.position
        try:
            async for recorded in self.entries(position):
                if not check.take(recorded):
                    break
                position = recorded.position
        except UnreadableEntryError:
            check.fail(position + 1, "cannot be read: it is not what was written")
        except StorageUnavailableError:
            check.fail(position + 1, "or one behind it cannot be read; `parley-server db check` says more")
        return check.report()

    async def _first(self) -> int:
        rows = await self._reader.fetch(FIRST)
        return number(rows[0], "position") if rows else 1

    async def _before(self, position: int) -> AuditHead | None:
        """Return the head that the entry at `position` was put behind, as the log says it; None where it does not."""
        if position == 1:
            return BEFORE_ALL
        if found := _head(await self._reader.fetch(_AT, {"position": position - 1})):
            return found
        return await self._truncated(position - 1)

    async def _truncated(self, position: int) -> AuditHead | None:
        rows = await self._reader.fetch(_TRUNCATION)
        try:
            head = AuditHead.parse(str(rows[0]["object_id"])) if rows else None
        except ValueError:
            return None
        return head if head is not None and head.position == position else None


def _head(rows: Sequence[Row]) -> AuditHead | None:
    return AuditHead(number(rows[0], "position"), blob(rows[0], "mac")) if rows else None


def _untrue(position: int, description: str) -> AuditReport:
    return AuditReport(0, None, None, None, AuditProblem(position, description))
