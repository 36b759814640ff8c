"""The audit log, composed: of a server's calls, and of what operators change from the command line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from parley_server.auth.local import operating_system_user
from parley_server.composition.installation import hash_key_of, make_data_dir, open_installed_store
from parley_server.domain.api_key import ApiKey, Rotation, StoredKey
from parley_server.domain.audit import START, STOP, AuditEntry
from parley_server.domain.idempotency import RepeatableRequest
from parley_server.domain.principal import PrincipalKind
from parley_server.metrics.recorder import Gauge, Recorder
from parley_server.rpc.auditor import Auditor
from parley_server.settings import Settings
from parley_server.storage.audit_queue import AuditQueue
from parley_server.storage.page import Page, PageRequest
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
async def _opened_store(settings: Settings) -> AsyncIterator[SqlStore]:
    """Open an installation's store for a command, beside a running server or without one. Raises StartError."""
    make_data_dir(settings)
    async with open_installed_store(settings, hash_key_of(settings), serves=False) as store:
        yield store


@asynccontextmanager
async def audit_reader(settings: Settings) -> AsyncIterator[AuditReader]:
    """Open an installation's audit log to read it, beside a running server or without one. Raises StartError."""
    async with _opened_store(settings) as store:
        yield store.audit_reader


class OperatorKeys:
    """API keys as the command line changes them: each change is recorded first, and does not happen otherwise."""

    def __init__(self, store: SqlStore) -> None:
        self._keys = store.api_keys
        self._audit = store.audit

    async def create(self, stored: StoredKey, request: RepeatableRequest | None = None) -> tuple[ApiKey, bool]:
        """See `ApiKeyRepository.create`; raises StorageUnavailableError where it cannot be recorded, as all do."""
        user_id = stored.key.subject if stored.key.kind is PrincipalKind.USER else ""
        await self._record("keys create", stored.key.key_id, user_id)
        return await self._keys.create(stored, request)

    async def list(self, page: PageRequest) -> Page[ApiKey]:
        """See `ApiKeyRepository.list`."""
        return await self._keys.list(page)

    async def rotate(
        self, key_id: str, secret_hash: bytes, rotation: Rotation, request: RepeatableRequest | None = None
    ) -> tuple[ApiKey, bool]:
        """See `ApiKeyRepository.rotate`."""
        await self._record("keys rotate", key_id)
        return await self._keys.rotate(key_id, secret_hash, rotation, request)

    async def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """See `ApiKeyRepository.revoke`."""
        await self._record("keys revoke", key_id)
        return await self._keys.revoke(key_id, now)

    async def _record(self, action: str, key_id: str, user_id: str = "") -> None:
        entry = operator_entry(action, user_id=user_id, object_type="key", object_id=key_id)
        await self._audit.record(entry)


async def record_command(settings: Settings, entry: AuditEntry) -> None:
    """Record what an operator does from the command line.

    Raises:
        StartError: the database cannot be reached.
        StorageUnavailableError: it cannot be written; what is to be recorded must not happen.
    """
    async with _opened_store(settings) as store:
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
