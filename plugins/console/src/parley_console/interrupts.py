"""What Ctrl-C means."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Final

QUIT_WITHIN_S: Final = 2.0


class IdleAction(Enum):
    """What Ctrl-C does at the prompt."""

    CLEAR = auto()
    HINT = auto()
    QUIT = auto()


class IdleInterrupts:
    """Ctrl-C at the prompt: clears what is typed; on an empty line it warns, and a second one in time quits."""

    def __init__(self) -> None:
        self._hinted_at: float | None = None

    def press(self, text: str, now: float) -> IdleAction:
        """Tell what to do; `now` is any clock in seconds that only goes forward."""
        if text:
            self._hinted_at = None
            return IdleAction.CLEAR
        if self._hinted_at is not None and now - self._hinted_at <= QUIT_WITHIN_S:
            return IdleAction.QUIT
        self._hinted_at = now
        return IdleAction.HINT


class Sigint:
    """The process's SIGINT, handed to whoever listens at the moment; nobody: it is ignored."""

    def __init__(self) -> None:
        self._listener: Callable[[], None] | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take SIGINT over from Python for a block inside the running event loop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.deliver)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    @contextmanager
    def heard_by(self, listener: Callable[[], None]) -> Iterator[None]:
        """Hand SIGINT to `listener` for a block."""
        before, self._listener = self._listener, listener
        try:
            yield
        finally:
            self._listener = before

    @property
    def is_heard(self) -> bool:
        """Whether somebody listens."""
        return self._listener is not None

    def deliver(self) -> None:
        """Tell the listener; a terminal in raw mode does it for the key."""
        if self._listener is not None:
            self._listener()


def cancelling_this_task() -> Callable[[], None]:
    """Return a listener that cancels the task that calls this."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("not in a task")

    def cancel() -> None:
        task.cancel()

    return cancel
