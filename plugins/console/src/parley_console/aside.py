"""What the user is asked beside the conversation: by a key, or by a line that does not go to the model."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

QUIET_S: Final = 0.5


class Aside:
    """One question at a time, at a terminal where the user may be typing something else.

    A key that was meant for a message must never approve anything: keys count only while the line is empty and nobody
    has typed for `QUIET_S`, and only then the terminal shows what they mean.
    """

    def __init__(self, redraw: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._redraw = redraw
        self._clock = clock
        self._choices = ""
        self._keys = ""
        self._key: asyncio.Future[str] | None = None
        self._line: asyncio.Future[str | None] | None = None
        self._quiet_since = 0.0
        self.question = ""
        """What stands in place of the prompt while a line is asked for."""

    async def choose(self, choices: str, keys: str) -> str:
        """Return which of the keys is pressed."""
        self._choices, self._keys = choices, keys
        self._key = asyncio.get_running_loop().create_future()
        self.touched()
        try:
            return await self._key
        finally:
            self._choices = self._keys = ""
            self._redraw()

    async def ask(self, question: str) -> str | None:
        """Return the next line that is sent; None when it is taken back."""
        self.question = question
        self._line = asyncio.get_running_loop().create_future()
        self._redraw()
        try:
            return await self._line
        finally:
            self.question = ""
            self._redraw()

    def row(self, typed: str) -> str:
        """Return what stands above the prompt; `typed` is what stands behind it."""
        if not self._keys:
            return ""
        if typed:
            return "an approval waits for a key: send the line or clear it first"
        return self._choices if self._is_quiet() else "…"

    def touched(self) -> None:
        """Note that what is typed has changed."""
        self._quiet_since = self._clock()
        if self._keys:
            asyncio.get_running_loop().call_later(QUIET_S, self._redraw)
            self._redraw()

    def offers(self, key: str, typed: str) -> bool:
        """Say whether the key counts as an answer."""
        return bool(key) and key in self._keys and not typed and self._is_quiet()

    def press(self, key: str) -> None:
        """Take the key that answers."""
        if self._key is not None and not self._key.done():
            self._key.set_result(key)

    def send(self, line: str | None) -> None:
        """Take the line that answers; None when there will be none."""
        if self._line is not None and not self._line.done():
            self._line.set_result(line)

    def _is_quiet(self) -> bool:
        return self._clock() - self._quiet_since >= QUIET_S
