"""Before each WRITE: whether the credential that its run was accepted under still holds."""

from collections.abc import Awaitable, Callable

from parley_server.domain.access_errors import AuthUnavailableError, CredentialsInvalidError
from parley_server.domain.principal import Principal
from parley_server.domain.tool import ToolCallStatus
from parley_server.tools.errors import ToolError

# Raises CredentialsInvalidError for a credential that has ended, AuthUnavailableError where nobody can tell.
CallerCheck = Callable[[Principal], Awaitable[None]]


class CredentialEndedError(ToolError):
    """The run goes on without the right to change anything: what it was started with is revoked or over."""

    status = ToolCallStatus.DENIED

    def __init__(self) -> None:
        message = "Not run: the credential that this run was started with has ended since."
        super().__init__("credential_ended", message, hint="Go on without changes, and tell the user so.")


class CredentialUnverifiedError(ToolError):
    """Nobody can tell at the moment whether the run may still change anything."""

    status = ToolCallStatus.DENIED

    def __init__(self) -> None:
        message = "Not run: whether the credential of this run still holds cannot be told at the moment."
        super().__init__("credential_unverified", message, hint="Try again in a while.", retryable=True)


async def let_in_for_good(_: Principal) -> None:
    """Pass whoever was let in once, where credentials do not end: for tests of tools."""


async def refusal_of(check: CallerCheck, principal: Principal) -> ToolError | None:
    """Return why a WRITE may not be made for this caller any more; None if it may."""
    try:
        await check(principal)
    except CredentialsInvalidError:
        return CredentialEndedError()
    except AuthUnavailableError:
        return CredentialUnverifiedError()
    return None
