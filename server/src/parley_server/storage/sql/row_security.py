"""The wall inside the database: what `ownership` says, as the engine enforces it; made anew at every upgrade.

That is PostgreSQL's row-level security for every table, from which its own owner is not exempt. What is read of SQLite
goes by `own_views`.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from parley_server.domain.errors import StartError
from parley_server.storage.sql import quota_tables  # noqa: F401  # its tables are the metadata's, too
from parley_server.storage.sql.acting import Role
from parley_server.storage.sql.ownership import ADD, OWNERSHIP, Grants
from parley_server.storage.sql.role_setup import make_roles, require_roles
from parley_server.storage.sql.roles import SETTING, Roles, execute, identifier, literal
from parley_server.storage.sql.search import OWN_TEXTS
from parley_server.storage.sql.tables import metadata

# Once it was set, it is empty outside of the transaction and not NULL.
_USER = f"nullif(current_setting('{SETTING}', true), '')"
_SCHEMA = text("SELECT current_schema()")
_TABLES = "unnest(CAST(:names AS text[])) AS name LEFT JOIN pg_class ON pg_class.oid = to_regclass(name)"
_OPEN = text(f"SELECT name FROM {_TABLES} WHERE (relrowsecurity AND relforcerowsecurity) IS NOT TRUE")  # noqa: S608  # ours
_FORCED = text(f"SELECT name FROM {_TABLES} WHERE relforcerowsecurity")  # noqa: S608  # ours


def secure(connection: Connection) -> None:
    """Build PostgreSQL's wall, whatever was there of it; SQLite needs nothing in the file.

    Raises:
        StartError: the roles are missing, and this login may not make them.
        KeyError: a table that `ownership` does not know.
    """
    if connection.dialect.name != "postgresql":
        return
    roles = make_roles(connection)
    schema = identifier(str(connection.execute(_SCHEMA).scalar_one()))
    tables = (each for table in metadata.tables for each in _securing(table, roles))
    execute(connection, ";\n".join([*_opening(schema, roles), *tables, *_searching(schema, roles)]))


def lift(connection: Connection) -> None:
    """Let the owner of PostgreSQL's tables see all their rows, so that a migration can change them."""
    if connection.dialect.name == "postgresql":
        for table in connection.execute(_FORCED, {"names": list(metadata.tables)}).scalars().all():
            connection.exec_driver_sql(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")


def require_wall(connection: Connection) -> Roles:
    """See that PostgreSQL secures every table; return the roles, each of which can be taken on. Raises StartError."""
    if left_open := connection.execute(_OPEN, {"names": list(metadata.tables)}).scalars().all():
        raise StartError(
            f"the database's table {left_open[0]} has no row-level security; run `parley-server db upgrade`"
        )
    return require_roles(connection)


def _opening(schema: str, roles: Roles) -> Iterator[str]:
    """Yield what lets the roles come near the tables at all."""
    for name in map(identifier, roles.names()):
        yield f"GRANT USAGE ON SCHEMA {schema} TO {name}"
        yield f"GRANT SELECT ON alembic_version TO {name}"
    yield f"GRANT UPDATE ON alembic_version TO {identifier(roles.name(Role.ADMINISTRATION))}"


def _securing(table: str, roles: Roles) -> Iterator[str]:
    """Yield the statements that secure one table of PostgreSQL."""
    rules = OWNERSHIP[table]
    yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
    yield f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"
    if rules.column:
        check = f"ADD CONSTRAINT ck_{table}_{rules.column} CHECK ({rules.column} <> '')"
        yield f"DO $$ BEGIN ALTER TABLE {table} {check}; EXCEPTION WHEN duplicate_object THEN END $$"
    whose = rules.condition(table, _USER) if rules.is_users else "false"
    yield from _allowing(table, roles, Role.USER, rules.users, whose)
    for role, grants in ((Role.RUN_LOG, rules.run_log), (Role.ADMINISTRATION, rules.administration)):
        # Policies of a role are its members', too, who inherit from it: whoever has not taken it on sees nothing.
        yield from _allowing(table, roles, role, grants, f"current_user = {literal(roles.name(role))}")


def _allowing(table: str, roles: Roles, role: Role, grants: Grants, rows: str) -> Iterator[str]:
    name = identifier(roles.name(role))
    yield f"DROP POLICY IF EXISTS {identifier(role)} ON {table}"
    yield f"CREATE POLICY {identifier(role)} ON {table} TO {name} USING ({rows}) WITH CHECK ({rows})"
    yield f"REVOKE ALL ON {table} FROM {name}"
    if grants:
        yield f"GRANT {', '.join(grants)} ON {table} TO {name}"
    numbered = metadata.tables[table].autoincrement_column
    if ADD in grants and numbered is not None:
        yield f"GRANT USAGE, SELECT ON SEQUENCE {table}_{numbered.name}_seq TO {name}"


def _searching(schema: str, roles: Roles) -> Iterator[str]:
    """Yield what makes a search of a user's texts, as a function of his that may use the index of all texts.

    What a search compares by could tell of rows that it compares with (it is not leakproof), so that PostgreSQL asks it
    of nothing but the user's own rows, all of them, one by one.
    """
    administration = identifier(roles.name(Role.ADMINISTRATION))
    drop = f"DROP FUNCTION IF EXISTS {OWN_TEXTS}(tsquery)"
    yield f"GRANT CREATE ON SCHEMA {schema} TO {administration}"
    # After a restored dump it is this login's own.
    yield f"DO $$ BEGIN {drop}; EXCEPTION WHEN insufficient_privilege THEN END $$"
    yield f"SET LOCAL ROLE {administration}"
    yield drop
    own = f"SELECT conversation_id FROM {schema}.search_texts WHERE user_id = {_USER}"  # noqa: S608  # names of ours
    yield (
        f"CREATE FUNCTION {OWN_TEXTS}(tsquery) RETURNS SETOF varchar LANGUAGE sql STABLE SECURITY DEFINER ROWS 100 "
        f"SET search_path = pg_catalog AS $$ {own} AND array_to_tsvector(string_to_array(words, ' ')) @@ $1 $$"
    )
    yield f"REVOKE ALL ON FUNCTION {OWN_TEXTS}(tsquery) FROM PUBLIC"
    yield f"GRANT EXECUTE ON FUNCTION {OWN_TEXTS}(tsquery) TO {identifier(roles.name(Role.USER))}"
    yield "SET LOCAL ROLE NONE"
    yield f"REVOKE CREATE ON SCHEMA {schema} FROM {administration}"
