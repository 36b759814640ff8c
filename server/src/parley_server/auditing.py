"""The audit log, composed: of a server's calls, and of what operators change from the command line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from parley_server.auth.local import operating_system_user
from parley_server.domain.audit import START, STOP, AuditEntry
from parley_server.installation import hash_key_of, make_data_dir, open_installed_store
from parley_server.metrics.recorder import Gauge, Recorder
from parley_server.rpc.auditor import Auditor
from parley_server.settings import Settings
from parley_server.storage.audit_queue import AuditQueue
from parley_server.storage.sql.audit_verification import AuditReader
from parley_server.storage.sql.store import SqlStore


@asynccontextmanager
async def open_auditor(store: SqlStore, recorder: Recorder) -> AsyncIterator[Auditor]:
    """Record the calls of a server for a block; its start and its stop, too."""
    async with AuditQueue(store.audit) as queue:
        recorder.watch(Gauge.AUDIT_DROPPED, lambda: queue.dropped)
        recorder.watch(Gauge.AUDIT_POSITION, lambda: store.audit.last_position)
        queue.offer(operator_entry(START))
        try:
            yield Auditor(store.audit, queue)
        finally:
            # Where there is none, the process was cut off, and calls without an end may have been, too.
            queue.offer(operator_entry(STOP), essential=True)


@asynccontextmanager
async def audited_store(settings: Settings) -> AsyncIterator[SqlStore]:
    """Open an installation's store for a command, beside a running server or without one. Raises StartError."""
    make_data_dir(settings)
    async with open_installed_store(settings, hash_key_of(settings), serves=False) as store:
        yield store


@asynccontextmanager
async def audit_reader(settings: Settings) -> AsyncIterator[AuditReader]:
    """Open an installation's audit log to read it, beside a running server or without one. Raises StartError."""
    async with audited_store(settings) as store:
        yield store.audit_reader


async def record_command(settings: Settings, entry: AuditEntry) -> None:
    """Record what an operator does from the command line.

    Raises:
        StartError: the database cannot be reached.
        StorageUnavailableError: it cannot be written; what is to be recorded must not happen.
    """
    async with audited_store(settings) as store:
        await store.audit.record(entry)


def operator_entry(action: str, *, user_id: str = "", object_type: str = "", object_id: str = "") -> AuditEntry:
    """Return the entry of an operator, who is the process's user; `action` is the command's words."""
    return AuditEntry(
        datetime.now(UTC),
        action,
        principal=f"operator:{operating_system_user()}",
        user_id=user_id,
        object_type=object_type,
        object_id=object_id,
    )
