"""What becomes of a run whose owner died: it goes on, unless it has no business to."""

import time
from dataclasses import replace
from datetime import UTC, datetime

from parley_server.domain.errors import ErrorKind, ErrorStatus, Reason
from parley_server.domain.run import RunEnd, RunState
from parley_server.runs.execution import CANCELLED, DISCONNECTED, EXPIRED, RunJob, failed
from parley_server.runs.tool_time import tool_time_s
from parley_server.runs.transcript import RunTranscript, dispatched_of
from parley_server.storage.worker_store import InterruptedRun, StoredRun

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
    transcript = RunTranscript()
    transcript.observe_all((event.body, event.item_id) for event in left.events)
    transcript.observe_dispatch(dispatched_of(left.calls))
    return replace(
        job_of_stored(left.stored),
        transcript=transcript,
        tool_time_s=tool_time_s(left.events),
        calls=left.calls,
        approvals=left.approvals,
    )


def job_of_stored(stored: StoredRun) -> RunJob:
    """Return a run that has not begun as a job."""
    # Not more than the run has as a whole: the clock may have been set back since it was accepted.
    left = min(stored.run.deadline_time - datetime.now(UTC), stored.spec.limits.deadline)
    return RunJob(
        stored.run,
        stored.context,
        stored.spec,
        time.monotonic() + left.total_seconds(),
        cancel_reason=stored.cancel_reason,
        grace_end_time=stored.grace_end_time,
    )


def end_of(job: RunJob) -> RunEnd | None:
    """Return how a cut run ends without another attempt, or None when it goes on.

    A cancel that was accepted is honoured; a deadline counts from acceptance, also while nobody was there, and so does
    a lost caller's grace; a run that takes its server down again and again must not do so for ever.
    """
    if job.run.state is RunState.CANCELLING:
        return CANCELLED if job.cancel_reason is None else RunEnd(RunState.CANCELLED, job.cancel_reason)
    if job.expires_at <= time.monotonic():
        return EXPIRED
    if job.grace_end_time is not None and job.grace_end_time <= datetime.now(UTC):
        return DISCONNECTED
    if job.transcript.fruitless_attempts >= MAX_FRUITLESS_ATTEMPTS:
        return _EXHAUSTED
    return None
