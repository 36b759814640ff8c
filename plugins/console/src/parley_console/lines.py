"""Where whole lines go."""

from typing import Protocol

from parley_console.screen import Style


class Lines(Protocol):
    """A terminal, or a stream."""

    def line(self, text: str = "", style: Style = Style.PLAIN) -> None:
        """Write one or more whole lines that stay."""
