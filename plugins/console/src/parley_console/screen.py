"""Where text goes: a terminal or a pipe, told apart once."""

import io
import os
import unicodedata
from collections.abc import Mapping
from enum import Enum
from typing import Final, TextIO

# Everything a terminal would obey instead of show: C0 without newline and tab, DEL, and C1.
_OBEYED: Final = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])

# Where a terminal does not tell.
_COLUMNS: Final = 80


class Style(Enum):
    """How a line looks where colours are allowed; the value is its SGR code."""

    PLAIN = ""
    DIM = "2"
    RED = "31"
    YELLOW = "33"


class Screen:
    """Writes text to one stream at once and keeps it harmless.

    Text of models and tools never reaches a terminal with control characters in it. Colours are for terminals
    without NO_COLOR. A pipe gets every character as it is.
    """

    def __init__(self, stream: TextIO, environment: Mapping[str, str] = os.environ) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows `?`
        self._stream = stream
        self.is_terminal = stream.isatty()
        self._colours = self.is_terminal and wants_colours(environment)
        self._rewrites = self.is_terminal and environment.get("TERM") != "dumb"
        self.at_line_start = True

    def can_rewrite(self, line: str) -> bool:
        """Say whether a line that is open may be written anew: only a terminal forgets, and only what is on one row."""
        return self._rewrites and _cells(line) < self._columns()

    def rewrite(self, line: str, style: Style = Style.PLAIN) -> None:
        """Write the open line anew in one go, as much of it as fits on a row; after `can_rewrite` of the one before."""
        shown = printable(line)
        while _cells(shown) >= self._columns():
            shown = shown[:-1]
        self._stream.write(f"\r{dressed(shown, style) if self._colours else shown}\x1b[K")
        self._stream.flush()
        self.at_line_start = False

    def write(self, text: str, style: Style = Style.PLAIN) -> None:
        """Write text. Raises BrokenPipeError when nobody reads any more."""
        if not text:
            return
        shown = printable(text) if self.is_terminal else text
        self._stream.write(dressed(shown, style) if self._colours else shown)
        self._stream.flush()
        self.at_line_start = text.endswith("\n")

    def line(self, text: str = "", style: Style = Style.PLAIN) -> None:
        """Write one line of its own."""
        self.end_line()
        self.write(text, style)
        self.write("\n")

    def end_line(self) -> None:
        """Go to the start of a line, if not there."""
        if not self.at_line_start:
            self.write("\n")

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or _COLUMNS
        except OSError:
            return _COLUMNS

    def disturb(self) -> None:
        """Note that the terminal itself wrote something, as it does for Ctrl-C: what comes next needs a fresh line."""
        if self.is_terminal:
            self.at_line_start = False


class Nowhere(Screen):
    """Takes text and drops it."""

    def __init__(self) -> None:
        self.is_terminal = False
        self._rewrites = False
        self.at_line_start = True

    def write(self, text: str, style: Style = Style.PLAIN) -> None:
        """Drop the text."""


def wants_colours(environment: Mapping[str, str]) -> bool:
    """Say whether a terminal's user wants colours: NO_COLOR, or a terminal that has none, says no."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def dressed(text: str, style: Style) -> str:
    """Return the text with the codes of its style around it."""
    return text if style is Style.PLAIN else f"\x1b[{style.value}m{text}\x1b[0m"


def printable(text: str) -> str:
    """Return the text without what a terminal would obey; what is left is shown as it is."""
    return text.translate(_OBEYED)


def _cells(text: str) -> int:
    """Return how many columns a terminal needs for a text, or a little more."""
    return sum(2 if unicodedata.east_asian_width(character) in "WFA" else 1 for character in text)
