"""Making what was deleted leave PostgreSQL's files.

A deleted row stays in its page, and an ordinary VACUUM only forgets where it was: its bytes go when something else is
written there. So tables are written anew, which keeps everybody from them meanwhile: those alone that this takes about
a second for. The others get the ordinary VACUUM; see ADR 18.
"""

import asyncio
import time

import asyncpg
import structlog

from parley_server.storage.sql.tables import metadata

REWRITTEN_BYTES = 64 * 1024 * 1024
# How long writes wait behind the wait for those who read a table, at most.
LOCK_PATIENCE_S = 1.0
OTHERS_PATIENCE_S = 2.0
OTHERS_PAUSE_S = 0.1

SCRUBBING = {"lock_timeout": f"{LOCK_PATIENCE_S:.0f}s", "statement_timeout": "0", "synchronous_commit": "on"}

# Whoever began before can still see what was deleted meanwhile, and VACUUM leaves it to him.
_OLDER = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < $1"
)
_SIZE = "SELECT pg_total_relation_size(to_regclass($1)), pg_relation_filenode(to_regclass($1))"

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def scrub(session: "asyncpg.Connection[asyncpg.Record]", *, is_thorough: bool) -> None:
    """Vacuum every table on a session without a transaction; large ones are written anew only if that `is_thorough`.

    Raises:
        TimeoutError: there is a transaction that was begun before and does not end.
        asyncpg.PostgresError: a table is in use for too long, or something else that the engine could not do.
    """
    await _outwait_others(session)
    for name in metadata.tables:
        size, before = await session.fetchrow(_SIZE, name) or (0, None)
        if size > REWRITTEN_BYTES and not is_thorough:
            await session.execute(f'VACUUM "{name}"')
            _log.warning("deleted_bytes_may_remain", table=name, hint="`parley-server db compact`")
            continue
        await session.execute(f'VACUUM (FULL) "{name}"')
        _, after = await session.fetchrow(_SIZE, name) or (0, None)
        if before == after:
            # The engine only warns of it.
            _log.error("table_not_rewritten", table=name, hint="the server's role may not vacuum it")


async def _outwait_others(session: "asyncpg.Connection[asyncpg.Record]") -> None:
    now: object = await session.fetchval("SELECT clock_timestamp()")
    deadline = time.monotonic() + OTHERS_PATIENCE_S
    while await session.fetchval(_OLDER, now):
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(OTHERS_PAUSE_S)
