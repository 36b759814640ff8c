"""What a user has used, once he is erased: without his name, for it still counts where limits are for many together.

Else whoever erases himself would give back what he took of the limits of his service and of all callers.
"""

from collections.abc import Collection, Iterable
from typing import cast

from sqlalchemy import Connection, delete, select, tuple_, update

from parley_server.domain.principal import SERVICE_PREFIX, PrincipalKind
from parley_server.storage.sql.database import Row
from parley_server.storage.sql.quota_tables import COUNTS, KEY, quota_holds, usage_days
from parley_server.storage.sql.rows import string
from parley_server.storage.sql.tables import api_keys
from parley_server.storage.sql.usage_writes import Counts, Key, add_to_days

# No user is called so, nor any caller.
NOBODY = "-"

_DAY_KEY = tuple_(*(usage_days.c[name] for name in KEY))


def disown_some(connection: Connection, user_id: str, limit: int) -> int:
    """Take the user out of up to `limit` rows of each of the tables; return how many, 0 when nothing is left."""
    return _disown_days(connection, user_id, limit) + _disown_holds(connection, user_id, limit)


def _disown_days(connection: Connection, user_id: str, limit: int) -> int:
    his = select(usage_days).where(usage_days.c.user_id == user_id).limit(limit)
    rows: list[Row] = [dict(row) for row in connection.execute(his).mappings()]
    if rows:
        keys = [tuple(row[name] for name in KEY) for row in rows]
        connection.execute(delete(usage_days).where(usage_days.c.user_id == user_id, _DAY_KEY.in_(keys)))
        kept = _keys_of_services(connection, rows)
        add_to_days(connection, (_anonymous(row, kept) for row in rows))
    return len(rows)


def _anonymous(row: Row, kept: Collection[str]) -> tuple[Key, Counts]:
    key = {**row, **_without_name(row, kept)}
    return tuple(cast("str | int", key[name]) for name in KEY), tuple(cast("int", row[name]) for name in COUNTS)


def _disown_holds(connection: Connection, user_id: str, limit: int) -> int:
    """Disown what his calls of models hold; his runs have ended, so that nobody settles it any more."""
    his = select(quota_holds).where(quota_holds.c.user_id == user_id).limit(limit)
    rows: list[Row] = [dict(row) for row in connection.execute(his).mappings()]
    kept = _keys_of_services(connection, rows)
    for row in rows:
        this = update(quota_holds).where(quota_holds.c.user_id == user_id, quota_holds.c.hold_id == row["hold_id"])
        connection.execute(this.values(**_without_name(row, kept), run_id=""))
    return len(rows)


def _keys_of_services(connection: Connection, rows: Iterable[Row]) -> frozenset[str]:
    """Return those of the rows' credentials that are the keys of services.

    Whoever acts for a user may do so by a credential of the user's own, whose id may be made of his name.
    """
    named = {string(row, "credential_id") for row in rows}
    of_services = select(api_keys.c.key_id).where(
        api_keys.c.kind == PrincipalKind.SERVICE, api_keys.c.key_id.in_(named)
    )
    return frozenset(connection.execute(of_services).scalars())


def _without_name(row: Row, kept: Collection[str]) -> dict[str, object]:
    """Return whose it is from now on: his service's and its key's, where one acted for him, else nobody's."""
    if not string(row, "principal").startswith(SERVICE_PREFIX):
        return {"user_id": NOBODY, "principal": NOBODY, "credential_id": ""}
    return {"user_id": NOBODY, "credential_id": row["credential_id"] if row["credential_id"] in kept else ""}
