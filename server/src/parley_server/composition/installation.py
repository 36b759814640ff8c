"""An installation on this machine: its data directory, its lock and hash key, and its database."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from parley_server.auth.hash_key import load_hash_key
from parley_server.domain.errors import StartError, StorageUnavailableError
from parley_server.logs import end_process
from parley_server.metrics.recorder import SILENT, Recorder
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.settings import Settings
from parley_server.storage.sql.backup import back_up, restore
from parley_server.storage.sql.database import Database
from parley_server.storage.sql.integrity import Report, check
from parley_server.storage.sql.lock_file import DataDirectoryInUseError, LockFile, live_holder
from parley_server.storage.sql.space import Merging
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore, open_store


async def upgrade_database(settings: Settings) -> None:
    """Bring the database to this version's schema. Raises StartError while a server is using it."""
    if settings.storage.is_postgres:
        await _upgrade_postgres(settings.storage.url)
        return
    async with _sqlite_alone(settings):
        pass


async def compact_database(settings: Settings) -> None:
    """Write the database anew, without anything that was deleted.

    Raises:
        StartError: a server is using a SQLite database, or the engine could not do it now.
    """
    alone = _database(settings, serves=False) if settings.storage.is_postgres else _sqlite_alone(settings)
    try:
        async with alone as database:
            merging = Merging()
            while await database.transaction(merging.step):
                pass
            await database.scrub(is_thorough=True)
    except StorageUnavailableError as error:
        raise StartError("the database could not be written anew: it is in use, or there is no room for it") from error


@asynccontextmanager
async def _sqlite_alone(settings: Settings) -> AsyncIterator[Database]:
    """Open the file while no server may. Raises StartError."""
    make_data_dir(settings)
    try:
        with LockFile(lock_path(settings)):
            async with SqliteDatabase(_database_path(settings), end=end_process) as database:
                yield database
    except DataDirectoryInUseError as error:
        raise StartError(str(error)) from error


async def roles_of_database(settings: Settings) -> str:
    """Return the SQL by which an administrator makes the roles that the database needs. Raises StartError."""
    if not settings.storage.is_postgres:
        raise StartError("this is for PostgreSQL; a SQLite file needs no roles")
    from parley_server.storage.sql.postgres_roles import sql_of_roles  # noqa: PLC0415  # for who has it

    return await sql_of_roles(settings.storage.url)


def check_database(settings: Settings, path: Path | None) -> Report:
    """Look a database over, that of the settings where none is named; a server may be using it. Raises StartError."""
    return check(_sqlite_path(settings) if path is None else path)


def back_up_database(settings: Settings, target: Path) -> Report:
    """Write the database to a file, beside a running server or without one. Raises StartError."""
    return back_up(_sqlite_path(settings), target)


def restore_database(settings: Settings, backup: Path) -> tuple[Report, Path | None]:
    """Put a backup in the database's place; return where the former one is. Raises StartError while a server runs."""
    database = _sqlite_path(settings)
    make_data_dir(settings)
    try:
        with LockFile(lock_path(settings)):
            return restore(backup, database)
    except DataDirectoryInUseError as error:
        raise StartError(str(error)) from error


@asynccontextmanager
async def open_installed_store(
    settings: Settings, hash_key: bytes, recorder: Recorder = SILENT, *, serves: bool
) -> AsyncIterator[SqlStore]:
    """Open the store of an installation; the one that `serves` may upgrade it. Raises StartError."""
    async with (
        _database(settings, serves=serves) as database,
        open_store(database, ProtoEventCodec(), hash_key, recorder, settings.retention.conversation_ttl) as store,
    ):
        yield store


def _database(settings: Settings, *, serves: bool) -> AbstractAsyncContextManager[Database]:
    """Return the database of the settings, to be opened; raises StartError when that cannot be."""
    if not settings.storage.is_postgres:
        may_upgrade = serves or live_holder(lock_path(settings)) is None
        return SqliteDatabase(_database_path(settings), may_upgrade=may_upgrade, end=end_process)
    from parley_server.storage.sql.postgres import PostgresDatabase, Purpose  # noqa: PLC0415  # for who has it

    purpose = Purpose.SERVE if serves else Purpose.ADMINISTER
    return PostgresDatabase(settings.storage.url, purpose, end=end_process)


def make_data_dir(settings: Settings) -> None:
    """Make the data directory where there is none. Raises StartError."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"{settings.data_dir}: the data directory cannot be made ({error.strerror}); choose another with --data-dir"
        ) from error


def lock_path(settings: Settings) -> Path:
    """Return where the lock is that proves a server of this installation alive."""
    return settings.data_dir / "server.lock"


def _database_path(settings: Settings) -> Path:
    return settings.storage.sqlite_path(settings.data_dir)


def _sqlite_path(settings: Settings) -> Path:
    if settings.storage.is_postgres:
        raise StartError(
            "this is for SQLite; for PostgreSQL use its own tools: pg_dump to back up, pg_restore to restore"
        )
    return _database_path(settings)


async def _upgrade_postgres(url: str) -> None:
    from parley_server.storage.sql.postgres import PostgresDatabase, Purpose  # noqa: PLC0415  # for who has it

    async with PostgresDatabase(url, Purpose.UPGRADE):
        pass


def hash_key_of(settings: Settings) -> bytes:
    """Return the key of the keyed hashes, made where there is none. Raises StartError."""
    configured = settings.auth.hash_key
    text = None if configured is None else configured.get_secret_value()
    return load_hash_key(text, settings.auth.hash_key_file, settings.data_dir)
