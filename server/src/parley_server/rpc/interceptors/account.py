"""The user's account: whether anything may be done for him, and the zone and language a claim leaves open."""

from typing import Protocol, TypeVar

from parley_server.domain.account import AccountDefaults
from parley_server.rpc.call import Call, Handler, Method, present

T = TypeVar("T")

# Says how far an erasure has come.
ERASE = "/parley.v1.AccountService/EraseAccount"
_NOTHING = AccountDefaults()


class Accounts(Protocol):
    """What is known of accounts."""

    def require_open(self, user_id: str) -> None:
        """Let a call for a user pass. Raises AccountErasingError."""
        ...

    def recall(self, user_id: str) -> AccountDefaults | None:
        """Return what is known of a user; None where it has to be looked up."""
        ...

    async def find(self, user_id: str) -> AccountDefaults:
        """Look a user up. Raises StorageUnavailableError."""
        ...


class NoAccounts:
    """Implements `Accounts` where nobody has any."""

    def require_open(self, user_id: str) -> None:
        """Let every call pass."""

    def recall(self, user_id: str) -> AccountDefaults:  # noqa: ARG002  # the interface's
        """Return nothing."""
        return _NOTHING

    async def find(self, user_id: str) -> AccountDefaults:  # noqa: ARG002  # the interface's
        """Return nothing."""
        return _NOTHING


class AccountBinder:
    """Completes the context by the account of its user; what the claim says itself wins."""

    def __init__(self, accounts: Accounts) -> None:
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
