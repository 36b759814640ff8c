"""Time-outs that count waiting alone: a slow reader of the answer never makes the model look slow."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from parley_server.llm.model_errors import timed_out

T = TypeVar("T")


class Patience:
    """Seconds of waiting that are left. Every wait takes from them; an event gives new ones."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def renew(self, seconds: float) -> None:
        """Start over with `seconds`."""
        self._left = seconds

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Await within what is left. Raises ModelError MODEL_TIMEOUT."""
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            async with asyncio.timeout(self._left):
                return await awaitable
        except TimeoutError as error:
            raise timed_out() from error
        finally:
            self._left -= clock() - started
