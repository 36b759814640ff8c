"""The door to erasing: what is done to the store when a user is to be forgotten. Open to the eraser alone."""

from typing import Protocol


class Erasures(Protocol):
    """Erases users, one small transaction after the other. What was begun is found again after a restart.

    From `begin` to `finish` nothing is written for the user but what ends his runs, and what was asked for before
    `finish` is written no more after it.
    """

    async def pending(self) -> tuple[str, ...]:
        """Return the users whose erasure was begun and not finished, and refuse what is written for them."""
        ...

    async def begin(self, user_id: str) -> None:
        """Note, durably, that the user is to be erased, however long that takes.

        Raises StorageUnavailableError: it is not noted, and he may not be erased.
        """
        ...

    async def live_runs(self, user_id: str) -> tuple[str, ...]:
        """Return the ids of his runs that have not ended."""
        ...

    async def erase_some(self, user_id: str) -> int:
        """Delete a part of what is his, once no run of his is live; return how much it was, 0 when nothing is left."""
        ...

    async def scrub_some(self) -> int:
        """Do a part of what makes deleted words leave the files of the search; return how much, 0 when it is done."""
        ...

    async def scrub(self) -> None:
        """Make what was deleted leave the database's files. Raises StorageUnavailableError when that cannot be now."""
        ...

    async def finish(self, user_id: str) -> bool:
        """Note that nothing is left; False, and nothing is noted, where there is something after all."""
        ...
