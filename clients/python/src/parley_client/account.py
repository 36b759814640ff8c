"""What the user has told of himself, all that the server has of him, and the end of it."""

from collections.abc import AsyncGenerator

from parley.v1 import account_service_pb2 as messages
from parley.v1.account_pb2 import Account, QuietHours
from parley.v1.account_service_pb2_grpc import AccountServiceStub

from parley_client.transport import Transport, parley_errors


class Accounts:
    """AccountService over one transport. Every method raises ParleyError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = AccountServiceStub(transport.channel)

    async def get(self) -> Account:
        """Return the user's account; an empty one where nothing was ever set."""
        return (await self._transport.unary(self._stub.GetAccount, messages.GetAccountRequest())).account

    async def update(
        self,
        *,
        display_name: str | None = None,
        time_zone: str | None = None,
        locale: str | None = None,
        quiet_hours: QuietHours | None = None,
        no_quiet_hours: bool = False,
        etag: str = "",
    ) -> Account:
        """Change what is given, and nothing else; an empty text takes back what was said.

        With the `etag` last seen a change that came between is an AbortedError.
        """
        account = Account(
            display_name=display_name or "",
            time_zone=time_zone or "",
            locale=locale or "",
            quiet_hours=quiet_hours,
            etag=etag,
        )
        request = messages.UpdateAccountRequest(account=account)
        texts = {"display_name": display_name, "time_zone": time_zone, "locale": locale}
        request.update_mask.paths.extend(name for name, text in texts.items() if text is not None)
        if quiet_hours is not None or no_quiet_hours:
            request.update_mask.paths.append("quiet_hours")
        return (await self._transport.unary(self._stub.UpdateAccount, request)).account

    async def export(self) -> AsyncGenerator[str]:
        """Yield all that the server has of the user, a line of JSON at a time; see ExportAccount for their order."""
        call = self._transport.stream(self._stub.ExportAccount, messages.ExportAccountRequest())
        responses = aiter(call)
        try:
            while True:
                with parley_errors():
                    response = await anext(responses, None)
                if response is None:
                    return
                # Not by splitlines, for which other characters end a line, too.
                for line in response.json_lines.split("\n")[:-1]:
                    yield line
        finally:
            call.cancel()

    async def erase(self, user_id: str, *, confirmation: str) -> bool:
        """Erase all that the server has of a user, for good; `confirmation` is `user_id` once more.

        Returns whether it is over; where it is not, the same call again waits for more of it. The keys of the user are
        gone then, so that a call with one of them is a NotAuthenticatedError.
        """
        request = messages.EraseAccountRequest(user_id=user_id, confirmation=confirmation)
        erased = await self._transport.unary(self._stub.EraseAccount, request)
        return erased.state == messages.ERASURE_STATE_ERASED
