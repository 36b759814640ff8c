"""Following a run while the user may stop it."""

import asyncio
from enum import Enum, auto
from typing import Protocol

from parley_client import ParleyError, RunEvent, RunStream

from parley_console.interrupts import Sigint


class Ending(Enum):
    """How the following of a run ended; the run's own end is in the stream."""

    FINISHED = auto()
    STOPPED = auto()
    DETACHED = auto()


class Viewer(Protocol):
    """Who is told what happens."""

    def show(self, event: RunEvent) -> None:
        """Take the run's next event."""

    def interrupted(self) -> None:
        """Take the news that Ctrl-C was pressed."""

    def could_not_cancel(self, error: ParleyError) -> None:
        """Take the news that the wish to stop did not reach the server."""


async def follow(stream: RunStream, viewer: Viewer, sigint: Sigint, patience_s: float | None = None) -> Ending:
    """Read a run to its end.

    The first Ctrl-C asks the run to stop and goes on reading, for at most `patience_s` when that is given. The second
    leaves the run to itself. Raises ParleyError.
    """
    following = _Following(stream, viewer, patience_s)
    with sigint.heard_by(following.interrupt):
        return await following.to_the_end()


class _Following:
    def __init__(self, stream: RunStream, viewer: Viewer, patience_s: float | None) -> None:
        self._stream = stream
        self._viewer = viewer
        self._patience_s = patience_s
        self._accepted = asyncio.Event()
        self._reader = asyncio.create_task(self._read())
        self._canceller: asyncio.Task[None] | None = None

    async def to_the_end(self) -> Ending:
        try:
            await asyncio.wait([self._reader])
        finally:
            self._reader.cancel()
            if self._canceller is not None:
                self._canceller.cancel()
        if self._reader.cancelled():
            return Ending.DETACHED
        self._reader.result()
        return Ending.FINISHED if self._canceller is None else Ending.STOPPED

    def interrupt(self) -> None:
        self._viewer.interrupted()
        if self._canceller is not None:
            self._reader.cancel()
            return
        self._canceller = asyncio.create_task(self._cancel_run())
        if self._patience_s is not None:
            asyncio.get_running_loop().call_later(self._patience_s, self._reader.cancel)

    async def _read(self) -> None:
        async with self._stream:
            self._accepted.set()
            async for event in self._stream:
                self._viewer.show(event)

    async def _cancel_run(self) -> None:
        await self._accepted.wait()
        try:
            await self._stream.cancel("interrupted at the console")
        except ParleyError as error:
            self._viewer.could_not_cancel(error)
