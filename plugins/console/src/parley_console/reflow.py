"""Where the cursor is after the terminal has wrapped our rows to a new width."""

import os
from collections.abc import Mapping

from prompt_toolkit.data_structures import Point
from prompt_toolkit.layout.screen import Screen


def reflows(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether the terminal wraps rows anew when it is resized: nearly all do, but for a few old ones."""
    is_known_not_to = environment.get("XTERM_VERSION") or environment.get("STY")
    return not is_known_not_to and not environment.get("TERM", "").startswith(("rxvt", "st-"))


def added_rows(screen: Screen, cursor: Point, columns: int) -> int:
    """Return by how many rows the cursor moved down when what was drawn was wrapped to `columns`."""
    above = sum(max(0, _width(screen, row) - 1) // columns for row in range(cursor.y))
    return above + cursor.x // columns


def _width(screen: Screen, row: int) -> int:
    return max((column for column, char in screen.data_buffer[row].items() if char.char.strip()), default=-1) + 1
