"""The run log's pen: what the one owner of a run may write. Readers use `RunRepository.watch`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from parley_server.domain.approval import Approval
from parley_server.domain.message import Item
from parley_server.domain.quota import Limit
from parley_server.domain.run import RunEnd, StopReason
from parley_server.domain.run_event import AttemptRestarted, EventBody, ItemEvent, RunStarted, SteerApplied
from parley_server.domain.tool import CallRecord
from parley_server.domain.usage import Usage


@dataclass(frozen=True, slots=True)
class FinishedItem:
    """A finished item that becomes a message of the conversation."""

    message_id: str
    item: Item
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class RunConclusion:
    """All that the last transaction of a run writes, the terminal event with it."""

    end: RunEnd
    usage: Usage
    items: tuple[FinishedItem, ...]
    output_item_id: str = ""
    output_text: str = ""
    output_json: str = ""


class OwnershipLostError(Exception):
    """Another process has taken the run over; whoever gets this may write nothing more of it."""


class RunAppender(Protocol):
    """Appends to one run's log. Events become durable in the order of the calls, text of one item merged."""

    @property
    def run_id(self) -> str:
        """The run."""
        ...

    async def append(self, body: EventBody, item_id: str = "") -> None:
        """Hand over one event; returns at once unless far more is waiting than the store takes.

        Raises:
            OwnershipLostError: this process no longer owns the run.
        """
        ...

    async def append_all(self, events: Sequence[ItemEvent], calls: Sequence[CallRecord] = ()) -> None:
        """Hand over events, and new calls for the journal of effects, that become durable in one transaction.

        A `ToolCallFinished`, here or in `append`, ends its call in the journal in the same transaction.

        Raises:
            OwnershipLostError: this process no longer owns the run.
        """
        ...

    async def dispatch(self, call_ids: Sequence[str]) -> None:
        """Set calls DISPATCHED in the journal of effects; return when that is durable. Raises OwnershipLostError."""
        ...

    async def withdraw(self, call_ids: Sequence[str]) -> None:
        """Set calls PLANNED again, of which this owner knows that they have not begun. Raises OwnershipLostError."""
        ...

    async def flush(self) -> None:
        """Return when all that was appended is durable. Raises OwnershipLostError."""
        ...

    async def begin(self, body: RunStarted) -> None:
        """Append `run_started` and set the run RUNNING in the same transaction; does not wait for it."""
        ...

    async def restart(self, body: AttemptRestarted) -> None:
        """Append `attempt_restarted` and begin that attempt in the same transaction; durable when this returns."""
        ...

    async def suspend(self, approvals: Sequence[Approval], events: Sequence[ItemEvent]) -> None:
        """Store approvals, append the events that tell of them, and set the run WAITING_APPROVAL, all at once.

        A run that is CANCELLING stays that. Durable when this returns. Raises OwnershipLostError.
        """
        ...

    async def expire_approvals(self, approval_ids: Sequence[str]) -> tuple[Approval, ...]:
        """Set those of these approvals EXPIRED that are pending; return all of them as they stand then, durable.

        Raises:
            StorageUnavailableError: nothing is changed, or nobody knows yet.
        """
        ...

    async def resume(self) -> None:
        """Append `run_resumed` and set the run RUNNING in the same transaction; does not wait for it.

        A run that is CANCELLING stays that. Raises OwnershipLostError.
        """
        ...

    async def apply_steers(self) -> tuple[SteerApplied, ...]:
        """Append `steer_applied` for all that the user added and the model has not seen; return these events.

        Raises:
            OwnershipLostError: this process no longer owns the run.
        """
        ...

    async def close_steering(self) -> bool:
        """Let nothing more be added to the run, which then has to end, unless something was added: False, and it may.

        What comes later is refused once the run has ended.
        """
        ...

    async def hold(self, model: str, estimate: Usage, limits: Sequence[Limit]) -> None:
        """Hold an estimate of what a call of a model will consume, where all limits leave room; durable on return.

        It counts against limits until the next `usage_updated` says what was consumed; what is held when the run ends
        counts as consumed. What a dead process has held is given back by the next one.

        Raises:
            QuotaExceededError: a limit leaves no room; nothing is held.
            OwnershipLostError: this process no longer owns the run.
        """
        ...

    def release_hold(self) -> None:
        """Give back what is held for a call that was not answered; with the run's next hold, or its end."""
        ...

    async def set_grace(self, end_time: datetime | None) -> None:
        """Store when the run is cancelled unless its caller comes back; None: it is not. Durable when this returns.

        Raises:
            OwnershipLostError: this process no longer owns the run.
            StorageUnavailableError: it is not stored.
        """
        ...

    async def mark_cancelling(self, reason: StopReason) -> None:
        """Set the run CANCELLING, durably, for this reason unless it is that already.

        Raises:
            OwnershipLostError: this process no longer owns the run.
            StorageUnavailableError: the wish is not stored.
        """
        ...

    async def finish(self, conclusion: RunConclusion, events: Sequence[ItemEvent] = ()) -> str:
        """End the run in one transaction: the last events, messages, usage, state, terminal event.

        The event names what was added to the run and not applied.

        Returns:
            The id of the conversation's next waiting run, which is now its active one; empty if none waits.

        Raises:
            OwnershipLostError: this process no longer owns the run.
        """
        ...
