"""What ends a call by itself, whatever it asks for: its message, its time, and the state of the server."""

import random

from parley_server.domain.errors import ErrorKind, ParleyError, Reason


class MalformedMessageError(ParleyError):
    """The call carries no message, a cut one, or bytes that are not the request's type."""

    kind = ErrorKind.INVALID_ARGUMENT
    reason = Reason.MALFORMED_MESSAGE


class MetadataTooLargeError(ParleyError):
    """The call's metadata is over the limit."""

    kind = ErrorKind.RESOURCE_EXHAUSTED
    reason = Reason.METADATA_TOO_LARGE


class MessageTimeoutError(ParleyError):
    """The request's message did not arrive in time."""

    kind = ErrorKind.DEADLINE_EXCEEDED
    reason = Reason.MESSAGE_TIMEOUT


class CallTimeoutError(ParleyError):
    """The call was not answered in the time that a caller without a deadline of his own gets."""

    kind = ErrorKind.DEADLINE_EXCEEDED
    reason = Reason.CALL_TIMEOUT


class SlowConsumerError(ParleyError):
    """The client did not take a message for so long that the call was ended; re-attach with `after_seq`."""

    kind = ErrorKind.ABORTED
    reason = Reason.SLOW_CONSUMER


class ServerDrainingError(ParleyError):
    """The server is stopping; nothing is lost, try again."""

    kind = ErrorKind.UNAVAILABLE
    reason = Reason.SERVER_DRAINING

    def __init__(self) -> None:
        super().__init__("the server is stopping; try again", retry_after_s=1.0)


class ServerOverloadedError(ParleyError):
    """The server is behind with its work; nothing was done, try again."""

    kind = ErrorKind.UNAVAILABLE
    reason = Reason.SERVER_OVERLOADED

    def __init__(self) -> None:
        # Not all at once: who is refused together should not come back together.
        super().__init__("the server is behind with its work; try again", retry_after_s=random.uniform(1, 3))  # noqa: S311  # no secret
