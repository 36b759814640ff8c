"""Setting budgets at run time, and telling what is left of them."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

from parley_server.domain.budget import Budget, BudgetUse
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import ADMIN_SCOPE
from parley_server.domain.quota import Consumer, Limit, Measure, SubjectKind, rules_for
from parley_server.quotas.quotas import Quotas


class Budgets(Protocol):
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


class BudgetAdministration:
    """Keeps the budgets in force those that are stored. Call `load` before the first call is served."""

    def __init__(self, budgets: Budgets, quotas: Quotas) -> None:
        self._stored = budgets
        self._quotas = quotas
        self._by_name: Mapping[str, Budget] = MappingProxyType({})
        # So that what was read first is not in force last.
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Have all that is stored in force."""
        async with self._changing:
            await self._load()

    async def set(self, budget: Budget) -> Budget:
        """Set a budget, which holds from now on; without limits, remove it. Raises EtagMismatchError."""
        async with self._changing:
            stored = await self._stored.set(budget)
            await self._load()
            return stored

    def all(self) -> dict[str, Budget]:
        """Return every budget that was set, by its name."""
        return dict(self._by_name)

    def of(self, context: RequestContext) -> dict[str, Budget]:
        """Return all limits that hold for a caller, whatever model he asks, by their names."""
        held = (
            self._by_name.get(rule.name) or Budget(subject, rule.limits, rule.models, rule=rule.name)
            for rule, subject in rules_for(self._quotas.rules, Consumer.of(context))
        )
        return {budget.name: budget for budget in held if any(budget.limits.amounts())}

    async def with_uses(self, budgets: Iterable[Budget], context: RequestContext) -> list[Budget]:
        """Return budgets with what is used of them, as far as the caller may know it."""
        return [
            replace(budget, uses=await self._uses(budget)) if _may_know(context, budget.subject.kind) else budget
            for budget in budgets
        ]

    async def _uses(self, budget: Budget) -> tuple[BudgetUse, ...]:
        limits = budget.held()
        requests = [each for each in limits if each.measure is Measure.REQUESTS_PER_MINUTE]
        others = [each for each in limits if each.measure is not Measure.REQUESTS_PER_MINUTE]
        counted = map(self._quotas.requests_used, requests)
        return (*counted, *(await self._stored.uses(others) if others else ()))

    async def _load(self) -> None:
        budgets = await self._stored.all()
        self._by_name = MappingProxyType({budget.name: budget for budget in budgets})
        self._quotas.replace_budgets([budget.as_rule() for budget in budgets])


def _may_know(context: RequestContext, kind: SubjectKind) -> bool:
    """Tell whether a caller may know what a subject uses: other users' use is in all but a user's."""
    if kind is SubjectKind.USER or ADMIN_SCOPE in context.scopes:
        return True
    # Whoever acts for the holder of the credential is not the service, nor has its key.
    return kind is not SubjectKind.EVERYONE and not context.principal.actors
