"""Notices when the event loop is behind with its work, and says so until it has caught up.

A timer on the loop measures how late it is. A thread beside it sees a stall while it lasts, and where it is; so whoever
looks from another thread knows at once, and the calls that queued meanwhile are refused before a timer could tell.
"""

import asyncio
import sys
import threading
import time

import structlog

from parley_server.metrics.recorder import Gauge, Recorder
from parley_server.rpc.health import HealthServicer

TICK_S = 0.1
# Calm for so many ticks in a row, late by less than this part of the limit, before calls are let in again.
CALM_TICKS = 5
CALM_SHARE = 0.25
_MAX_FRAMES = 12

_log = structlog.get_logger(__name__)


class Overload:
    """Whether new calls are to be refused. `start` and `stop` it on the loop it watches."""

    def __init__(self, recorder: Recorder, health: HealthServicer) -> None:
        self._recorder = recorder
        self._health = health
        self._limit_s = 0.0
        self._active = False
        self._announced = False
        self._calm_ticks = 0
        self._lag_s = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        recorder.watch(Gauge.LOOP_LAG, self.lag_s)
        recorder.watch(Gauge.OVERLOADED, lambda: self.active)

    @property
    def active(self) -> bool:
        """Tell whether the loop is behind; from any thread."""
        return self._active

    def lag_s(self) -> float:
        """Return how late the last timer was, or the one that is due is by now; from any thread."""
        return max(self._lag_s, time.monotonic() - self._due) if self._due else 0.0

    def start(self, limit_s: float) -> None:
        """Watch the running loop; it is behind when a timer is late by more than `limit_s`."""
        self._limit_s = limit_s
        self._schedule()
        loop_thread = threading.get_ident()
        threading.Thread(target=self._watch, args=(loop_thread,), name="overload", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        self._due = time.monotonic() + TICK_S
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._lag_s = max(time.monotonic() - self._due, 0.0)
        self._recorder.loop_lag(self._lag_s)
        if self._lag_s > self._limit_s:
            self._active = True
        is_calm = self._lag_s <= self._limit_s * CALM_SHARE
        self._calm_ticks = self._calm_ticks + 1 if is_calm else 0
        if self._calm_ticks >= CALM_TICKS:
            self._active = False
        # The thread may have said it first.
        if self._active != self._announced:
            self._announced = self._active
            _log.warning("overload_began" if self._active else "overload_over", lag_s=round(self._lag_s, 3))
            self._health.set_overloaded(self._active)
        self._schedule()

    def _watch(self, loop_thread: int) -> None:
        """See, on a thread of its own, that the loop's timer does not come."""
        told = 0.0
        while not self._stopped.wait(min(TICK_S, self._limit_s / 2)):
            due = self._due
            late_s = time.monotonic() - due
            if late_s > self._limit_s:
                self._active = True
                if told != due:
                    told = due
                    _log.warning("event_loop_stalled", late_s=round(late_s, 3), frames=_frames_of(loop_thread))


def _frames_of(thread_id: int) -> list[str]:
    """Say where a thread is, innermost first: places alone, no values."""
    frame = sys._current_frames().get(thread_id)  # noqa: SLF001  # the one way to see another thread's stack
    frames: list[str] = []
    while frame is not None and len(frames) < _MAX_FRAMES:
        frames.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return frames
