"""Budgets on any engine."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select

from parley_server.domain.budget import Budget, BudgetUse
from parley_server.domain.errors import EtagMismatchError
from parley_server.domain.quota import Limit, QuotaLimits, Subject, SubjectKind
from parley_server.storage.sql.clock import Clock
from parley_server.storage.sql.database import Reader, Row, from_micros, to_micros
from parley_server.storage.sql.quota_room import reset_of, room_of
from parley_server.storage.sql.quota_tables import budgets
from parley_server.storage.sql.rows import dump, number, string
from parley_server.storage.sql.writer import Writes

_LIMITS: TypeAdapter[QuotaLimits] = TypeAdapter(QuotaLimits)


class SqlBudgetRepository:
    """Implements `Budgets` of `quotas/`."""

    def __init__(self, reader: Reader, writes: Writes, clock: Clock) -> None:
        self._reader = reader
        self._writes = writes
        self._clock = clock

    async def all(self) -> tuple[Budget, ...]:
        """Return all; see `Budgets.all`."""
        return tuple(map(_budget_of, await self._reader.fetch(select(budgets))))

    async def set(self, budget: Budget) -> Budget:
        """Replace one; see `Budgets.set`."""

        def tx(connection: Connection) -> Budget:
            found = connection.execute(select(budgets).where(_is(budget))).mappings().first()
            present = None if found is None else _budget_of(dict(found))
            if budget.etag and (present is None or budget.etag != present.etag):
                raise EtagMismatchError("budget")
            connection.execute(delete(budgets).where(_is(budget)))
            if budget.limits == QuotaLimits():
                return Budget(budget.subject, budget.limits, budget.models)
            row = self._row_of(budget, 0 if found is None else found["revision"])
            connection.execute(insert(budgets).values(row))
            return _budget_of(row)

        return await self._writes.run(tx)

    async def uses(self, limits: Sequence[Limit]) -> tuple[BudgetUse, ...]:
        """Return how much is used; see `Budgets.uses`."""
        now = self._clock()

        def tx(connection: Connection) -> tuple[BudgetUse, ...]:
            return tuple(_use_of(connection, each, now) for each in limits)

        # The writer's connection, where what is under way counts, too.
        return await self._writes.run(tx)

    def _row_of(self, budget: Budget, former_revision: int) -> dict[str, object]:
        now = to_micros(self._clock())
        return {
            "subject_kind": budget.subject.kind.value,
            "subject_id": budget.subject.subject_id,
            "model": "".join(budget.models),
            "limits_json": dump(_LIMITS, budget.limits),
            # Another one than that of any budget which was here before, and removed.
            "revision": max(now, former_revision + 1),
            "update_time": now,
        }


def _use_of(connection: Connection, limit: Limit, now: datetime) -> BudgetUse:
    used = room_of(connection, limit, now).used
    return BudgetUse(limit.measure, limit.amount, used, max(limit.amount - used, 0), reset_of(limit.measure, now))


def _is(budget: Budget) -> ColumnElement[bool]:
    return and_(
        budgets.c.subject_kind == budget.subject.kind.value,
        budgets.c.subject_id == budget.subject.subject_id,
        budgets.c.model == "".join(budget.models),
    )


def _budget_of(row: Row) -> Budget:
    model = string(row, "model")
    return Budget(
        subject=Subject(SubjectKind(string(row, "subject_kind")), string(row, "subject_id")),
        limits=_LIMITS.validate_json(string(row, "limits_json")),
        models=(model,) if model else (),
        etag=f"{number(row, 'revision'):x}",
        update_time=from_micros(number(row, "update_time")),
    )
