"""The terminal as prompt_toolkit writes to it, one write per frame."""

import os
from typing import Final, Self, TextIO

from prompt_toolkit.data_structures import Size
from prompt_toolkit.output.vt100 import Vt100_Output

_UNKNOWN: Final = Size(rows=24, columns=80)


class FrameOutput(Vt100_Output):
    """Holds back what is written between `hold` and `release`, so that nobody sees a frame half drawn."""

    _is_held = False

    @classmethod
    def on(cls, terminal: TextIO) -> Self:
        """Build the output for a terminal."""

        def size() -> Size:
            told = os.get_terminal_size(terminal.fileno())
            return Size(rows=told.lines or _UNKNOWN.rows, columns=told.columns or _UNKNOWN.columns)

        # Nothing here depends on where the cursor is, and some terminals never answer when they are asked.
        return cls(terminal, size, term=os.environ.get("TERM"), enable_cpr=False)

    def hold(self) -> None:
        """Begin a frame."""
        self._is_held = True

    def release(self) -> None:
        """End a frame and write it."""
        self._is_held = False
        self.flush()

    def flush(self) -> None:
        """Write what has gathered, except inside a frame."""
        if not self._is_held:
            super().flush()
