"""What a call can fail with: one class per gRPC status, each with the server's stable reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks a rule of the contract; `field` is its path in the request (`run.input[0].text`)."""

    field: str
    description: str


class ParleyError(Exception):
    """A call that failed; every error this library raises for a call is one.

    `reason` is the server's stable word to branch on (`CONVERSATION_BUSY`), empty when the status was made on the way
    and not by the server; `metadata` holds what varies in it. `request_id` names the call in the server's log.
    `retry_after_s` is the server's wish in seconds: None when it has none, infinite when it asks not to be tried again.
    """

    def __init__(  # noqa: PLR0913 - an error's parts, all but two optional
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
        violations: Sequence[Violation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.request_id = request_id
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"


class InvalidRequestError(ParleyError):
    """The request breaks a rule; `violations` names every field that does."""


class NotFoundError(ParleyError):
    """The user has no such object."""


class AlreadyExistsError(ParleyError):
    """The request id was used before, for another request."""


class FailedPreconditionError(ParleyError):
    """Things do not stand as the call needs them, or the server lacks an option it asks for."""


class OutOfRangeError(ParleyError):
    """The cursor lies beyond the end of the run's log."""


class UnimplementedError(ParleyError):
    """The server lacks the rpc."""


class NotAuthenticatedError(ParleyError):
    """The credential is missing, unknown, expired or revoked."""


class PermissionDeniedError(ParleyError):
    """The credential does not allow the call, or not for this user."""


class LimitReachedError(ParleyError):
    """A quota or a limit is used up; see `retry_after_s`."""


class AbortedError(ParleyError):
    """The call lost a race; read again and repeat."""


class DeadlineExceededError(ParleyError):
    """The call took longer than it was given."""


class UnavailableError(ParleyError):
    """The server cannot be reached or cannot answer now."""


class HandshakeError(UnavailableError):
    """Somebody answers, but the two ends do not agree on TLS; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, message)


class CallCancelledError(ParleyError):
    """The call was cancelled, and not because the task that waits for it was."""


class ClientClosedError(CallCancelledError):
    """The client's context was left before the call was made."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.CANCELLED, "the client is closed")


class InternalError(ParleyError):
    """A fault of the server; `request_id` finds it in the server's log."""


class ProtocolError(InternalError):
    """The server broke the contract: an event is missing, repeated or unreadable."""

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.INTERNAL, message)


CLASS_OF_CODE: Final[dict[grpc.StatusCode, type[ParleyError]]] = {
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.UNKNOWN: InternalError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitReachedError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DATA_LOSS: InternalError,
    grpc.StatusCode.UNAUTHENTICATED: NotAuthenticatedError,
}
