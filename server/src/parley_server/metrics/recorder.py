"""What the server tells of itself in numbers. Whoever has something to tell is handed a `Recorder`.

Labels are bounded: methods are those that are registered, and no user, run or conversation is ever one.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol


class CallType(StrEnum):
    """The shape of an rpc, by the field's label values."""

    UNARY = "UNARY"
    SERVER_STREAMING = "SERVER_STREAMING"
    BIDI_STREAMING = "BIDI_STREAMING"


class CallEnd(StrEnum):
    """How a call ended: answered, given up by the caller, out of time, its connection lost, or failed with a status."""

    OK = "ok"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    DISCONNECTED = "disconnected"
    ERROR = "error"


class Gauge(StrEnum):
    """A number that is read when somebody looks, from another thread; the value is the metric's name."""

    RUNS_LIVE = "parley_runs_live"
    RUNS_QUEUED = "parley_runs_queued"
    APPROVALS_PENDING = "parley_approvals_pending"
    RUN_LOG_QUEUE = "parley_run_log_queue_depth"
    RUN_LOG_WATCHERS = "parley_run_log_watchers"
    LOOP_LAG = "parley_event_loop_lag_seconds"
    OVERLOADED = "parley_overloaded"
    TOOL_THREADS_STUCK = "parley_tool_threads_stuck"
    LOG_DROPPED = "parley_log_lines_dropped"
    AUDIT_DROPPED = "parley_audit_entries_dropped"
    AUDIT_POSITION = "parley_audit_position"


class MethodRecorder(Protocol):
    """Counts the calls of one method."""

    def started(self) -> None:
        """Count a call that came."""
        ...

    def received(self) -> None:
        """Count a message that was read."""
        ...

    def sent(self) -> None:
        """Count a message that was written."""
        ...

    def ended(self, code: str, end: CallEnd, seconds: float) -> None:
        """Count a call's one end: the status code's name, its kind, and what it took."""
        ...


class ModelRecorder(Protocol):
    """Counts the calls of one model."""

    def ended(self, outcome: str) -> None:
        """Count a call that ended: `ok`, `cancelled`, `breaker_open` or an error's reason in small letters."""
        ...

    def retried(self) -> None:
        """Count a call that is made once more."""
        ...

    def first_event(self, seconds: float) -> None:
        """Note how long it took from asking to the first of an answer."""
        ...

    def breaker(self, state: int) -> None:
        """Note the breaker's state: 0 closed, 1 half open, 2 open."""
        ...


class Recorder(Protocol):
    """Takes all numbers. Its methods are cheap and never fail; they are called on the event loop."""

    def method(self, name: str, call_type: CallType) -> MethodRecorder:
        """Return what counts the calls of a registered method, `/package.Service/Method`."""
        ...

    def model(self, provider: str, model: str) -> ModelRecorder:
        """Return what counts the calls of a model; both names are of the settings, never what a user wrote."""
        ...

    def watch(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Read a gauge by `read` from now on; it must be safe to call from any thread."""
        ...

    def loop_lag(self, seconds: float) -> None:
        """Note how late a timer of the event loop was."""
        ...

    def run_accepted(self) -> None:
        """Count a run that was accepted."""
        ...

    def run_ended(self, state: str) -> None:
        """Count a run that ended in a state."""
        ...

    def committed(self, units: int, seconds: float) -> None:
        """Note a commit of the store's writer: its units and what it took."""
        ...

    def journal(self, *, written: int = 0, swept: int = 0) -> None:
        """Count rows of the run journal: those that became durable, and those that were removed."""
        ...


class _SilentModelRecorder:
    """A `ModelRecorder` for where nobody looks."""

    def ended(self, outcome: str) -> None:
        """See `ModelRecorder`."""

    def retried(self) -> None:
        """See `ModelRecorder`."""

    def first_event(self, seconds: float) -> None:
        """See `ModelRecorder`."""

    def breaker(self, state: int) -> None:
        """See `ModelRecorder`."""


_SILENT_MODEL = _SilentModelRecorder()


class SilentRecorder:
    """Takes the numbers and forgets them: a `Recorder` and a `MethodRecorder` for where nobody looks."""

    def method(self, name: str, call_type: CallType) -> MethodRecorder:  # noqa: ARG002
        """See `Recorder`."""
        return self

    def model(self, provider: str, model: str) -> ModelRecorder:  # noqa: ARG002
        """See `Recorder`."""
        return _SILENT_MODEL

    def watch(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """See `Recorder`."""

    def loop_lag(self, seconds: float) -> None:
        """See `Recorder`."""

    def run_accepted(self) -> None:
        """See `Recorder`."""

    def run_ended(self, state: str) -> None:
        """See `Recorder`."""

    def committed(self, units: int, seconds: float) -> None:
        """See `Recorder`."""

    def journal(self, *, written: int = 0, swept: int = 0) -> None:
        """See `Recorder`."""

    def started(self) -> None:
        """See `MethodRecorder`."""

    def received(self) -> None:
        """See `MethodRecorder`."""

    def sent(self) -> None:
        """See `MethodRecorder`."""

    def ended(self, code: str, end: CallEnd, seconds: float) -> None:
        """See `MethodRecorder`."""


SILENT = SilentRecorder()
