"""The schema's version: reading it, and upgrading to the newest."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from parley_server.domain.errors import StartError
from parley_server.storage.sql.row_security import lift, secure

# The newest revision in migrations/versions; a test holds the two together.
HEAD = "0012"


class SchemaOutdatedError(StartError):
    """The database is of another version and may not be upgraded from here."""

    def __init__(self) -> None:
        super().__init__("the database has another schema version; stop the server and run `parley-server db upgrade`")


_MIGRATIONS = Path(__file__).with_name("migrations")


def current_revision(connection: Connection) -> str | None:
    """Return the database's revision, None for a fresh one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def upgrade(connection: Connection) -> None:
    """Bring the database to HEAD, and its wall to what this version says, inside the caller's transaction.

    Raises StartError where the wall cannot be built.
    """
    # Alembic takes 0.2 s to import and is needed only when there is something to do.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    lift(connection)
    command.upgrade(config, "head")
    secure(connection)
