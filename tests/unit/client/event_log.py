"""Logs of runs as a server would have stored them."""

from collections.abc import Sequence

from google.rpc import error_details_pb2, status_pb2
from parley.v1.run_event_pb2 import (
    MessageCompleted,
    RunAccepted,
    RunEvent,
    RunFinished,
    RunStarted,
    TextDelta,
)
from parley.v1.run_pb2 import (
    RUN_STATE_FAILED,
    RUN_STATE_QUEUED,
    RUN_STATE_SUCCEEDED,
    STOP_REASON_ANSWERED,
    STOP_REASON_ERROR,
)

RUN_ID = "run-1"
CONVERSATION_ID = "conversation-1"


def numbered(events: Sequence[RunEvent]) -> list[RunEvent]:
    for seq, event in enumerate(events, start=1):
        event.run_id, event.conversation_id, event.seq, event.attempt = RUN_ID, CONVERSATION_ID, seq, 1
    return list(events)


def answered(*pieces: str) -> list[RunEvent]:
    """A run that says `pieces` and succeeds."""
    return numbered(
        [
            RunEvent(run_accepted=RunAccepted(agent_id="assistant", state=RUN_STATE_QUEUED)),
            RunEvent(run_started=RunStarted(model="scripted")),
            *(RunEvent(item_id="item-1", text_delta=TextDelta(text=piece)) for piece in pieces),
            RunEvent(item_id="item-1", message_completed=MessageCompleted(text="".join(pieces))),
            RunEvent(
                run_finished=RunFinished(
                    state=RUN_STATE_SUCCEEDED, stop_reason=STOP_REASON_ANSWERED, output_item_id="item-1"
                )
            ),
        ]
    )


def failed(reason: str, message: str) -> list[RunEvent]:
    """A run that ends FAILED before it says anything."""
    status = status_pb2.Status(code=14, message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="parley.v1"))
    return numbered(
        [
            RunEvent(run_accepted=RunAccepted(agent_id="assistant", state=RUN_STATE_QUEUED)),
            RunEvent(run_finished=RunFinished(state=RUN_STATE_FAILED, stop_reason=STOP_REASON_ERROR, error=status)),
        ]
    )
