"""Who is there for the runs that are cancelled when nobody is: a lost caller has a grace in which to come back."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from parley_server.domain.context import RequestContext
from parley_server.domain.errors import StorageUnavailableError
from parley_server.domain.per_user import UserKey, UserMap
from parley_server.storage.run_log import OwnershipLostError
from parley_server.storage.worker_store import WorkerStore

DISCONNECT_GRACE = timedelta(seconds=15)
RETRY_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Followed:
    """A run that needs somebody. The lock is held while its grace is stored, so that the store has the last word."""

    run_id: str
    user: UserKey
    calls: int = 0
    grace_end_time: datetime | None = None
    timer: asyncio.TimerHandle | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Attendance:
    """One call that follows a run; `leave` is called once, when it ends."""

    def __init__(self, leave: Callable[[bool], None]) -> None:
        self._leave = leave

    def leave(self, *, is_lost: bool) -> None:
        """Note the call's end. `is_lost` says that its caller ended it or is gone, and not this server."""
        self._leave(is_lost)


class Presence:
    """The calls that follow such runs. `cancel` ends a run; `spawn` starts work that outlives the call."""

    def __init__(
        self,
        worker_store: WorkerStore,
        cancel: Callable[[str], Awaitable[None]],
        spawn: Callable[[Coroutine[object, object, None]], object],
        grace: timedelta,
    ) -> None:
        self._worker_store = worker_store
        self._cancel = cancel
        self._spawn = spawn
        self._grace = grace
        self._runs: UserMap[str, _Followed] = UserMap()

    def expect(self, context: RequestContext, run_id: str, grace_end_time: datetime | None) -> None:
        """Take in a run that is cancelled when its caller is gone; a grace that was running goes on."""
        followed = _Followed(run_id, UserKey(context))
        self._runs.put(followed.user, run_id, followed)
        if grace_end_time is not None:
            self._start_timer(followed, grace_end_time)

    def forget(self, user: UserKey, run_id: str) -> None:
        """Let go of a run: it has ended, or this process has no more part in it."""
        followed = self._runs.pop(user, run_id)
        if followed is not None and followed.timer is not None:
            followed.timer.cancel()

    async def attend(self, context: RequestContext, run_id: str, *, is_caller: bool) -> Attendance:
        """Note a call that follows a run of this user. `is_caller` says that the run may not lose it.

        Raises:
            StorageUnavailableError: the run's grace goes on.
        """
        followed = self._runs.get(UserKey(context), run_id)
        if followed is None:
            return Attendance(lambda _: None)
        followed.calls += 1
        try:
            await self._stop_grace(followed)
        except BaseException:
            followed.calls -= 1
            raise
        return Attendance(lambda is_lost: self._left(followed, is_lost=is_lost and is_caller))

    def _is_expected(self, followed: _Followed) -> bool:
        return self._runs.get(followed.user, followed.run_id) is followed

    def _left(self, followed: _Followed, *, is_lost: bool) -> None:
        followed.calls -= 1
        # Who is there counts as come back: a lost connection may be noticed long after the next one was made.
        if is_lost and not followed.calls:
            self._spawn(self._begin_grace(followed, datetime.now(UTC) + self._grace))

    async def _begin_grace(self, followed: _Followed, end_time: datetime) -> None:
        async with followed.lock:
            if followed.calls or not self._is_expected(followed):
                return
            self._start_timer(followed, end_time)
            _log.info("run_caller_lost", run_id=followed.run_id)
            try:
                await self._store(followed)
            except StorageUnavailableError:
                # It runs all the same, and would not survive this process.
                _log.warning("run_grace_not_stored", run_id=followed.run_id)

    async def _stop_grace(self, followed: _Followed) -> None:
        async with followed.lock:
            if followed.timer is None:
                return
            end_time, followed.grace_end_time = followed.grace_end_time, None
            try:
                await self._store(followed)
            except StorageUnavailableError:
                followed.grace_end_time = end_time
                raise
            followed.timer.cancel()
            followed.timer = None

    def _start_timer(self, followed: _Followed, end_time: datetime) -> None:
        # Not more than a whole grace: the clock may have been set back since.
        delay_s = min(end_time - datetime.now(UTC), self._grace).total_seconds()
        followed.grace_end_time = end_time
        followed.timer = asyncio.get_running_loop().call_later(delay_s, lambda: self._spawn(self._give_up(followed)))

    async def _store(self, followed: _Followed) -> None:
        try:
            await self._worker_store.appender(followed.run_id).set_grace(followed.grace_end_time)
        except OwnershipLostError:
            # It has ended, or another process sees to it.
            self.forget(followed.user, followed.run_id)

    async def _give_up(self, followed: _Followed) -> None:
        """Cancel the run, unless somebody came at the last moment."""
        while not followed.calls and self._is_expected(followed):
            try:
                await self._cancel(followed.run_id)
            except StorageUnavailableError:
                await asyncio.sleep(RETRY_S)
            else:
                return
