"""The doors to what was used, and to the budgets of this server."""

from collections.abc import Sequence
from typing import Protocol

from parley_server.domain.budget import Budget, BudgetUse
from parley_server.domain.quota import Limit
from parley_server.domain.usage_report import UsageQuery, UsageSum
from parley_server.storage.page import Page, PageRequest


class UsageRepository(Protocol):
    """What was used, by days. That of one user's store tells of that user alone, whatever it is asked for."""

    async def sums(self, query: UsageQuery, page: PageRequest) -> Page[UsageSum]:
        """Return the groups with any usage, in the order of `UsageGrouping`. Raises PageTokenInvalidError."""
        ...


class BudgetRepository(Protocol):
    """The limits that were set at run time; for administrators only, which the access policy sees to."""

    async def all(self) -> tuple[Budget, ...]:
        """Return all of them."""
        ...

    async def set(self, budget: Budget) -> Budget:
        """Put a budget in the place of what was set for its subject and models, durably; without limits, nothing.

        Raises:
            EtagMismatchError: it has an etag, which is not that of what is there.
        """
        ...

    async def uses(self, limits: Sequence[Limit]) -> tuple[BudgetUse, ...]:
        """Return how much of each limit is used; of any but those on requests."""
        ...
