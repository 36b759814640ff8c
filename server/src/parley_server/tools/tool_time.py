"""How long the tools of a run may be at work in all, however many calls that is."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class ToolTime:
    """The seconds a run's tools may take: those of which calls are under way, once for all that are so at a time."""

    def __init__(self, limit_s: float, used_s: float = 0.0) -> None:
        self.limit_s = limit_s
        self._left_s = limit_s - used_s
        self._end = float("inf")

    @property
    def is_used_up(self) -> bool:
        """Tell whether no call may begin any more."""
        return self._left_s <= 0

    @property
    def used_s(self) -> float:
        """How much is used, while none is being spent."""
        return self.limit_s - self._left_s

    @property
    def is_over(self) -> bool:
        """Tell whether it has been used up while it is spent."""
        return asyncio.get_running_loop().time() >= self._end

    @property
    def end(self) -> float:
        """When it is used up, by the running loop's clock; infinite while it is not spent."""
        return self._end

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Count the block's time."""
        loop = asyncio.get_running_loop()
        self._end = loop.time() + self._left_s
        try:
            yield
        finally:
            self._left_s, self._end = self._end - loop.time(), float("inf")
