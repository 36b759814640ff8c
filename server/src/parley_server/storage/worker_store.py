"""The door for work that no caller waits for. It hands out runs with the context they were accepted under.

Open to `runs`, `scheduler` and `notifications` alone; an import contract says so.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from parley_server.domain.approval import Approval
from parley_server.domain.context import RequestContext
from parley_server.domain.run import Run, RunSpec, StopReason
from parley_server.domain.run_event import RunEvent
from parley_server.domain.tool import CallRecord
from parley_server.storage.run_log import RunAppender


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run with everything its execution needs; `is_active` tells that its conversation waits for it.

    `cancel_reason` is why it is CANCELLING, `grace_end_time` when it is to be because its caller is gone.
    """

    run: Run
    context: RequestContext
    spec: RunSpec
    is_active: bool
    cancel_reason: StopReason | None = None
    grace_end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class InterruptedRun:
    """A run that was under way or waited for the user when its owner died.

    With its log so far, its calls that have no result, and all its approvals.
    """

    stored: StoredRun
    events: tuple[RunEvent, ...]
    calls: tuple[CallRecord, ...]
    approvals: tuple[Approval, ...] = ()


class WorkerStore(Protocol):
    """Claim, append, sweep."""

    async def take_over(self) -> tuple[list[InterruptedRun], list[StoredRun]]:
        """Become the owner of every unfinished run: those that were under way, and those not yet started.

        Only for a process that knows every former owner to be dead.
        """
        ...

    def appender(self, run_id: str) -> RunAppender:
        """Return the pen of a run this process owns. Raises OwnershipLostError if it does not."""
        ...
