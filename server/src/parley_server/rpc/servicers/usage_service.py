"""UsageService: maps, calls one method, maps back."""

from functools import partial

from parley.v1 import usage_service_pb2 as pb

from parley_server.auth.policy import Rule
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import ADMIN_SCOPE
from parley_server.quotas.administration import BudgetAdministration
from parley_server.rpc.mapping.budget import read_budget, read_usage_query, write_budget, write_usage_row
from parley_server.rpc.mapping.page import page_of, read_page
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.repositories import Store

_ADMIN = Rule(ADMIN_SCOPE)


class UsageServicer:
    """Serves usage and budgets."""

    def __init__(self, store: Store, budgets: BudgetAdministration, tokens: PageTokens) -> None:
        self._store = store
        self._budgets = budgets
        self._tokens = tokens

    async def get_usage(self, context: RequestContext, request: pb.GetUsageRequest) -> pb.GetUsageResponse:
        """Return what the caller's user has used; another, or all, for administrators."""
        usage = self._store.for_user(context).usage
        if request.all_users or request.user_id not in {"", context.user_id}:
            _ADMIN.check(context)
            usage = self._store.usage
        query = read_usage_query(request, request.user_id)
        page = await usage.sums(query, read_page(request.page_size, request.page_token))
        return pb.GetUsageResponse(rows=map(write_usage_row, page.items), next_page_token=page.next_token)

    async def list_budgets(self, context: RequestContext, request: pb.ListBudgetsRequest) -> pb.ListBudgetsResponse:
        """Return the limits that hold for the caller; all that were set, for administrators."""
        if request.all:
            _ADMIN.check(context)
        budgets = self._budgets.all() if request.all else self._budgets.of(context)
        listing = ("budgets", context.user_id, str(request.all))
        page = page_of(
            budgets,
            read_page(request.page_size, request.page_token),
            read=partial(self._tokens.read, listing),
            write=partial(self._tokens.issue, listing),
        )
        told = await self._budgets.with_uses(page.items, context)
        return pb.ListBudgetsResponse(budgets=map(write_budget, told), next_page_token=page.next_token)

    async def set_budget(self, _context: RequestContext, request: pb.SetBudgetRequest) -> pb.SetBudgetResponse:
        """Set or remove a budget."""
        return pb.SetBudgetResponse(budget=write_budget(await self._budgets.set(read_budget(request.budget))))
