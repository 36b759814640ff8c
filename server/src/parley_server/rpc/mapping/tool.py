"""Tools and their calls on the wire."""

from collections.abc import Iterable
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from parley.v1 import tool_pb2 as pb

from parley_server.domain.context import RequestContext
from parley_server.domain.principal import PrincipalKind
from parley_server.domain.recorded_call import RecordedCall
from parley_server.domain.resolution import Resolution
from parley_server.domain.tool import ToolSpec
from parley_server.rpc.mapping.enums import (
    CALL_OUTCOME_NUMBERS,
    TOOL_APPROVAL_NUMBERS,
    TOOL_CALL_STATUS_NUMBERS,
    TOOL_EFFECT_NUMBERS,
)
from parley_server.rpc.mapping.timestamps import optional_timestamp, to_timestamp


def write_tool(spec: ToolSpec, agent_ids: Iterable[str], context: RequestContext) -> pb.Tool:
    """Return a tool as it is seen in this context."""
    timeout = Duration()
    timeout.FromTimedelta(timedelta(seconds=spec.timeout_s))
    return pb.Tool(
        name=spec.name,
        description=spec.description,
        input_schema_json=spec.input_schema_json,
        output_schema_json=spec.output_schema_json,
        effect=TOOL_EFFECT_NUMBERS[spec.effect],
        source=spec.source,
        approval=TOOL_APPROVAL_NUMBERS[spec.approval],
        required_scopes=sorted(spec.required_scopes),
        credential_slots=spec.credential_slots,
        allowed=not context.lacks(spec.required_scopes),
        timeout=timeout,
        spec_hash=spec.spec_hash,
        agent_ids=sorted(agent_ids),
    )


def write_tool_call(call: RecordedCall) -> pb.ToolCall:
    """Return a call as the journal and its message tell it."""
    target = pb.ToolCall(
        run_id=call.run_id,
        conversation_id=call.conversation_id,
        call_id=call.record.call_id,
        item_id=call.record.item_id,
        name=call.record.name,
        effect=TOOL_EFFECT_NUMBERS[call.record.effect],
        # The model reads small letters, the contract's codes are capitals.
        error_code=call.error_code.upper(),
        idempotency_key=call.record.idempotency_key,
        create_time=to_timestamp(call.create_time),
        dispatch_time=optional_timestamp(call.dispatch_time),
        finish_time=optional_timestamp(call.finish_time),
        resolution=None if call.resolution is None else _write_resolution(call.resolution),
    )
    if call.status is not None:
        target.status = TOOL_CALL_STATUS_NUMBERS[call.status]
    if call.item is not None:
        target.arguments_json = call.item.arguments_json
        target.result_json = call.item.result_json
        target.truncated = call.item.truncated
        target.result_id = call.item.result_id
    return target


def _write_resolution(resolution: Resolution) -> pb.ToolCallResolution:
    target = pb.ToolCallResolution(
        outcome=CALL_OUTCOME_NUMBERS[resolution.outcome],
        note=resolution.note,
        resolve_time=to_timestamp(resolution.resolve_time),
    )
    if resolution.actor_kind is PrincipalKind.USER:
        target.user_id = resolution.actor
    else:
        target.service_id = resolution.actor
    return target
