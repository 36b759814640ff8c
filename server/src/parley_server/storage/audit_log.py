"""The door to the audit log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from parley_server.domain.audit import AuditDecision, AuditEntry, RecordedEntry
from parley_server.storage.page import Page, PageRequest


class AuditSettings(BaseModel):
    """`[audit]`: how long it is kept who did what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_days: int = Field(default=0, ge=0, le=36_600)
    """How many days an entry of the audit log is kept; 0: for ever. What is older goes by whole days, and an entry
    that says so takes its place, so that the rest can still be verified."""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries; empty fields do not filter. From `start_time` on, and before `end_time`."""

    user_id: str = ""
    principal: str = ""
    action: str = ""
    decision: AuditDecision | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


class AuditRecorder(Protocol):
    """Takes entries and never gives one back."""

    async def record(self, entry: AuditEntry) -> int:
        """Store an entry and return its position, once it is durable.

        Raises:
            StorageUnavailableError: it could not be stored; what it tells of must not happen.
        """
        ...

    async def record_all(self, entries: Sequence[AuditEntry]) -> None:
        """Store entries, all or none, in this order. Raises StorageUnavailableError."""
        ...


class AuditLog(AuditRecorder, Protocol):
    """The whole log; for administrators only, which the access policy sees to."""

    async def list(self, page: PageRequest, only: AuditFilter) -> Page[RecordedEntry]:
        """List, latest first. Raises PageTokenInvalidError."""
        ...
