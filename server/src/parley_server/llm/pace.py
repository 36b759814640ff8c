"""How soon a stream is read again: while many are open, chunks that come close together are taken together.

What a chunk costs is hardly its bytes: it is waking up for it, storing it, sending it. A stream is read without rest
while few are open, its first chunk always, and chunks further apart than the rest are never held up.
"""

import asyncio
from typing import Self

# One stream more lets all rest so much longer, so that together they are read 5,000 times a second at most.
_REST_PER_STREAM_S = 0.0002
_MIN_REST_S = 0.005
MAX_REST_S = 0.04


class Pace:
    """Of all streams of one service. Build it in the running loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.open_streams = 0

    @property
    def rest_s(self) -> float:
        """Seconds from one read of a stream to its next, where its chunks come faster than that."""
        rest_s = self.open_streams * _REST_PER_STREAM_S
        return 0.0 if rest_s < _MIN_REST_S else min(rest_s, MAX_REST_S)


class StreamPace:
    """Of one stream: `with` it from its first read to its last, and `rest` after each."""

    __slots__ = ("_last_read", "_pace")

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._last_read = -MAX_REST_S

    def __enter__(self) -> Self:
        """Count the stream."""
        self._pace.open_streams += 1
        return self

    def __exit__(self, *_: object) -> None:
        """Count it no longer."""
        self._pace.open_streams -= 1

    async def rest(self) -> None:
        """Wait before the next read, if this one came soon after the last."""
        now = self._pace.loop.time()
        since, self._last_read = now - self._last_read, now
        rest_s = self._pace.rest_s
        if since < rest_s * 1.5:
            await asyncio.sleep(rest_s)
