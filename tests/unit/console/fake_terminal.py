"""A stream that says it is a terminal and keeps what was written."""

import io

from parley_console.screen import Screen


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain_terminal() -> tuple[Screen, TerminalStream]:
    """A terminal whose user wants no colours."""
    stream = TerminalStream()
    return Screen(stream, {"NO_COLOR": "1"}), stream


def pipe() -> tuple[Screen, io.StringIO]:
    stream = io.StringIO()
    return Screen(stream, {}), stream
