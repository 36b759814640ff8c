"""Event bodies, from the contract back to the domain."""

from collections.abc import Callable, Mapping

from parley.v1 import run_event_pb2

from parley_server.domain.run import RunEnd
from parley_server.domain.run_event import (
    ApprovalRequested,
    ApprovalResolved,
    AttemptRestarted,
    EventBody,
    HistoryCompacted,
    MessageCompleted,
    ReasoningCompleted,
    ReasoningDelta,
    RunAccepted,
    RunFinished,
    RunResumed,
    RunStarted,
    RunWaiting,
    SteerApplied,
    TextDelta,
    ToolCallFinished,
    ToolCallProgress,
    ToolCallStarted,
    UsageUpdated,
    Warned,
)
from parley_server.rpc.mapping.content import read_parts
from parley_server.rpc.mapping.enums import (
    APPROVAL_STATES,
    RUN_STATES,
    STOP_REASONS,
    TOOL_CALL_STATUSES,
    TOOL_EFFECTS,
)
from parley_server.rpc.mapping.errors import read_run_error
from parley_server.rpc.mapping.timestamps import to_datetime
from parley_server.rpc.mapping.usage import read_usage

_UNKNOWN = Warned("UNKNOWN_EVENT", "an event of a kind that this version of the server does not know")


def read_body(event: run_event_pb2.RunEvent) -> EventBody:
    """Read the body; one of a kind that this version does not know becomes a Warned."""
    kind = event.WhichOneof("event")
    reader = _READERS.get(kind) if kind is not None else None
    return reader(event) if reader is not None else _UNKNOWN


def _message_completed(event: run_event_pb2.RunEvent) -> MessageCompleted:
    body = event.message_completed
    return MessageCompleted(body.text, body.incomplete, body.refusal, body.output_json)


def _tool_call_started(event: run_event_pb2.RunEvent) -> ToolCallStarted:
    body = event.tool_call_started
    return ToolCallStarted(body.call_id, body.name, body.arguments_json, TOOL_EFFECTS[body.effect])


def _tool_call_progress(event: run_event_pb2.RunEvent) -> ToolCallProgress:
    body = event.tool_call_progress
    return ToolCallProgress(body.call_id, body.message, body.fraction if body.HasField("fraction") else None)


def _tool_call_finished(event: run_event_pb2.RunEvent) -> ToolCallFinished:
    body = event.tool_call_finished
    return ToolCallFinished(
        call_id=body.call_id,
        name=body.name,
        status=TOOL_CALL_STATUSES[body.status],
        result_json=body.result_json,
        truncated=body.truncated,
        error_code=body.error_code.lower(),
        error_message=body.error_message,
        original_call_id=body.original_call_id,
        result_id=body.result_id,
    )


def _approval_requested(event: run_event_pb2.RunEvent) -> ApprovalRequested:
    body = event.approval_requested
    return ApprovalRequested(
        body.approval_id,
        body.call_id,
        body.tool_name,
        body.arguments_json,
        to_datetime(body.expire_time),
        body.question,
    )


def _approval_resolved(event: run_event_pb2.RunEvent) -> ApprovalResolved:
    body = event.approval_resolved
    return ApprovalResolved(body.approval_id, body.call_id, APPROVAL_STATES[body.state], body.reason)


def _steer_applied(event: run_event_pb2.RunEvent) -> SteerApplied:
    body = event.steer_applied
    return SteerApplied(body.steer_id, body.message_id, read_parts(body.input))


def _history_compacted(event: run_event_pb2.RunEvent) -> HistoryCompacted:
    body = event.history_compacted
    return HistoryCompacted(body.summary_text, body.first_message_id, body.last_message_id)


def _run_accepted(event: run_event_pb2.RunEvent) -> RunAccepted:
    body = event.run_accepted
    return RunAccepted(body.agent_id, body.input_message_id, body.queue_position)


def _attempt_restarted(event: run_event_pb2.RunEvent) -> AttemptRestarted:
    body = event.attempt_restarted
    return AttemptRestarted(body.attempt, tuple(body.discarded_item_ids), body.reason)


def _run_finished(event: run_event_pb2.RunEvent) -> RunFinished:
    body = event.run_finished
    error = read_run_error(body.error) if body.HasField("error") else None
    end = RunEnd(RUN_STATES[body.state], STOP_REASONS[body.stop_reason], error)
    return RunFinished(end, read_usage(body.usage), body.output_item_id, tuple(body.unapplied_steer_ids))


_READERS: Mapping[str, Callable[[run_event_pb2.RunEvent], EventBody]] = {
    "run_accepted": _run_accepted,
    "run_started": lambda event: RunStarted(event.run_started.model),
    "attempt_restarted": _attempt_restarted,
    "text_delta": lambda event: TextDelta(event.text_delta.text),
    "reasoning_delta": lambda event: ReasoningDelta(event.reasoning_delta.text),
    "reasoning_completed": lambda event: ReasoningCompleted(event.reasoning_completed.text),
    "message_completed": _message_completed,
    "tool_call_started": _tool_call_started,
    "tool_call_progress": _tool_call_progress,
    "tool_call_finished": _tool_call_finished,
    "approval_requested": _approval_requested,
    "approval_resolved": _approval_resolved,
    "run_waiting": lambda event: RunWaiting(tuple(event.run_waiting.approval_ids)),
    "run_resumed": lambda _: RunResumed(),
    "steer_applied": _steer_applied,
    "history_compacted": _history_compacted,
    "usage_updated": lambda event: UsageUpdated(read_usage(event.usage_updated.usage)),
    "warning": lambda event: Warned(event.warning.reason, event.warning.message),
    "run_finished": _run_finished,
}
