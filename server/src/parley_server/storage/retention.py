"""What is no longer kept: the settings that say so, the work there is, and the sweeper that does it by and by."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field

from parley_server.domain.errors import StorageUnavailableError
from parley_server.storage.slowest_clock import SlowestClock

# The sweeper works a fifth of the time at most, so that those who wait for the store hardly notice.
_REST = 4.0
_MAX_REST_S = 2.0
_YEAR_S = 366 * 86_400

_log = structlog.get_logger(__name__)


class RetentionSettings(BaseModel):
    """`[retention]`: how long what is no longer needed is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fold_after_s: float = Field(default=86_400.0, ge=0, le=10 * _YEAR_S)
    """How long, in seconds, after a run's end its log is kept whole. Then the deltas and the progress of tools go,
    which the finished messages repeat; everything else of it stays as long as its conversation does."""

    conversation_ttl_s: float = Field(default=0.0, ge=0, le=100 * _YEAR_S)
    """How long, in seconds, after its last change a conversation is deleted with all that belongs to it; 0: never.
    A change of this setting holds for all conversations, those that are there already too."""

    sweep_interval_s: float = Field(default=60.0, ge=0.1, le=86_400)
    """How long, in seconds, the server waits before it looks again for what is due to go."""

    @property
    def fold_after(self) -> timedelta:
        """How long a finished run's log is kept whole."""
        return timedelta(seconds=self.fold_after_s)

    @property
    def conversation_ttl(self) -> timedelta | None:
        """How long a conversation outlives its last change; None: for ever."""
        return timedelta(seconds=self.conversation_ttl_s) if self.conversation_ttl_s else None


class Retention(Protocol):
    """What can be let go of. Every method does a small part of its work in a transaction of its own.

    Each returns how much that was, and 0 when nothing is left to do; what was begun and cut off goes on by itself. Only
    the one server that serves a database calls them, one after the other.
    """

    async def adopt_ttl(self) -> int:
        """Let conversations that were made under another lifetime have the present one."""
        ...

    async def delete_expired(self, now: datetime) -> int:
        """Delete conversations whose time is over."""
        ...

    async def forget_request_ids(self, now: datetime) -> int:
        """Drop request ids that nobody may repeat any more."""
        ...

    async def truncate_audit(self, before: datetime) -> int:
        """Take away the audit log's entries from before then, and tell it there."""
        ...

    async def fold(self, ended_before: datetime) -> int:
        """Fold the logs of runs that ended before then."""
        ...

    async def compact(self, now: datetime) -> int:
        """Wipe what deleted words left in the search's index, and give space that is free back to the system."""
        ...


class Sweeper:
    """Does what is due, again and again; one per database. The audit log is kept for `audit_days`; 0: for ever."""

    def __init__(self, retention: Retention, settings: RetentionSettings, audit_days: int = 0) -> None:
        self._retention = retention
        self._settings = settings
        self._audit_days = audit_days
        self._clock = SlowestClock()

    async def sweep_for_ever(self) -> None:
        """Sweep every `sweep_interval_s`; what the store cannot do now is tried again then."""
        while True:
            try:
                await self.sweep()
            except StorageUnavailableError:
                _log.warning("sweep_put_off", reason="the store is not available")
            except Exception as error:  # noqa: BLE001  # what goes wrong once must not end all keeping of order
                _log.error("sweep_failed", exc_info=error)
            await asyncio.sleep(self._settings.sweep_interval_s)

    async def sweep(self) -> Counter[str]:
        """Do all that is due now; return how much it was, by kind. Raises StorageUnavailableError."""
        now = self._clock.now()
        done: Counter[str] = Counter()
        for kind, work in self._work(now):
            while part := await _at_leisure(work):
                done[kind] += part
        if done:
            _log.info("swept", **done)
        return done

    def _work(self, now: datetime) -> Sequence[tuple[str, Callable[[], Awaitable[int]]]]:
        audit = ("audit_truncated", lambda: self._retention.truncate_audit(_day(now) - timedelta(self._audit_days)))
        return (
            *((audit,) if self._audit_days else ()),
            ("ttl_adopted", self._retention.adopt_ttl),
            ("rows_expired", lambda: self._retention.delete_expired(now)),
            ("request_ids_forgotten", lambda: self._retention.forget_request_ids(now)),
            ("runs_folded", lambda: self._retention.fold(now - self._settings.fold_after)),
            ("pages_compacted", lambda: self._retention.compact(now)),
        )


def _day(moment: datetime) -> datetime:
    """Return when the day began: the audit log tells of every truncation, which would keep it as long as it is."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


async def _at_leisure(work: Callable[[], Awaitable[int]]) -> int:
    start = time.monotonic()
    part = await work()
    if part:
        await asyncio.sleep(min(_REST * (time.monotonic() - start), _MAX_REST_S))
    return part
