"""Who calls."""

from typing import Protocol, TypeVar

from parley_server.auth.provider import Credentials
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.domain.principal import Principal
from parley_server.rpc.call import Call, Handler, Method
from parley_server.rpc.interceptors.interceptor import async_checked

T = TypeVar("T")


class Authenticator(Protocol):
    """Proves callers; the chain of providers does."""

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the caller. Raises CredentialsInvalidError, AuthRateLimitedError, AuthUnavailableError."""
        ...

    async def check_again(self, credentials: Credentials) -> Principal:
        """Return the caller of a call that was let in. Raises CredentialsInvalidError, AuthUnavailableError."""
        ...


class Authentication:
    """Finds the principal of a call."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:  # noqa: ARG002  # all methods alike
        """Let in only callers who can prove who they are."""
        return async_checked(self._authenticate, inner)

    async def _authenticate(self, call: Call) -> None:
        match call.metadata.authorizations:
            case ():
                authorization = None
            case (str(authorization),):
                pass
            case _:
                raise CredentialsInvalidError
        call.credentials = Credentials(authorization, call.peer, call.certificate, call.metadata.is_forwarded)
        call.principal = await self._authenticator.authenticate(call.credentials)
