"""The door to what was used."""

from typing import Protocol

from parley_server.domain.usage_report import UsageQuery, UsageSum
from parley_server.storage.page import Page, PageRequest


class UsageRepository(Protocol):
    """What was used, by days. That of one user's store tells of that user alone, whatever it is asked for."""

    async def sums(self, query: UsageQuery, page: PageRequest) -> Page[UsageSum]:
        """Return the groups with any usage, in the order of `UsageGrouping`. Raises PageTokenInvalidError."""
        ...
