"""What a chat needs of its terminal."""

from collections.abc import Sequence
from typing import Protocol

from parley_console.screen import Style


class Terminal(Protocol):
    """Lines that stay, above a small area that is drawn anew, above the line that is being typed."""

    async def read(self) -> str | None:
        """Return the next text that was sent, which may have several lines; None once the user has left."""

    async def ask(self, question: str) -> str:
        """Return the answer to a question that stands in place of the prompt; empty when the user has left."""

    async def choose(self, choices: str, keys: str) -> str:
        """Return which of the keys, a character each, the user presses; `choices` says what they mean.

        What he types meanwhile is his message; a line that is not empty is no answer.
        """

    async def ask_aside(self, question: str) -> str | None:
        """Return a line that the user types to a question, beside `read`; None when he takes it back."""

    def line(self, text: str = "", style: Style = Style.PLAIN) -> None:
        """Write one or more whole lines that stay."""

    def markdown(self, source: str) -> None:
        """Write a finished block of Markdown that stays. Its text has no control characters."""

    def show_live(self, text: str) -> None:
        """Show the end of a text that is not finished, in place of the one before; empty: nothing."""

    def show_queued(self, texts: Sequence[str]) -> None:
        """Show what was sent and waits for its turn, in place of what was shown before."""
