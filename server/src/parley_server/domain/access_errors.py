"""What keeps a caller out: his credential, whom he claims to speak for, and what he may do."""

from parley_server.domain.errors import ErrorKind, ParleyError, Reason


class ContextInvalidError(ParleyError):
    """The RequestContext in the call's metadata is doubled, unreadable or out of bounds."""

    kind = ErrorKind.INVALID_ARGUMENT
    reason = Reason.CONTEXT_INVALID


class ClockSkewError(ParleyError):
    """The context's timestamp is too far from the server's clock."""

    kind = ErrorKind.INVALID_ARGUMENT
    reason = Reason.CLOCK_SKEW


class CredentialsInvalidError(ParleyError):
    """The credential is missing or bad; one text for all causes."""

    kind = ErrorKind.UNAUTHENTICATED
    reason = Reason.CREDENTIALS_INVALID

    def __init__(self) -> None:
        super().__init__("missing or invalid credentials")


class AuthUnavailableError(ParleyError):
    """The provider could not decide; nobody is let in meanwhile."""

    kind = ErrorKind.UNAVAILABLE
    reason = Reason.AUTH_UNAVAILABLE


class AuthRateLimitedError(ParleyError):
    """Too many bad credentials came from the caller's address; nothing from there is looked at for a while."""

    kind = ErrorKind.RESOURCE_EXHAUSTED
    reason = Reason.AUTH_RATE_LIMITED

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too many bad credentials from this address", retry_after_s=retry_after_s)


class UserMismatchError(ParleyError):
    """The context claims a user whom the credential may not speak for."""

    kind = ErrorKind.PERMISSION_DENIED
    reason = Reason.USER_MISMATCH


class ScopeMissingError(ParleyError):
    """The credential lacks the scope the method asks for, or may not use it for another user."""

    kind = ErrorKind.PERMISSION_DENIED
    reason = Reason.SCOPE_MISSING

    @classmethod
    def of(cls, scope: str, *, is_held: bool = False) -> "ScopeMissingError":
        """Build the error for one scope; `is_held` says that it is the caller's own, and for himself alone."""
        what = f"the scope {scope} is not for acts in another user's name" if is_held else ""
        return cls(what or f"the credential lacks the scope {scope}", metadata={"scope": scope})


class PrincipalNotAllowedError(ParleyError):
    """The method is for the other kind of caller."""

    kind = ErrorKind.PERMISSION_DENIED
    reason = Reason.PRINCIPAL_NOT_ALLOWED

    def __init__(self, allowed: str) -> None:
        super().__init__(f"only a {allowed} may call this method", metadata={"principal_kind": allowed})


class DelegationDisabledError(ParleyError):
    """The operator does not let anybody in by delegation tokens, so that one for this server would open nothing."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.DELEGATION_DISABLED

    def __init__(self) -> None:
        super().__init__("this server lets nobody in by delegation tokens; name another audience")


class DelegationTooDeepError(ParleyError):
    """As many act for the user already, one for the other, as may."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.DELEGATION_TOO_DEEP

    def __init__(self, max_actors: int) -> None:
        super().__init__(
            f"at most {max_actors} act for a user, one for the other", metadata={"max_actors": str(max_actors)}
        )


class AccountErasingError(ParleyError):
    """All that there is of the user is being erased, so that nothing can be asked or done for him."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.ACCOUNT_ERASING

    def __init__(self) -> None:
        super().__init__("the user's account is being erased")
