"""The signals of a serving process, caught before anything is opened, so that none of them ends it halfway.

SIGTERM and SIGINT ask it to stop, and the second one ends it at once. SIGHUP asks it to read again what may change.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

FORCED_EXIT_CODE = 130
_STOPS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = _STOPS if sys.platform == "win32" else (*_STOPS, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Requests:
    """What the operator asks of a running server; whoever heeds `reload` clears it."""

    stop: "asyncio.Event"
    reload: "asyncio.Event"


class ProcessSignals:
    """Turns the signals of this process into requests."""

    def __init__(self) -> None:
        self._stop_asked = False
        self._requests: Requests | None = None

    def catch(self) -> None:
        """Catch the signals from now on; a stop is remembered until somebody asks by `requests`."""
        for number in _SIGNALS:
            signal.signal(number, self._take)

    @contextmanager
    def requests(self) -> Iterator[Requests]:
        """Let the running event loop take the signals, for a block."""
        import asyncio  # noqa: PLC0415  # it takes longer than all before it, and the signals are caught first

        loop = asyncio.get_running_loop()
        former = {number: signal.getsignal(number) for number in _SIGNALS}
        self._requests = requests = Requests(asyncio.Event(), asyncio.Event())
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._take, number)
        if self._stop_asked:
            requests.stop.set()
        try:
            yield requests
        finally:
            for number, handler in former.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
            self._requests = None

    def _take(self, number: int, _frame: FrameType | None = None) -> None:
        if number not in _STOPS:
            if self._requests is not None:  # else the start is still to read everything
                self._requests.reload.set()
            return
        if self._stop_asked:
            os._exit(FORCED_EXIT_CODE)
        self._stop_asked = True
        if self._requests is not None:
            self._requests.stop.set()
