"""What can go wrong, in Parley's own words: a kind (a gRPC status), a stable reason, a sentence and details."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import ClassVar


class ErrorKind(Enum):
    """The canonical status of an error, by gRPC's names; `rpc/` maps it to a code."""

    INVALID_ARGUMENT = auto()
    DEADLINE_EXCEEDED = auto()
    NOT_FOUND = auto()
    ALREADY_EXISTS = auto()
    PERMISSION_DENIED = auto()
    RESOURCE_EXHAUSTED = auto()
    FAILED_PRECONDITION = auto()
    ABORTED = auto()
    OUT_OF_RANGE = auto()
    UNIMPLEMENTED = auto()
    INTERNAL = auto()
    UNAVAILABLE = auto()
    UNAUTHENTICATED = auto()


class Reason(StrEnum):
    """The stable code a client may branch on: `parley.v1.ErrorReason` without its prefix."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:  # noqa: ARG004
        """Make the wire's word the member's own name."""
        return name

    INVALID_REQUEST = auto()
    MALFORMED_MESSAGE = auto()
    CONTEXT_INVALID = auto()
    CLOCK_SKEW = auto()
    METADATA_TOO_LARGE = auto()
    MESSAGE_TIMEOUT = auto()
    CALL_TIMEOUT = auto()
    CREDENTIALS_INVALID = auto()
    AUTH_UNAVAILABLE = auto()
    USER_MISMATCH = auto()
    SCOPE_MISSING = auto()
    RESOURCE_NOT_FOUND = auto()
    CURSOR_AHEAD = auto()
    SLOW_CONSUMER = auto()
    REQUEST_ID_REUSED = auto()
    QUEUE_FULL = auto()
    CONVERSATION_BUSY = auto()
    FEATURE_NOT_AVAILABLE = auto()
    METHOD_NOT_IMPLEMENTED = auto()
    PAGE_TOKEN_INVALID = auto()
    SERVER_DRAINING = auto()
    STORAGE_UNAVAILABLE = auto()
    INTERNAL_ERROR = auto()
    SERVER_RESTARTED = auto()
    MODEL_STREAM_INCOMPLETE = auto()
    MODEL_RESPONSE_INVALID = auto()
    MODEL_UNAVAILABLE = auto()
    MODEL_TIMEOUT = auto()
    MODEL_AUTHENTICATION_FAILED = auto()
    MODEL_RATE_LIMITED = auto()
    MODEL_REQUEST_REJECTED = auto()
    MODEL_CONTEXT_TOO_LONG = auto()
    STEP_LIMIT_REACHED = auto()
    TOOL_CALL_LIMIT_REACHED = auto()
    OUTPUT_TOKEN_LIMIT_REACHED = auto()
    AGENT_FAILED = auto()
    ETAG_MISMATCH = auto()
    AUTH_RATE_LIMITED = auto()
    PRINCIPAL_NOT_ALLOWED = auto()
    SERVER_OVERLOADED = auto()
    ATTEMPTS_EXHAUSTED = auto()
    RUN_NOT_STEERABLE = auto()
    STORAGE_FULL = auto()
    OUTPUT_INVALID = auto()
    UNKNOWN_MODEL = auto()
    APPROVAL_DECIDED = auto()
    APPROVAL_EXPIRED = auto()
    APPROVAL_CANCELLED = auto()
    APPROVAL_NEEDED = auto()
    TOOL_CHANGED = auto()
    TOOL_CALL_RESOLVED = auto()
    TOOL_CALL_NOT_IN_DOUBT = auto()
    LOOP_DETECTED = auto()
    DELEGATION_TOO_DEEP = auto()
    DELEGATION_DISABLED = auto()
    ACCOUNT_ERASING = auto()
    QUOTA_EXCEEDED = auto()
    BUDGET_EXCEEDED = auto()


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks a rule; `field` is its path in the request (`run.input[0].text`), empty for all of it."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """An error as a value: what a failed run keeps and what a client is told. Holds no exception text.

    What varies in `message` is in `metadata` too. `retry_after_s` is as in `ParleyError`.
    """

    kind: ErrorKind
    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None


class StartError(Exception):
    """The server cannot start. Its text is one sentence for the operator: what is wrong, where, and the remedy."""


class ParleyError(Exception):
    """An error that may be told to the caller as it stands.

    `message` and `metadata` reach the client: never put exception text, SQL, a path or a host name there.
    `retry_after_s` says when trying again makes sense, where it does.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.INTERNAL
    reason: ClassVar[Reason] = Reason.INTERNAL_ERROR

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> ErrorStatus:
        """The error as a value."""
        return ErrorStatus(self.kind, self.reason, self.message, self.metadata, self.retry_after_s)


class InvalidRequestError(ParleyError):
    """The request breaks a rule of the contract; `violations` names every field that does."""

    kind = ErrorKind.INVALID_ARGUMENT
    reason = Reason.INVALID_REQUEST

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidRequestError":
        """Build the error for one field."""
        return cls.of_all([Violation(field, description)])

    @classmethod
    def of_all(cls, violations: Sequence[Violation]) -> "InvalidRequestError":
        """Build the error for all the fields that break a rule; at least one."""
        return cls("; ".join(map(str, violations)), violations=violations)


class UnknownModelError(InvalidRequestError):
    """The run names a model that the server has not, or that callers may not name."""

    reason = Reason.UNKNOWN_MODEL

    def __init__(self) -> None:
        field, fault = "run.model_options.model", "is no model that may be named here; GetServerInfo lists them"
        super().__init__(f"{field}: {fault}", violations=[Violation(field, fault)])


class NotFoundError(ParleyError):
    """No such object for this user; the same words whether it is absent or somebody else's."""

    kind = ErrorKind.NOT_FOUND
    reason = Reason.RESOURCE_NOT_FOUND

    def __init__(self, resource_type: str) -> None:
        super().__init__(f"{resource_type} not found", metadata={"resource_type": resource_type})


class CursorAheadError(ParleyError):
    """`after_seq` lies beyond the end of the run's log."""

    kind = ErrorKind.OUT_OF_RANGE
    reason = Reason.CURSOR_AHEAD

    def __init__(self, last_seq: int) -> None:
        super().__init__("after_seq lies beyond the end of the run's log", metadata={"last_seq": str(last_seq)})


class RequestIdReusedError(ParleyError):
    """The request id was used before for another request."""

    kind = ErrorKind.ALREADY_EXISTS
    reason = Reason.REQUEST_ID_REUSED


class QueueFullError(ParleyError):
    """The conversation already has its maximum of waiting runs."""

    kind = ErrorKind.RESOURCE_EXHAUSTED
    reason = Reason.QUEUE_FULL


class RunNotSteerableError(ParleyError):
    """The run is being cancelled or has ended, so that nothing can be added to it."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.RUN_NOT_STEERABLE


class ConversationBusyError(ParleyError):
    """The conversation has a run under way, and the policy is REJECT or the conversation is to be deleted."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.CONVERSATION_BUSY


class EtagMismatchError(ParleyError):
    """The object has changed since the caller read it; nothing was written."""

    kind = ErrorKind.ABORTED
    reason = Reason.ETAG_MISMATCH

    def __init__(self, resource_type: str) -> None:
        super().__init__(f"{resource_type} has changed since it was read", metadata={"resource_type": resource_type})


class FeatureNotAvailableError(ParleyError):
    """The request asks for an option this server does not have."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.FEATURE_NOT_AVAILABLE


class MethodNotImplementedError(ParleyError):
    """The method is in the contract and not in this server."""

    kind = ErrorKind.UNIMPLEMENTED
    reason = Reason.METHOD_NOT_IMPLEMENTED


class PageTokenInvalidError(ParleyError):
    """The page token is not one this server made for this caller and this list."""

    kind = ErrorKind.INVALID_ARGUMENT
    reason = Reason.PAGE_TOKEN_INVALID

    def __init__(self) -> None:
        super().__init__("page_token is not valid for this caller and this list")


class StorageUnavailableError(ParleyError):
    """The store could not take the write or answer the read; what was asked for did not happen."""

    kind = ErrorKind.UNAVAILABLE
    reason = Reason.STORAGE_UNAVAILABLE

    def __init__(self, message: str = "the store is not available", *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class StorageFullError(StorageUnavailableError):
    """The store has no room for the write, which did not happen; what is there can be read."""

    reason = Reason.STORAGE_FULL

    def __init__(self) -> None:
        # Until somebody makes room, and that takes a while.
        super().__init__("the store is full", retry_after_s=5.0)
