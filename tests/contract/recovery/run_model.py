"""What the contract says of runs, in plain Python: how each may end, and which comes before which."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from parley_server.domain.approval import ApprovalState
from parley_server.domain.run import ConcurrencyPolicy, RunState, StopReason
from parley_server.domain.run_event import StoredEvent
from parley_server.runs.presence import Attendance

SHORT = timedelta(milliseconds=200)
GRACE = timedelta(milliseconds=200)
MAX_FRUITLESS = 5
# How many runs may be before a new one, by its policy.
MOST_BEFORE = {ConcurrencyPolicy.REJECT: 0, ConcurrencyPolicy.INTERRUPT: 1, ConcurrencyPolicy.QUEUE: 4}
STOPPED = frozenset({StopReason.CANCEL_REQUESTED, StopReason.INTERRUPTED, StopReason.DISCONNECTED})


@dataclass(frozen=True)
class Wish:
    """What a start asks for. A needy run is cancelled when its caller is gone."""

    conversation_id: str
    request_id: str
    policy: ConcurrencyPolicy = ConcurrencyPolicy.QUEUE
    is_short: bool = False
    is_needy: bool = False


@dataclass
class Promise:
    """A run as its user knows it."""

    label: str
    run_id: str
    conversation_id: str
    wish: Wish
    # The ends that something was done for, and whether it is certain that the run is being stopped.
    may_end: set[StopReason] = field(default_factory=set)
    is_stopped: bool = False
    restarts: int = 0
    state: RunState = RunState.QUEUED
    seen: list[StoredEvent] = field(default_factory=list)
    # What was added, as it was accepted.
    steer_ids: list[str] = field(default_factory=list)
    # The call that follows a needy run, whether the run may not lose it, and since when it has.
    call: Attendance | None = None
    is_caller: bool = False
    left_at: datetime | None = None
    is_deleted: bool = False
    # What the user has said to its approvals, by their ids.
    answers: dict[str, ApprovalState] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.state.is_terminal

    @property
    def is_short_lived(self) -> bool:
        """It ends when time passes, whatever else happens."""
        return not self.is_over and (self.wish.is_short or self.left_at is not None)

    def stop(self, reason: StopReason) -> None:
        """The run is stopped for this reason; the first one counts."""
        if not self.is_stopped:
            self.may_end.add(reason)
            self.is_stopped = True

    def lose(self, moment: datetime) -> None:
        """Its caller is gone since this moment at the earliest."""
        if not self.is_stopped:
            self.may_end.add(StopReason.DISCONNECTED)
        self.left_at = moment

    def return_by(self, moment: datetime) -> bool:
        """Somebody was there by this moment; tell whether that was certainly within the grace."""
        in_time = self.left_at is None or moment < self.left_at + GRACE
        if in_time:
            self.may_end.discard(StopReason.DISCONNECTED)
            self.left_at = None
        return in_time

    def restart(self) -> None:
        """Its server began anew: that costs an attempt, and is no disconnect."""
        self.restarts += 1
        self.call = None

    def ends(self) -> set[StopReason]:
        """How it may end. It is cancelled if that was accepted, and otherwise ends as something was done for."""
        if self.is_stopped:
            return self.may_end & STOPPED
        deadline = {StopReason.DEADLINE} if self.wish.is_short else set()
        exhausted = {StopReason.ERROR} if self.restarts >= MAX_FRUITLESS else set()
        return self.may_end | deadline | exhausted

    def earliest_end(self, reason: StopReason, deadline: datetime) -> datetime | None:
        """Before when it may not end for this reason."""
        if reason is StopReason.DISCONNECTED and self.left_at is not None:
            return self.left_at + GRACE
        return deadline if reason is StopReason.DEADLINE else None


class RunModel:
    """All runs of one user, those of a conversation in the order in which they are performed."""

    def __init__(self) -> None:
        self.promises: list[Promise] = []

    def add(self, promise: Promise, waiting: list[Promise]) -> None:
        """Take in a run, behind all others; `waiting` are those it comes before by interrupting the one under way."""
        self.promises.insert(min(map(self.promises.index, waiting), default=len(self.promises)), promise)

    def of(self, conversation_id: str) -> list[Promise]:
        return [each for each in self.promises if each.conversation_id == conversation_id]

    def before(self, promise: Promise) -> list[Promise]:
        ordered = self.of(promise.conversation_id)
        return ordered[: ordered.index(promise)]

    def forget(self, conversation_id: str) -> None:
        """The conversation is deleted, with all that belongs to it."""
        for promise in self.of(conversation_id):
            promise.is_deleted = True
        self.promises = [each for each in self.promises if not each.is_deleted]
