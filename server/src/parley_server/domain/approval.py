"""Approvals: what the user is asked before a tool is called, and what became of the question."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from parley_server.domain.errors import ErrorKind, InvalidRequestError, ParleyError, Reason
from parley_server.domain.tool import ToolEffect

MAX_DESCRIPTION_BYTES = 16 * 1024
MAX_QUESTION_BYTES = 4 * 1024
MAX_QUESTION_STATE_BYTES = 32 * 1024


class ApprovalState(StrEnum):
    """Where an approval stands, by the contract's names; only a PENDING one changes."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Remember(StrEnum):
    """How long an answer holds: for the one call, or for the tool's later calls in the conversation too."""

    ONCE = "once"
    CONVERSATION = "conversation"


@dataclass(frozen=True, slots=True)
class ApprovalAnswer:
    """What the user says to an approval; `reason` is his, empty where he gave none."""

    is_approved: bool
    reason: str = ""
    remember: Remember = Remember.ONCE

    @property
    def state(self) -> ApprovalState:
        """The state of an approval that is answered so."""
        return ApprovalState.APPROVED if self.is_approved else ApprovalState.DENIED


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A question that a tool asks in the middle of a call, in its own words; only yes or no answers it.

    `state` is what the tool wants back with the answer. It is shown to nobody.
    """

    question: str
    state: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Approval:
    """A question to a user: may this tool be called with these arguments?

    With a `confirmation` the tool has been called, has done nothing yet, and asks itself; a yes calls it again.

    The answer holds for calls of this `fingerprint` (of the tool's name and the arguments) by this `user_id`, while the
    tool is what `spec_hash` says. Times are UTC. `decider` is the principal who answered, such as `user:ann`; it and
    `remember` are there once it is answered, `decide_time` once it is no longer PENDING.
    """

    approval_id: str
    user_id: str
    conversation_id: str
    run_id: str
    call_id: str
    tool_name: str
    tool_description: str
    effect: ToolEffect
    arguments_json: str
    fingerprint: str
    spec_hash: str
    create_time: datetime
    expire_time: datetime
    state: ApprovalState = ApprovalState.PENDING
    decide_time: datetime | None = None
    decider: str = ""
    reason: str = ""
    remember: Remember | None = None
    confirmation: Confirmation | None = None

    @property
    def question(self) -> str:
        """What the tool asks; empty where it is not the tool that asks."""
        return "" if self.confirmation is None else self.confirmation.question

    @property
    def is_pending(self) -> bool:
        """Tell whether nobody has answered, and somebody still may."""
        return self.state is ApprovalState.PENDING

    def holds_for(self, user_id: str, fingerprint: str, spec_hash: str) -> bool:
        """Tell whether this is the question about such a call of such a tool."""
        return (self.user_id, self.fingerprint, self.spec_hash) == (user_id, fingerprint, spec_hash)

    def require_answerable(self, answer: ApprovalAnswer) -> None:
        """Raise InvalidRequestError for an answer that cannot hold as long as it says."""
        if self.confirmation is not None and answer.remember is Remember.CONVERSATION:
            raise InvalidRequestError.of(
                "remember", "the answer to a tool's own question holds for that question alone"
            )

    def require(self, answer: ApprovalAnswer) -> None:
        """Raise unless the approval is answered so, now or before.

        Raises:
            ApprovalExpiredError: nobody had answered in time.
            ApprovalCancelledError: the run had ended.
            ApprovalDecidedError: it was answered otherwise.
        """
        if self.state is ApprovalState.EXPIRED:
            raise ApprovalExpiredError("the approval has expired")
        if self.state is ApprovalState.CANCELLED:
            raise ApprovalCancelledError("the run ended before the approval was answered")
        if (self.state, self.remember) != (answer.state, answer.remember):
            remembered = self.remember.name if self.remember else ""
            raise ApprovalDecidedError(
                "the approval was answered otherwise before",
                metadata={"state": self.state.name, "remember": remembered},
            )


class ApprovalDecidedError(ParleyError):
    """The approval was answered before, and otherwise."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.APPROVAL_DECIDED


class ApprovalExpiredError(ParleyError):
    """The answer comes too late: the call is refused already."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.APPROVAL_EXPIRED


class ApprovalCancelledError(ParleyError):
    """The run has ended, and with it the question."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.APPROVAL_CANCELLED
