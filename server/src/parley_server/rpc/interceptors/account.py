"""The user's account: whether anything may be done for him, and the zone and language a claim leaves open."""

from typing import TypeVar

from parley_server.accounts.cache import AccountCache
from parley_server.rpc.call import Call, Handler, Method, present

T = TypeVar("T")

# Says how far an erasure has come.
ERASE = "/parley.v1.AccountService/EraseAccount"


class AccountBinder:
    """Completes the context by the account of its user; what the claim says itself wins."""

    def __init__(self, accounts: AccountCache) -> None:
        self._accounts = accounts

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:
        """Let in only calls for users who are not being erased."""
        may_be_erasing = method.name == ERASE

        async def handler(call: Call) -> T:
            context, claim = present(call.context), present(call.claim)
            if not may_be_erasing:
                self._accounts.require_open(context.user_id)
            if not ((claim.time_zone and claim.locale) or may_be_erasing):
                defaults = self._accounts.recall(context.user_id)
                if defaults is None:
                    defaults = await self._accounts.find(context.user_id)
                if defaults.time_zone or defaults.locale:
                    call.context = context.with_defaults(
                        time_zone=claim.time_zone or defaults.time_zone, locale=claim.locale or defaults.locale
                    )
            return await inner(call)

        return handler
