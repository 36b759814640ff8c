"""What a stream does, written as the name of its model, so that one word tells the upstream and a server without one.

`fake-n150-d20-h1000`: 150 chunks, 20 ms between two of them, and then silence for 1,000 ms before the end. The text of
every chunk is the moment it was written, as 19 digits of nanoseconds of the machine's monotonic clock and a blank.
"""

import re
import time
from dataclasses import dataclass

STAMP_LENGTH = 20
# A stamp in what is around it.
STAMPS = re.compile(r"(?<!\d)\d{19} ")
_NUMBERS = re.compile(r"-([ndh])(\d+)")


@dataclass(frozen=True)
class Script:
    """So many chunks, so many ms apart, and so many ms of silence before the end."""

    chunks: int
    gap_ms: int = 0
    hold_ms: int = 0

    @property
    def model(self) -> str:
        """The script as a model's name."""
        return f"fake-n{self.chunks}-d{self.gap_ms}-h{self.hold_ms}"

    @classmethod
    def parse(cls, model: str) -> "Script":
        """Read a model's name."""
        numbers = {letter: int(digits) for letter, digits in _NUMBERS.findall(model)}
        return cls(numbers["n"], numbers.get("d", 0), numbers.get("h", 0))


def stamp() -> str:
    """Return the text of a chunk that is written now."""
    return f"{time.monotonic_ns():019d} "


def ages_ms(text: str) -> list[float]:
    """Return how long ago the chunks in a text were written, in ms."""
    now = time.monotonic_ns()
    return [(now - int(text[place : place + STAMP_LENGTH])) / 1e6 for place in range(0, len(text), STAMP_LENGTH)]
