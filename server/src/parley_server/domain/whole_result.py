"""Results that are too large to be told whole; events and messages name them by their ids."""

from dataclasses import dataclass

MAX_WHOLE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ResultPiece:
    """A piece of a whole result, which is JSON in UTF-8, and the size of all of it in bytes."""

    content: bytes
    total_bytes: int
