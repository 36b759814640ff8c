"""The ways a call of the model's server fails, each with its reason and Parley's own sentence."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from parley_server.domain.errors import ErrorKind, Reason
from parley_server.llm.model_service import ModelError, Remedy

MAX_RETRY_AFTER_S = 3600.0

_CONTEXT_TOO_LONG = re.compile(
    rb"context_length_exceeded|exceed_context_size|context (length|size|window)|too many (input )?tokens"
    rb"|prompt is too long",
    re.IGNORECASE,
)
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}\Z", re.ASCII)


class ModelStatusError(ModelError):
    """The model's server answered with an HTTP status that is no success; the fields are for the log."""

    def __init__(
        self, kind: ErrorKind, reason: Reason, message: str, *, http_status: int, headers: Mapping[str, str]
    ) -> None:
        status = {"http_status": str(http_status)}
        remedy = _remedy(http_status)
        super().__init__(kind, reason, message, metadata=status, retry_after_s=retry_after_s(headers), remedy=remedy)
        self.http_status = http_status
        self.upstream_request_id = upstream_request_id(headers)


class NotTakenError(ModelError):
    """The model is known not to take what is asked of it, so nothing was sent; `option` names that."""

    def __init__(self, message: str, option: str) -> None:
        super().__init__(
            ErrorKind.FAILED_PRECONDITION, Reason.MODEL_REQUEST_REJECTED, message, metadata={"option": option}
        )


class UnverifiedServerError(ModelError):
    """No secure connection could be made; `hint` says in the log what the operator can do."""

    def __init__(self, hint: str) -> None:
        super().__init__(
            ErrorKind.UNAVAILABLE,
            Reason.MODEL_UNAVAILABLE,
            "no secure connection to the model's server could be made",
            # A certificate does not mend itself.
            remedy=Remedy.ASK_ANOTHER,
        )
        self.hint = hint


class BreakerOpenError(ModelError):
    """The model failed so often just now that it is not asked at the moment."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(
            ErrorKind.UNAVAILABLE,
            Reason.MODEL_UNAVAILABLE,
            "the model's server fails and is not asked for a few seconds",
            retry_after_s=retry_after_s,
            remedy=Remedy.ASK_ANOTHER,
        )


def unavailable() -> ModelError:
    """The server cannot be reached, or hung up before it answered."""
    return ModelError(
        ErrorKind.UNAVAILABLE,
        Reason.MODEL_UNAVAILABLE,
        "the model's server could not be reached or hung up",
        remedy=Remedy.ASK_AGAIN,
    )


def timed_out(remedy: Remedy = Remedy.ASK_ANOTHER) -> ModelError:
    """The server took longer than the settings allow. What was sent may be answered, and paid for, all the same."""
    return ModelError(
        ErrorKind.DEADLINE_EXCEEDED, Reason.MODEL_TIMEOUT, "the model's server did not answer in time", remedy=remedy
    )


def not_connected_in_time() -> ModelError:
    """No connection could be made, or none was free, for so long that the server was not even asked."""
    return timed_out(Remedy.ASK_AGAIN)


def incomplete() -> ModelError:
    """The answer ended without saying that it was finished; a remedy is left only when it had not begun."""
    return ModelError(
        ErrorKind.UNAVAILABLE,
        Reason.MODEL_STREAM_INCOMPLETE,
        "the model's answer ended before it was finished",
        remedy=Remedy.ASK_AGAIN,
    )


def invalid(problem: str) -> ModelError:
    """The answer breaks the protocol or a limit, or reports an error; `problem` is our own words for it.

    UNAVAILABLE and not INTERNAL: the fault is the other server's, and asking again may well succeed.
    """
    return ModelError(
        ErrorKind.UNAVAILABLE, Reason.MODEL_RESPONSE_INVALID, f"the model's server sent a bad answer: {problem}"
    )


def refused(status: int, headers: Mapping[str, str], body: bytes) -> ModelStatusError:
    """Make the error for an HTTP status other than success; `body` is only searched for what it says of the length."""
    kind, reason, message = _meaning(status, body)
    return ModelStatusError(kind, reason, message, http_status=status, headers=headers)


def upstream_request_id(headers: Mapping[str, str]) -> str:
    """Return the id the server gave the request, for logs; empty when it has none or one that is no id."""
    request_id = headers.get("x-request-id", "")
    return request_id if _REQUEST_ID.match(request_id) else ""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds the server asks to wait, when it says so and means at most an hour."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = _seconds(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= MAX_RETRY_AFTER_S else None


def _remedy(status: int) -> Remedy:
    """Tell what passes by itself (408, 409, 425, 429 and the server's own faults) from what does not."""
    if status in {501, 505}:
        return Remedy.ASK_ANOTHER
    return Remedy.ASK_AGAIN if status >= 500 or status in {408, 409, 425, 429} else Remedy.NONE


def _seconds(value: str) -> float:
    """Read seconds or an HTTP date. Raises ValueError for anything else."""
    try:
        return float(value)
    except ValueError:
        moment = parsedate_to_datetime(value)
        return (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()


def _meaning(status: int, body: bytes) -> tuple[ErrorKind, Reason, str]:
    if status in {401, 403}:
        return (
            ErrorKind.FAILED_PRECONDITION,
            Reason.MODEL_AUTHENTICATION_FAILED,
            "the model's server refused this server's API key",
        )
    if status == 429:
        return ErrorKind.RESOURCE_EXHAUSTED, Reason.MODEL_RATE_LIMITED, "the model's server is limiting requests"
    if status >= 500 or status in {408, 409, 425}:
        return ErrorKind.UNAVAILABLE, Reason.MODEL_UNAVAILABLE, "the model's server is not available"
    if status == 413 or (status in {400, 422} and _CONTEXT_TOO_LONG.search(body)):
        return (
            ErrorKind.FAILED_PRECONDITION,
            Reason.MODEL_CONTEXT_TOO_LONG,
            "the conversation is too long for this model",
        )
    return (
        ErrorKind.FAILED_PRECONDITION,
        Reason.MODEL_REQUEST_REJECTED,
        "the model's server rejected the request; check the model's name and options",
    )
