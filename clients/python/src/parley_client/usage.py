"""What was used, and what may be."""

from collections.abc import AsyncGenerator, Iterable
from datetime import date

from parley.v1 import usage_service_pb2 as messages
from parley.v1.usage_service_pb2 import Budget, UsageGrouping, UsageRow
from parley.v1.usage_service_pb2_grpc import UsageServiceStub

from parley_client.transport import Transport


class UsageCalls:
    """UsageService over one transport. Every method raises ParleyError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = UsageServiceStub(transport.channel)

    async def rows(
        self,
        first_day: date | None,
        last_day: date | None,
        group_by: Iterable[UsageGrouping.ValueType],
        model: str,
        user_id: str,
    ) -> AsyncGenerator[UsageRow]:
        """List the user's usage; see `ParleyClient.usage`."""
        request = messages.GetUsageRequest(
            start_date="" if first_day is None else first_day.isoformat(),
            end_date="" if last_day is None else last_day.isoformat(),
            group_by=group_by,
            model=model,
        )
        if user_id:
            request.user_id = user_id
        async for page in self._transport.pages(self._stub.GetUsage, request):
            for row in page.rows:
                yield row

    async def budgets(self) -> AsyncGenerator[Budget]:
        """List the limits that hold for the caller, with what is left of them."""
        async for page in self._transport.pages(self._stub.ListBudgets, messages.ListBudgetsRequest()):
            for budget in page.budgets:
                yield budget

    async def set_budget(self, budget: Budget) -> Budget:
        """Set the limits of a user, service or key; for administrators."""
        return (await self._transport.unary(self._stub.SetBudget, messages.SetBudgetRequest(budget=budget))).budget
