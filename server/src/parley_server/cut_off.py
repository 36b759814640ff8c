"""Ends from outside what a task waits for."""

import asyncio
from types import TracebackType
from typing import Self


class CutOff:
    """Ends what is awaited inside `with`, when it is told to. Raises TimeoutError from the block then.

    It is what asyncio.timeout(None) and its reschedule do, for a fraction of what they cost, because all that waits in
    a stream comes by one for every batch. It can be entered again, by one task at a time.
    """

    __slots__ = ("_cancelling", "_loop", "_task", "is_cut")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Told, because to ask for the running loop is a system call in Python 3.11.
        self._loop = loop
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.is_cut = False

    def __enter__(self) -> Self:
        """Begin. Raises RuntimeError outside a task."""
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("only a task's waits can be cut off")
        self._task = task
        self._cancelling = task.cancelling()
        self.is_cut = False
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End. A cancel of the task by somebody else stays one."""
        task, self._task = self._task, None
        if self.is_cut and task is not None:
            is_ours_alone = task.uncancel() <= self._cancelling
            if is_ours_alone and exc_type is asyncio.CancelledError:
                raise TimeoutError from exc

    def cut(self) -> None:
        """End what is awaited inside; nothing, where nothing is."""
        if self._task is not None and not self.is_cut:
            self.is_cut = True
            self._task.cancel()
