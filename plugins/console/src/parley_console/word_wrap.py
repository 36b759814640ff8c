"""Wraps plain text to the columns of a terminal."""

import re
from collections.abc import Iterator
from typing import Final

from prompt_toolkit.utils import get_cwidth

_WORD: Final = re.compile(r"\s*\S+|\s+")
_TAB: Final = "    "


def last_rows(text: str, columns: int, most: int) -> list[str]:
    """Return the last `most` rows of a text wrapped at words; a word longer than a row is cut.

    An open last line counts, an empty one after the last newline does not.
    """
    if most <= 0 or not text:
        return []
    tail = text.removesuffix("\n").split("\n")[-most:]
    rows = [row for line in tail for row in wrap_line(line.replace("\t", _TAB), columns)]
    return rows[-most:]


def wrap_line(line: str, columns: int) -> Iterator[str]:
    """Yield the rows of one line, each at most `columns` wide; at least one, and all of the words."""
    row, width = "", 0
    for word in _WORD.findall(line):
        word_width = get_cwidth(word)
        if width + word_width > columns and row:
            yield row
            row, width = "", 0
            word = word.lstrip()  # noqa: PLW2901 - the blank is where the row ends
            word_width = get_cwidth(word)
        for character in word if word_width > columns else [word]:
            character_width = get_cwidth(character)
            if width + character_width > columns and row:
                yield row
                row, width = "", 0
            row, width = row + character, width + character_width
    yield row
