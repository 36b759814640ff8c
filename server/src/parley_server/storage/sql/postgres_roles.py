"""What an administrator of PostgreSQL runs for a login that may not make roles by itself."""

import asyncpg
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from parley_server.domain.errors import StartError
from parley_server.storage.sql.role_setup import LOGIN, making_roles, roles_of

_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError)


async def sql_of_roles(url: str) -> str:
    """Return the SQL that makes the roles of the database at a URL and lets its login take them on.

    Raises StartError where it cannot be asked who that is.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool, hide_parameters=True
    )
    try:
        async with engine.connect() as connection:
            roles = await connection.run_sync(roles_of)
            login = (await connection.execute(LOGIN)).scalar_one()
    except _FAILURES as error:
        raise StartError(f"the database of [storage] url cannot be asked: {type(error).__name__}") from error
    finally:
        await engine.dispose()
    return "\n".join(making_roles(roles, str(login)))
