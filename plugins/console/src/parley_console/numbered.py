"""A list whose entries a user names by their numbers."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Numbered(Generic[T]):
    """What was listed last; an entry is named by its number from 1, or by its id."""

    def __init__(self, id_of: Callable[[T], str]) -> None:
        self._id_of = id_of
        self.entries: Sequence[T] = ()

    def named(self, chosen: str) -> T | None:
        """Return the entry; None when there is none of that name."""
        if chosen.isascii() and chosen.isdigit():
            return self.entries[int(chosen) - 1] if 1 <= int(chosen) <= len(self.entries) else None
        return next((entry for entry in self.entries if self._id_of(entry) == chosen), None)
