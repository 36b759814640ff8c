"""What becomes of a run whose owner died: it goes on, unless it has no business to."""

from datetime import UTC, datetime

from parley_server.domain.errors import ErrorKind, ErrorStatus, Reason
from parley_server.domain.run import RunEnd, RunState
from parley_server.runs.execution import CANCELLED, EXPIRED, RunJob, failed
from parley_server.storage.worker_store import InterruptedRun

MAX_FRUITLESS_ATTEMPTS = 5

_EXHAUSTED = failed(
    ErrorStatus(
        ErrorKind.ABORTED,
        Reason.ATTEMPTS_EXHAUSTED,
        f"the server stopped {MAX_FRUITLESS_ATTEMPTS} times in a row before the run had completed an item",
        {"attempts": str(MAX_FRUITLESS_ATTEMPTS)},
    )
)


def job_of(left: InterruptedRun) -> RunJob:
    """Return the run as a job that goes on where its log ends."""
    return RunJob(left.stored.run, left.stored.context, left.stored.spec, left.events, left.calls)


def end_of(job: RunJob) -> RunEnd | None:
    """Return how a cut run ends without another attempt, or None when it goes on.

    A cancel that was accepted is honoured; a deadline counts from acceptance, also while nobody was there; a run that
    takes its server down again and again must not do so for ever.
    """
    if job.run.state is RunState.CANCELLING:
        return CANCELLED
    if job.run.deadline_time <= datetime.now(UTC):
        return EXPIRED
    if job.transcript().fruitless_attempts >= MAX_FRUITLESS_ATTEMPTS:
        return _EXHAUSTED
    return None
