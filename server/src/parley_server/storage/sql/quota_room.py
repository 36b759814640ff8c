"""Whether limits leave room, judged in the transaction that would use it: on each engine there is one such at a time.

What counts is what is stored: runs that have not ended, days' usage, what model calls hold. Nothing is counted twice,
so that nothing can come apart, and a limit that is changed holds from the next question on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias, cast

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, bindparam, case, func, or_, select, true

from parley_server.domain.principal import SERVICE_PREFIX
from parley_server.domain.quota import MINUTE_MICROS, Limit, Measure, SubjectKind
from parley_server.domain.quota_errors import refusal
from parley_server.storage.sql.database import from_micros, to_micros
from parley_server.storage.sql.quota_tables import quota_holds, usage_days
from parley_server.storage.sql.statements import first
from parley_server.storage.sql.tables import runs
from parley_server.storage.sql.usage_writes import DAY_MICROS, day_of

# When to try again where something under way is in the way: nobody knows when that ends.
SOON_S: Final = 1.0
_COLUMNS: Final = MappingProxyType(
    {SubjectKind.USER: "user_id", SubjectKind.SERVICE: "principal", SubjectKind.KEY: "credential_id"}
)

# Statements that are kept compiled, each for a kind of subject and a set of models.
_STATEMENTS: Final = 256

Condition: TypeAlias = ColumnElement[bool]
Counting: TypeAlias = Select[*tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Need:
    """What is to find room: a run, or a call of a model that may use so much.

    At least one token and one millionth, so that where nothing is left nothing begins.
    """

    tokens: int = 1
    cost_micros: int = 1
    without_run_id: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a limit is used, the estimates of what is under way included; `settled` without those."""

    used: int
    settled: int


def require_room(connection: Connection, limits: Sequence[Limit], need: Need, now: datetime) -> None:
    """See that every limit leaves room. Raises QuotaExceededError for the one that does so last."""
    micros = to_micros(now)
    refused = list(_refused(connection, limits, need, micros))
    if refused:
        limit, wait_s = max(refused, key=lambda each: float("inf") if each[1] is None else each[1])
        raise refusal(limit, wait_s)


def room_of(connection: Connection, limit: Limit, now: datetime) -> Room:
    """Return how much of a limit is used; of any but those on requests."""
    return _ROOMS[limit.measure](connection, limit, Need(), to_micros(now))


def reset_of(measure: Measure, now: datetime) -> datetime | None:
    """Return when a limit on costs begins anew; None for the others, which have no such time."""
    if measure is Measure.COST_PER_DAY:
        return from_micros((day_of(to_micros(now)) + 1) * DAY_MICROS)
    return _next_month(now) if measure is Measure.COST_PER_MONTH else None


def _refused(
    connection: Connection, limits: Sequence[Limit], need: Need, now: int
) -> Iterator[tuple[Limit, float | None]]:
    for limit in limits:
        room = _ROOMS[limit.measure](connection, limit, need, now)
        asked = _asked(limit, need)
        if room.used + asked > limit.amount:
            yield limit, _wait_s(connection, limit, room, asked, now)


def _asked(limit: Limit, need: Need) -> int:
    if limit.measure is Measure.CONCURRENT_RUNS:
        return 1
    if limit.measure is Measure.TOKENS_PER_MINUTE:
        # What is larger than a whole minute's share could never be: it waits for an empty minute, and has it alone.
        return min(need.tokens, limit.amount)
    return need.cost_micros


def _runs_at_once(connection: Connection, limit: Limit, need: Need, _now: int) -> Room:
    statement = _live_runs(limit.subject.kind)
    (count,) = _row(connection, statement, _whose(limit) | {"without_run_id": need.without_run_id})
    return Room(count, count)


def _tokens(connection: Connection, limit: Limit, _need: Need, now: int) -> Room:
    statement = _held(quota_holds.c.tokens, limit.subject.kind, limit.models)
    return Room(*_row(connection, statement, _whose(limit) | {"since": now - MINUTE_MICROS + 1}))


def _cost(connection: Connection, limit: Limit, _need: Need, now: int) -> Room:
    first_day = day_of(now)
    if limit.measure is Measure.COST_PER_MONTH:
        first_day = day_of(to_micros(from_micros(now).replace(day=1)))
    whose = _whose(limit)
    (spent,) = _row(connection, _spent(limit.subject.kind, limit.models), whose | {"first_day": first_day})
    statement = _held(quota_holds.c.cost_micros, limit.subject.kind, limit.models)
    held, settled = _row(connection, statement, whose | {"since": first_day * DAY_MICROS})
    return Room(spent + held, spent + settled)


_ROOMS: Final[MappingProxyType[Measure, Callable[[Connection, Limit, Need, int], Room]]] = MappingProxyType(
    {
        Measure.CONCURRENT_RUNS: _runs_at_once,
        Measure.TOKENS_PER_MINUTE: _tokens,
        Measure.COST_PER_DAY: _cost,
        Measure.COST_PER_MONTH: _cost,
    }
)


def _wait_s(connection: Connection, limit: Limit, room: Room, asked: int, now: int) -> float | None:
    """Return how long it takes at least until there is room; None: it never will be."""
    if limit.measure is Measure.CONCURRENT_RUNS:
        return SOON_S if limit.amount else None
    if asked > limit.amount:
        return None
    if limit.measure is Measure.TOKENS_PER_MINUTE:
        return _minute_wait_s(connection, limit, room.used + asked - limit.amount, now)
    if room.settled + asked <= limit.amount:
        return SOON_S
    reset = reset_of(limit.measure, from_micros(now))
    return None if reset is None else (to_micros(reset) - now) / 1e6


def _minute_wait_s(connection: Connection, limit: Limit, excess: int, now: int) -> float | None:
    """Return when so many tokens will be a minute old; those of calls under way will be in a minute at the earliest."""
    columns = quota_holds.c
    oldest = (
        select(columns.time, columns.tokens)
        .where(columns.is_settled, columns.time > now - MINUTE_MICROS)
        .where(_of_subject(quota_holds, limit.subject.kind), _of_models(quota_holds, limit.models))
        .order_by(columns.time)
    )
    for time, tokens in connection.execute(oldest, _whose(limit)):
        excess -= tokens
        if excess <= 0:
            return float(time + MINUTE_MICROS - now) / 1e6
    return MINUTE_MICROS / 1e6 if limit.amount else None


@cache
def _live_runs(kind: SubjectKind) -> Counting:
    live = and_(runs.c.finish_time.is_(None), runs.c.run_id != bindparam("without_run_id"))
    return select(func.count()).select_from(runs).where(live, _of_subject(runs, kind))


@lru_cache(maxsize=_STATEMENTS)
def _held(column: ColumnElement[int], kind: SubjectKind, models: tuple[str, ...]) -> Counting:
    """Return the statement for what is held, and for how much of that is settled."""
    columns = quota_holds.c
    settled = case((columns.is_settled, column), else_=0)
    counts = or_(~columns.is_settled, columns.time >= bindparam("since"))
    of_limit = and_(_of_subject(quota_holds, kind), _of_models(quota_holds, models))
    return select(_sum(column), _sum(settled)).where(counts, of_limit)


@lru_cache(maxsize=_STATEMENTS)
def _spent(kind: SubjectKind, models: tuple[str, ...]) -> Counting:
    since = usage_days.c.day >= bindparam("first_day")
    of_limit = and_(_of_subject(usage_days, kind), _of_models(usage_days, models))
    return select(_sum(usage_days.c.cost_micros)).where(since, of_limit)


def _row(connection: Connection, statement: Counting, parameters: Mapping[str, object]) -> tuple[int, ...]:
    row = first(connection, statement, parameters)
    # A sum of whole numbers is a decimal on PostgreSQL.
    return () if row is None else tuple(int(cast("int", value)) for value in row)


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    return func.coalesce(func.sum(column), 0)


def _whose(limit: Limit) -> dict[str, object]:
    kind, subject_id = limit.subject.kind, limit.subject.subject_id
    if kind is SubjectKind.EVERYONE:
        return {}
    return {"whose": f"{SERVICE_PREFIX}{subject_id}" if kind is SubjectKind.SERVICE else subject_id}


def _of_subject(table: Table, kind: SubjectKind) -> Condition:
    return true() if kind is SubjectKind.EVERYONE else table.c[_COLUMNS[kind]] == bindparam("whose")


def _of_models(table: Table, models: tuple[str, ...]) -> Condition:
    """Return what `domain.quota.fits` says, in SQL."""
    if not models:
        return true()
    return or_(
        *(
            func.substr(table.c.model, 1, len(each) - 1) == each[:-1] if each.endswith("*") else table.c.model == each
            for each in models
        )
    )


def _next_month(now: datetime) -> datetime:
    return datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
