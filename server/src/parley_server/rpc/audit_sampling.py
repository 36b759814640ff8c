"""Keeps who is refused again and again from filling the audit log: some of his entries, and a count of the rest."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from parley_server.domain.audit import AuditEntry

WINDOW_S = 60.0


@dataclass(slots=True)
class _Window:
    start: float
    passed: int = 0
    left_out: int = 0
    last: AuditEntry | None = None


class EntrySampler:
    """Lets `most` entries of one origin pass in WINDOW_S, and those of `max_origins` origins; all further are one more.

    What did not pass is told when the window is closed, by the last such entry with their number in `left_out`. Windows
    are closed when `due` is asked, so that one may last as long as it is not.
    """

    def __init__(self, most: int, max_origins: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._max_origins = max_origins
        self._clock = clock
        self._windows: dict[str | None, _Window] = {}

    def sift(self, origin: str, entry: AuditEntry) -> Iterator[AuditEntry]:
        """Yield what is to be recorded when an entry comes: nothing, or the entry."""
        window = self._window_of(origin)
        if window.passed < self._most:
            window.passed += 1
            yield entry
        else:
            window.left_out += 1
            window.last = entry

    def due(self, *, is_over: bool = False) -> Iterator[AuditEntry]:
        """Close the windows whose time is over, or all; yield what they have left out."""
        now = self._clock()
        for origin, window in tuple(self._windows.items()):
            if is_over or now - window.start >= WINDOW_S:
                del self._windows[origin]
                if window.last is not None:
                    yield replace(window.last, left_out=window.left_out)

    def _window_of(self, origin: str) -> _Window:
        place = origin if origin in self._windows or len(self._windows) < self._max_origins else None
        return self._windows.setdefault(place, _Window(self._clock()))
