"""Making the roles of a PostgreSQL database, and seeing that they are what the wall needs."""

from sqlalchemy import Connection, text

from parley_server.domain.errors import StartError
from parley_server.storage.sql.acting import Acting, Role
from parley_server.storage.sql.database import TransactionLostError
from parley_server.storage.sql.roles import Roles, execute, identifier, postgres_savepoint

_MAX_NAME_BYTES = 63

LOGIN = text("SELECT current_user")
_OWNER = text("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass('conversations')")
_MAY_CREATE = text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
# Whoever creates a role may not take it on by that alone, from PostgreSQL 16 on.
_USABLE = text(
    "SELECT rolname FROM pg_roles WHERE rolname = ANY(CAST(:names AS text[])) AND pg_has_role(oid, "
    "CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)"
)
_STRONG = text(
    "SELECT rolname FROM pg_roles WHERE rolname = ANY(CAST(:names AS text[])) "
    "AND (rolcanlogin OR rolsuper OR rolbypassrls OR rolcreaterole)"
)


def roles_of(connection: Connection) -> Roles:
    """Return the database's roles; where it has no tables yet, those that this login's upgrade makes.

    Raises StartError where PostgreSQL has no names as long as theirs.
    """
    owner = connection.execute(_OWNER).scalar() or connection.execute(LOGIN).scalar_one()
    roles = Roles(str(owner))
    if any(len(name.encode()) > _MAX_NAME_BYTES for name in roles.names()):
        raise StartError(f"the login {owner} has too long a name: those of the database's roles begin with it")
    return roles


def making_roles(roles: Roles, login: str) -> list[str]:
    """Return the SQL that makes the roles, where they are not there, and lets a login take them on."""
    return [
        statement
        for name in map(identifier, roles.names())
        for statement in (
            f"DO $$ BEGIN CREATE ROLE {name} NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$;",
            f"GRANT {name} TO {identifier(login)};",
        )
    ]


def make_roles(connection: Connection) -> Roles:
    """Make the roles that are missing. Raises StartError where this login may not."""
    roles = roles_of(connection)
    if not _are_usable(connection, roles):
        login = str(connection.execute(LOGIN).scalar_one())
        if not connection.execute(_MAY_CREATE).scalar_one():
            raise StartError(
                f"the database needs the roles {', '.join(roles.names())}, which {login} may not make; "
                "let an administrator run once what `parley-server db roles` prints"
            )
        execute(connection, "\n".join(making_roles(roles, login)))
    _require_weak(connection, roles)
    return roles


def require_roles(connection: Connection) -> Roles:
    """Return the roles, each of which has been taken on once. Raises StartError where that cannot be."""
    roles = roles_of(connection)
    roles.keep_for(connection)
    _require_weak(connection, roles)
    try:
        for role in Role:
            with postgres_savepoint(connection, Acting(role)):
                pass
    except TransactionLostError as error:
        named = ", ".join(roles.names())
        raise StartError(
            f"the database's roles {named} cannot be taken on ({error}); run `parley-server db upgrade`"
        ) from error
    return roles


def _are_usable(connection: Connection, roles: Roles) -> bool:
    usable = connection.execute(_USABLE, {"names": roles.names()}).scalars().all()
    return sorted(usable) == sorted(roles.names())


def _require_weak(connection: Connection, roles: Roles) -> None:
    strong = connection.execute(_STRONG, {"names": roles.names()}).scalars().all()
    if strong:
        raise StartError(
            f"the role {strong[0]} may log in or do more than a role of the database should; "
            "rename it, or log in as somebody else to upgrade an empty database"
        )
