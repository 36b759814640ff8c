"""What is known of one call when it has ended."""

import time
from dataclasses import dataclass

from parley_server.domain.errors import ErrorKind, ParleyError
from parley_server.metrics.recorder import CallEnd, MethodRecorder


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: its kind, the status code's name, and the error's reason where it has one."""

    end: CallEnd
    code: str
    reason: str = ""


OK = Outcome(CallEnd.OK, "OK")
CANCELLED = Outcome(CallEnd.CANCELLED, "CANCELLED")
DISCONNECTED = Outcome(CallEnd.DISCONNECTED, "CANCELLED")
LATE = Outcome(CallEnd.DEADLINE, "DEADLINE_EXCEEDED")


class Tally:
    """What is counted of one call while it goes on. `seconds` is what it took, once it has ended."""

    __slots__ = ("_start", "recorder", "seconds", "sent_messages")

    def __init__(self, recorder: MethodRecorder) -> None:
        self.recorder = recorder
        self.sent_messages = 0
        self.seconds = 0.0
        self._start = time.perf_counter()
        recorder.started()

    def received(self) -> None:
        """Count a message of the caller."""
        self.recorder.received()

    def sent(self) -> None:
        """Count a message to the caller."""
        self.sent_messages += 1
        self.recorder.sent()

    def elapsed_s(self) -> float:
        """Return what the call has taken until now, in seconds."""
        return time.perf_counter() - self._start

    def stop(self) -> None:
        """Note that the call has ended."""
        self.seconds = self.elapsed_s()


def outcome_of(failure: ParleyError) -> Outcome:
    """Return the outcome of a call that was ended with an error's status."""
    is_late = failure.kind is ErrorKind.DEADLINE_EXCEEDED
    return Outcome(CallEnd.DEADLINE if is_late else CallEnd.ERROR, failure.kind.name, failure.reason)
