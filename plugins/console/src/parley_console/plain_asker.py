"""Asks at a terminal that has no prompt: what `parley ask` does while it shows an answer."""

import asyncio
import os
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from parley_console.aside import QUIET_S
from parley_console.plain_display import PlainDisplay
from parley_console.screen import Style

_MAX_LINE_BYTES = 4096


class PlainAsker:
    """Writes questions beside the answer and reads the keyboard while one is open."""

    def __init__(self, display: PlainDisplay, keyboard: TextIO) -> None:
        self._display = display
        self._keyboard = keyboard.fileno()

    def line(self, text: str = "", style: Style = Style.PLAIN) -> None:
        """Write lines beside the answer."""
        self._display.note(text, style)

    async def choose(self, choices: str, keys: str) -> str:
        """Return which of the keys is pressed, empty once the terminal is gone.

        What was typed before the choices were shown does not count: it was meant for somebody else.
        """
        await asyncio.sleep(QUIET_S)
        with _single_keys(self._keyboard):
            self._display.note(choices)
            while (pressed := await self._typed()) and pressed not in list(keys):
                continue
        return pressed

    async def ask_aside(self, question: str) -> str | None:
        """Return a line; Ctrl-D takes it back."""
        self._display.note(question)
        typed = await self._typed()
        return typed.strip() if typed else None

    async def _typed(self) -> str:
        """Wait for what is typed next: keys, or a line with its end, as the terminal is set."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._keyboard, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._keyboard)
        try:
            return os.read(self._keyboard, _MAX_LINE_BYTES).decode(errors="replace")
        except OSError:  # hung up
            return ""


@contextmanager
def _single_keys(keyboard: int) -> Iterator[None]:
    """Have the terminal give out every key at once, unseen; Ctrl-C stays what it is."""
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
