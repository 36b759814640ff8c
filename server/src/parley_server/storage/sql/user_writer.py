"""The way all writes for one user take: closed while he is being erased, and to what was asked for before that."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from parley_server.domain.access_errors import AccountErasingError
from parley_server.domain.context import RequestContext
from parley_server.storage.sql.writer import Writes

T = TypeVar("T")

# Longer than any call or run goes on that was begun before: a day is the most a run may take.
REMEMBERED = timedelta(days=2)


class ErasureGate:
    """Who is being erased, and until when who was. In memory: nothing that was asked for outlives the process."""

    def __init__(self) -> None:
        self._closed: set[str] = set()
        self._ends: dict[str, datetime] = {}

    def close(self, user_id: str) -> None:
        """Let nothing more be written for a user."""
        self._closed.add(user_id)

    def reopen(self, user_id: str, *, is_erased: bool) -> None:
        """Let what is asked for from now on be written; what was asked for before too, unless he was erased."""
        self._closed.discard(user_id)
        if is_erased:
            now = datetime.now(UTC)
            self._ends = {user: end for user, end in self._ends.items() if end > now - REMEMBERED}
            self._ends[user_id] = now

    def check(self, context: RequestContext) -> None:
        """Let a write pass. Raises AccountErasingError."""
        end = self._ends.get(context.user_id)
        if context.user_id in self._closed or (end is not None and context.timestamp <= end):
            raise AccountErasingError


class UserWriter:
    """Writes for one call's or one run's context, in its user's name; the gate is asked inside the transaction."""

    def __init__(self, writes: Writes, gate: ErasureGate, context: RequestContext) -> None:
        self._writes = writes
        self._gate = gate
        self._context = context

    async def run(self, tx: Callable[[Connection], T], *, patient: bool = False) -> T:
        """Run one write; see `Writer.run`. Raises AccountErasingError too."""

        def gated(connection: Connection) -> T:
            self._gate.check(self._context)
            return tx(connection)

        return await self._writes.run(gated, patient=patient)
