"""Tool calls as they are looked up afterwards: what the journal of effects and the conversation say of them."""

from dataclasses import dataclass
from datetime import datetime

from parley_server.domain.errors import ErrorKind, ParleyError, Reason
from parley_server.domain.message import ToolCallItem
from parley_server.domain.resolution import CallOutcome, Resolution
from parley_server.domain.tool import CallRecord, ToolCallStatus


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call of a run. `status` is None until it has ended, `item`, with arguments and result, until the run has."""

    run_id: str
    conversation_id: str
    record: CallRecord
    create_time: datetime
    dispatch_time: datetime | None = None
    finish_time: datetime | None = None
    status: ToolCallStatus | None = None
    error_code: str = ""
    item: ToolCallItem | None = None
    resolution: Resolution | None = None


class ToolCallResolvedError(ParleyError):
    """The call was settled before, otherwise or with another note."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.TOOL_CALL_RESOLVED

    def __init__(self, outcome: CallOutcome) -> None:
        super().__init__("the tool call is settled already", metadata={"outcome": outcome.name})


class ToolCallNotInDoubtError(ParleyError):
    """The call's outcome is known, or it has not ended."""

    kind = ErrorKind.FAILED_PRECONDITION
    reason = Reason.TOOL_CALL_NOT_IN_DOUBT

    def __init__(self, status: ToolCallStatus | None) -> None:
        told = {} if status is None else {"status": status.name}
        super().__init__("the tool call's outcome is not in doubt", metadata=told)
