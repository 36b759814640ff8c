"""Event bodies, from the domain to the contract."""

from parley.v1 import run_event_pb2, run_pb2

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
from parley_server.rpc.mapping.content import write_parts
from parley_server.rpc.mapping.enums import (
    APPROVAL_STATE_NUMBERS,
    RUN_STATE_NUMBERS,
    STOP_REASON_NUMBERS,
    TOOL_CALL_STATUS_NUMBERS,
    TOOL_EFFECT_NUMBERS,
)
from parley_server.rpc.mapping.errors import write_run_error
from parley_server.rpc.mapping.timestamps import set_timestamp
from parley_server.rpc.mapping.usage import write_usage


def write_body(event: run_event_pb2.RunEvent, body: EventBody) -> None:
    """Write the body into the event, the frequent kinds first."""
    if isinstance(body, TextDelta):
        event.text_delta.text = body.text
    elif isinstance(body, ReasoningDelta):
        event.reasoning_delta.text = body.text
    elif isinstance(body, ReasoningCompleted):
        event.reasoning_completed.text = body.text
    elif isinstance(body, MessageCompleted):
        _write_message_completed(event.message_completed, body)
    elif isinstance(body, ToolCallStarted):
        _write_tool_call_started(event.tool_call_started, body)
    elif isinstance(body, ToolCallProgress):
        _write_tool_call_progress(event.tool_call_progress, body)
    elif isinstance(body, ToolCallFinished):
        _write_tool_call_finished(event.tool_call_finished, body)
    elif isinstance(body, (ApprovalRequested, ApprovalResolved, RunWaiting, RunResumed)):
        _write_wait(event, body)
    else:
        _write_run_body(event, body)


def _write_run_body(
    event: run_event_pb2.RunEvent,
    body: RunAccepted
    | RunStarted
    | AttemptRestarted
    | SteerApplied
    | HistoryCompacted
    | UsageUpdated
    | Warned
    | RunFinished,
) -> None:
    """Write what concerns the run as a whole."""
    match body:
        case RunAccepted():
            event.run_accepted.agent_id = body.agent_id
            event.run_accepted.input_message_id = body.input_message_id
            event.run_accepted.state = run_pb2.RUN_STATE_QUEUED
            event.run_accepted.queue_position = body.queue_position
        case RunStarted():
            event.run_started.model = body.model
        case AttemptRestarted():
            event.attempt_restarted.attempt = body.attempt
            event.attempt_restarted.discarded_item_ids.extend(body.discarded_item_ids)
            event.attempt_restarted.reason = body.reason
        case SteerApplied():
            event.steer_applied.steer_id = body.steer_id
            event.steer_applied.message_id = body.message_id
            event.steer_applied.input.extend(write_parts(body.input))
        case HistoryCompacted():
            event.history_compacted.summary_text = body.summary_text
            event.history_compacted.first_message_id = body.first_message_id
            event.history_compacted.last_message_id = body.last_message_id
        case UsageUpdated():
            event.usage_updated.SetInParent()
            write_usage(event.usage_updated.usage, body.usage)
        case Warned():
            event.warning.reason = body.reason
            event.warning.message = body.message
        case RunFinished():
            _write_run_finished(event.run_finished, body)


def _write_wait(
    event: run_event_pb2.RunEvent, body: ApprovalRequested | ApprovalResolved | RunWaiting | RunResumed
) -> None:
    """Write what concerns the waiting for the user."""
    match body:
        case ApprovalRequested():
            event.approval_requested.approval_id = body.approval_id
            event.approval_requested.call_id = body.call_id
            event.approval_requested.tool_name = body.tool_name
            event.approval_requested.arguments_json = body.arguments_json
            set_timestamp(event.approval_requested.expire_time, body.expire_time)
            event.approval_requested.question = body.question
        case ApprovalResolved():
            event.approval_resolved.approval_id = body.approval_id
            event.approval_resolved.call_id = body.call_id
            event.approval_resolved.state = APPROVAL_STATE_NUMBERS[body.state]
            event.approval_resolved.reason = body.reason
        case RunWaiting():
            event.run_waiting.approval_ids.extend(body.approval_ids)
        case RunResumed():
            event.run_resumed.SetInParent()


def _write_message_completed(target: run_event_pb2.MessageCompleted, body: MessageCompleted) -> None:
    target.text = body.text
    target.incomplete = body.incomplete
    target.refusal = body.refusal
    target.output_json = body.output_json


def _write_tool_call_started(target: run_event_pb2.ToolCallStarted, body: ToolCallStarted) -> None:
    target.call_id = body.call_id
    target.name = body.name
    target.arguments_json = body.arguments_json
    target.effect = TOOL_EFFECT_NUMBERS[body.effect]


def _write_tool_call_progress(target: run_event_pb2.ToolCallProgress, body: ToolCallProgress) -> None:
    target.call_id = body.call_id
    target.message = body.message
    if body.fraction is not None:
        target.fraction = body.fraction


def _write_tool_call_finished(target: run_event_pb2.ToolCallFinished, body: ToolCallFinished) -> None:
    target.call_id = body.call_id
    target.name = body.name
    target.status = TOOL_CALL_STATUS_NUMBERS[body.status]
    target.result_json = body.result_json
    target.truncated = body.truncated
    target.result_id = body.result_id
    # The model reads small letters, the contract's codes are capitals.
    target.error_code = body.error_code.upper()
    target.error_message = body.error_message
    target.original_call_id = body.original_call_id


def _write_run_finished(target: run_event_pb2.RunFinished, body: RunFinished) -> None:
    target.state = RUN_STATE_NUMBERS[body.end.state]
    target.stop_reason = STOP_REASON_NUMBERS[body.end.stop_reason]
    if body.end.error is not None:
        write_run_error(target.error, body.end.error)
    write_usage(target.usage, body.usage)
    target.output_item_id = body.output_item_id
    target.unapplied_steer_ids.extend(body.unapplied_steer_ids)
