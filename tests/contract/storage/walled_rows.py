"""A row of ann's and one of bob's in every table of users: whatever names a user, an object or a text is their name."""

from collections.abc import Iterator

from parley_server.storage.sql.ownership import OWNERSHIP
from parley_server.storage.sql.tables import metadata
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, Table

USERS = ("ann", "bob")
OWNED = tuple(table for table, rules in OWNERSHIP.items() if rules.readable)


def mark_of(table: str) -> str:
    """Return the column whose value tells whose a row is."""
    return OWNERSHIP[table].column or OWNERSHIP[table].key


def value_of(column: Column[object], user: str) -> object:
    if column.name == "kind":
        return "user"
    match column.type:
        case Boolean():
            return False
        case BigInteger() | Integer():
            return 1
        case LargeBinary():
            return b"x"
    return user


def row_of(table: Table, user: str) -> dict[str, object]:
    """Return a row that keeps all constraints next to the other user's."""
    columns = (column for column in table.c if column is not table.autoincrement_column)
    return {column.name: value_of(column, user) for column in columns}


def all_rows() -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the rows of both, parents first, each with its table."""
    for table in metadata.sorted_tables:
        if table.name in OWNED:
            for user in USERS:
                yield table.name, row_of(table, user)
