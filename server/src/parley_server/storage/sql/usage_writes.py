"""What runs consume, added to their users' days: in the transaction of the events that tell of it, and so exactly once.

A step whose event is not stored is counted neither in its run nor here; one whose event is stored, in both.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import add

from sqlalchemy import Connection, bindparam, delete, text, update

from parley_server.domain.quota import MINUTE_MICROS
from parley_server.domain.usage import Usage
from parley_server.storage.sql import journal
from parley_server.storage.sql.database import to_micros
from parley_server.storage.sql.driver import driver_of
from parley_server.storage.sql.live_run import CountedUse, Sealed
from parley_server.storage.sql.quota_tables import COUNTS, KEY, quota_holds
from parley_server.storage.sql.statements import write

DAY_MICROS = 86_400_000_000
# A hold whose use nobody tells counts as spent; its cost for the whole month.
KEPT_MICROS = 32 * DAY_MICROS
MAX_MODEL_CHARACTERS = 128
# Far more than any call has; so that no sum of what model servers say leaves the columns.
_MOST = 2**44

_COLUMNS = (*KEY, *COUNTS)
# The same words on both engines, which SQLAlchemy has two statements for.
_SQL = (
    f"INSERT INTO usage_days ({', '.join(_COLUMNS)}) "  # noqa: S608  # names of our own columns
    f"VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) "
    f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = usage_days.{name} + excluded.{name}" for name in COUNTS)
)
_ADD = text(_SQL)
_SETTLED = {"is_settled": True, "time": bindparam("now"), "expire_time": bindparam("until")}
_SETTLE = (
    update(quota_holds)
    .where(quota_holds.c.hold_id == bindparam("of_hold"))
    .values(**_SETTLED, tokens=bindparam("used_tokens"), cost_micros=0)
)
_CHARGE = update(quota_holds).where(quota_holds.c.hold_id == bindparam("of_hold")).values(_SETTLED)
_CHARGE_ALL = (
    update(quota_holds)
    .where(quota_holds.c.run_id == bindparam("of_run"), quota_holds.c.is_settled.is_(False))
    .values(_SETTLED)
)
_RELEASE = delete(quota_holds).where(quota_holds.c.hold_id == bindparam("of_hold"))

# A row of `usage_days`: the values of KEY and of COUNTS, in their order.
Key = tuple[str | int, ...]
Counts = tuple[int, ...]
_ONE_RUN: Counts = tuple(int(name == "runs") for name in COUNTS)


def day_of(micros: int) -> int:
    """Return the day of a time, counted from 1970 in UTC."""
    return micros // DAY_MICROS


def record(connection: Connection, batches: Sequence[Sealed]) -> None:
    """Add what the batches' events tell was consumed, and settle what was held for it."""
    batches = [each for each in batches if (each.uses or each.is_end) and not _is_counted(connection, each)]
    add_to_days(connection, (entry for batch in batches for entry in _entries(batch)))
    for batch in batches:
        _settle(connection, batch)


def add_to_days(connection: Connection, entries: Iterable[tuple[Key, Counts]]) -> None:
    """Add counts to the rows of their keys, each row once."""
    totals: dict[Key, Counts] = {}
    for key, counts in entries:
        before = totals.get(key)
        totals[key] = counts if before is None else tuple(map(add, before, counts))
    if not totals:
        return
    rows = [dict(zip(_COLUMNS, (*key, *counts), strict=True)) for key, counts in totals.items()]
    if connection.dialect.name == "postgresql":
        connection.execute(_ADD, rows)
    else:
        driver_of(connection).executemany(_SQL, rows)


def release(connection: Connection, hold_ids: Sequence[str]) -> None:
    """Give back what was held for calls that were not made or not answered."""
    if hold_ids:
        write(connection, _RELEASE, *({"of_hold": hold_id} for hold_id in hold_ids))


def _is_counted(connection: Connection, batch: Sealed) -> bool:
    """Tell whether the batch was stored before, by a commit whose outcome nobody heard."""
    return batch.is_retry and journal.is_there_twice(connection, batch)


def _entries(batch: Sealed) -> Iterator[tuple[Key, Counts]]:
    for use in batch.uses:
        yield _key(batch, use.model, use.usage.currency_code), _counts_of(use.usage)
    if batch.is_end:
        # On the account that its last step is on, where that is in this batch.
        currency_code = batch.uses[-1].usage.currency_code if batch.uses else ""
        yield _key(batch, batch.uses[-1].model if batch.uses else batch.live.model, currency_code), _ONE_RUN


def _key(batch: Sealed, model: str, currency_code: str) -> Key:
    consumer, day = batch.live.consumer, day_of(to_micros(batch.time))
    model = model[:MAX_MODEL_CHARACTERS]
    return consumer.user_id, day, consumer.principal, consumer.credential_id, model, currency_code


def _counts_of(usage: Usage) -> Counts:
    counts = (
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.model_calls,
        usage.tool_calls,
        usage.cost_micros or 0,
        usage.model_calls if usage.cost_micros is None else 0,
        0,
    )
    return tuple(min(count, _MOST) for count in counts)


def _settle(connection: Connection, batch: Sealed) -> None:
    now = to_micros(batch.time)
    for use in batch.uses:
        if use.hold_id:
            _settle_one(connection, use, now)
    if batch.is_end and batch.live.has_held:
        release(connection, batch.live.released)
        # Of a call that was cut nobody says what it used, and it is not free: what was held for it is spent.
        write(connection, _CHARGE_ALL, {"of_run": batch.live.run_id, "now": now, "until": now + KEPT_MICROS})


def _settle_one(connection: Connection, use: CountedUse, now: int) -> None:
    if use.usage.tokens:
        used = {"used_tokens": min(use.usage.tokens, _MOST), "until": now + MINUTE_MICROS}
        write(connection, _SETTLE, {"of_hold": use.hold_id, "now": now, **used})
    else:
        write(connection, _CHARGE, {"of_hold": use.hold_id, "now": now, "until": now + KEPT_MICROS})
