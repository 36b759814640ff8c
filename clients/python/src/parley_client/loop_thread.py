"""The event loop behind the blocking clients: one for all of a process, in a thread of its own while one is open."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Final, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs an event loop in a thread for as long as somebody holds it. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread()

    def hold(self) -> None:
        """Have the loop running until `release`."""
        with self._lock:
            if self._holders == 0:
                self._start()
            self._holders += 1

    def release(self) -> None:
        """Give back one hold; the last one stops the loop and what still runs on it."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0 and self._loop is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)
                self._thread.join()
                self._loop = None

    @property
    def is_running(self) -> bool:
        """Say whether somebody holds it."""
        return self._loop is not None

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Run on the loop and wait for the outcome; whatever interrupts the waiting cancels the work.

        Raises RuntimeError when the loop does not run, or when it would wait for itself.
        """
        if self._loop is None or threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(_CLOSED if self._loop is None else _WAITS_FOR_ITSELF)
        outcome = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return outcome.result()
        except BaseException:
            outcome.cancel()
            raise

    def _start(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        # A program that ends without closing its clients must not hang.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._until_stopped(started)), name="parley-client", daemon=True
        )
        self._thread.start()
        self._loop = started.result()

    async def _until_stopped(self, started: "Future[asyncio.AbstractEventLoop]") -> None:
        self._stopping = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()


_CLOSED: Final = "the client is not open: use it inside `with ParleyClient() as client:`"
_WAITS_FOR_ITSELF: Final = "a callback of the client must not call it: it runs on the thread that would do the work"

LOOP_THREAD: Final = LoopThread()
