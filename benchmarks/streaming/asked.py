"""What the clients of a load ask for, and how it looks to those who ask."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

# One stream of a model, as the texts of its messages.
Stream = Callable[[], AsyncIterator[str]]

# As a conversation goes: half a paragraph is asked, a line is answered.
_QUESTION = "What would you look at first in a service whose memory grows by a megabyte an hour? " * 3
_ANSWER = "The caches first, yes"


@dataclass(frozen=True)
class Asked:
    """`calls` streams of a model in all, `streams` of them at a time, each with `history` messages before its own."""

    address: str
    model: str
    streams: int
    calls: int
    history: int = 0

    def texts(self) -> list[str]:
        """Return the messages before the own one: what a user asked and what was answered, by turns."""
        return [(_QUESTION, _ANSWER)[number % 2] for number in range(self.history)]


# Gets ready to ask, and returns what asks once.
Opener = Callable[[Asked], Awaitable[Stream]]
