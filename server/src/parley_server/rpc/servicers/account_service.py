"""AccountService: maps, calls one method, maps back."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from parley.v1 import account_service_pb2 as pb

from parley_server.accounts.cache import AccountCache
from parley_server.accounts.eraser import AccountEraser
from parley_server.domain.account import erasable_user
from parley_server.domain.context import RequestContext
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.account import read_account_changes, write_account
from parley_server.rpc.servicers.account_export import account_lines
from parley_server.rpc.servicers.export import gathered
from parley_server.storage.repositories import Store


class AccountServicer:
    """Serves the user's account."""

    def __init__(self, store: Store, accounts: AccountCache, eraser: AccountEraser, drain: Drain) -> None:
        self._store = store
        self._accounts = accounts
        self._eraser = eraser
        self._drain = drain

    async def get_account(self, context: RequestContext, _request: pb.GetAccountRequest) -> pb.GetAccountResponse:
        """Return the account."""
        return pb.GetAccountResponse(account=write_account(await self._store.for_user(context).account.get()))

    async def update_account(
        self, context: RequestContext, request: pb.UpdateAccountRequest
    ) -> pb.UpdateAccountResponse:
        """Change what the mask names."""
        changes = read_account_changes(request)
        try:
            account = await self._store.for_user(context).account.update(changes, request.account.etag)
        finally:
            # Also where nobody knows whether it has changed.
            self._accounts.forget(context.user_id)
        return pb.UpdateAccountResponse(account=write_account(account))

    async def export_account(
        self, context: RequestContext, _request: pb.ExportAccountRequest
    ) -> AsyncGenerator[pb.ExportAccountResponse]:
        """Return all that there is of the user as JSON lines."""
        return _in_responses(account_lines(self._store.for_user(context), self._drain))

    async def erase_account(self, context: RequestContext, request: pb.EraseAccountRequest) -> pb.EraseAccountResponse:
        """Erase all that there is of a user."""
        user_id = erasable_user(context, request.user_id, request.confirmation)
        is_over = await self._eraser.erase(user_id)
        state = pb.ERASURE_STATE_ERASED if is_over else pb.ERASURE_STATE_ERASING
        return pb.EraseAccountResponse(state=state)


async def _in_responses(lines: AsyncGenerator[str]) -> AsyncGenerator[pb.ExportAccountResponse]:
    async with aclosing(gathered(lines)) as pieces:
        async for piece in pieces:
            yield pb.ExportAccountResponse(json_lines=piece)
