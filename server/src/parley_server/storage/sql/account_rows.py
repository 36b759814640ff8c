"""What an export tells as rows: the tables that have a user and no listing of their own, driven by their columns.

What other tables have of a user is told by the listings, or not at all; a test holds which.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC
from typing import cast

from sqlalchemy import Column, ColumnElement, LargeBinary, Select, Table, bindparam, select, tuple_

from parley_server.storage.account_repository import ExportedRow, JsonValue
from parley_server.storage.sql.database import Reader, Row, from_micros
from parley_server.storage.sql.quota_tables import usage_days
from parley_server.storage.sql.rows import string
from parley_server.storage.sql.tables import api_keys, conversations, notes, remembered_approvals, request_ids

# In the order they are told. What is binary is left out: hashes, all of it.
TOLD_AS_ROWS: Sequence[Table] = (notes, remembered_approvals, api_keys, usage_days, request_ids)
PAGE_ROWS = 200
_TIME = "_time"
_JSON = "_json"


async def conversation_ids(reader: Reader, user_id: str) -> AsyncGenerator[str]:
    """Yield the ids of the user's conversations, the oldest first."""
    async for row in _pages(reader, conversations, [conversations.c.conversation_id], user_id):
        yield string(row, "conversation_id")


async def exported(reader: Reader, user_id: str) -> AsyncGenerator[ExportedRow]:
    """Yield the user's rows of all tables that are told as such."""
    for table in TOLD_AS_ROWS:
        told = [column for column in table.c if not isinstance(column.type, LargeBinary)]
        async for row in _pages(reader, table, told, user_id):
            yield ExportedRow(_camel(table.name), {_name(column): _value(column, row) for column in told})


def user_column(table: Table) -> Column[str] | None:
    """Return the column that says whose a row is; None where there is none."""
    return table.c.get("user_id") if table is not api_keys else table.c.subject


def own_rows(table: Table) -> ColumnElement[bool]:
    """Return the condition on a table's rows that they are the user's; keys of a service of his name are not."""
    user = user_column(table)
    if user is None:
        raise LookupError(f"{table.name} has no user")
    own = user == bindparam("user_id")
    return own & (api_keys.c.kind == "user") if table is api_keys else own


async def _pages(reader: Reader, table: Table, told: Sequence[Column[object]], user_id: str) -> AsyncGenerator[Row]:
    """Yield the user's rows by their primary key, a page at a time."""
    key = list(table.primary_key.columns)
    columns = [*told, *(column for column in key if column not in told)]
    first: Select[*tuple[object, ...]] = select(*columns).where(own_rows(table)).order_by(*key).limit(PAGE_ROWS)
    rest = first.where(tuple_(*key) > tuple_(*(bindparam(f"after_{column.name}", type_=column.type) for column in key)))
    statement, place = first, dict[str, object]()
    while rows := await reader.fetch(statement, {"user_id": user_id, **place}):
        for row in rows:
            yield row
        statement, place = rest, {f"after_{column.name}": rows[-1][column.name] for column in key}


def _name(column: Column[object]) -> str:
    return _camel(column.name.removesuffix(_JSON))


def _value(column: Column[object], row: Row) -> JsonValue:
    value = row[column.name]
    if value is not None and column.name.endswith(_TIME):
        return from_micros(cast("int", value)).astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, str) and column.name.endswith(_JSON):
        return cast("JsonValue", json.loads(value))
    return cast("JsonValue", value)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
