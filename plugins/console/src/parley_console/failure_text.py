"""What went wrong, in one line for people."""

from parley.v1.run_pb2 import (
    RUN_STATE_CANCELLED,
    RUN_STATE_EXPIRED,
    RUN_STATE_SUCCEEDED,
    STOP_REASON_ANSWERED,
    StopReason,
)
from parley_client import HandshakeError, ParleyError, RunStream, UnavailableError

from parley_console.enum_names import short_name_of


def call_failure(error: ParleyError, target: str, stream: RunStream | None = None) -> str:
    """Say why a call failed and, where one can guess it, what to do; name the run that goes on without us."""
    told = str(error)
    if isinstance(error, HandshakeError):
        told = f"no connection to {target}: {error.message}"
    elif isinstance(error, UnavailableError) and not error.reason:
        told = f"no server answers at {target}: is parley-server running? ({error.message})"
    faults = (f"{violation.field}: {violation.description}" for violation in error.violations)
    told += "".join(f"; {fault}" for fault in faults if fault not in told)
    if stream is not None and stream.run_id and stream.finished is None:
        told += f"; run {stream.run_id} may go on"
    return _one_line(told)


def run_failure(stream: RunStream) -> str:
    """Say how a run ended short of an answer; empty when it did answer or was cancelled."""
    if stream.finished is None or stream.finished.state in {RUN_STATE_SUCCEEDED, RUN_STATE_CANCELLED}:
        return ""
    if stream.finished.state == RUN_STATE_EXPIRED:
        return "the run's deadline passed"
    return _one_line(
        f"the run failed: {stream.error or short_name_of(StopReason.DESCRIPTOR, stream.finished.stop_reason)}"
    )


def shortfall(stream: RunStream) -> str:
    """Say why an answer is not all it could be; empty when it is."""
    if stream.finished is None or stream.finished.stop_reason == STOP_REASON_ANSWERED:
        return ""
    if stream.finished.state != RUN_STATE_SUCCEEDED:
        return ""
    return f"the answer was cut short: {short_name_of(StopReason.DESCRIPTOR, stream.finished.stop_reason)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
