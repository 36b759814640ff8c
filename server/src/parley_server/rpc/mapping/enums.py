"""Enums: the domain's members and the contract's numbers, matched by name."""

from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from parley.v1 import approval_pb2, audit_event_pb2, run_pb2, tool_pb2

from parley_server.domain.approval import ApprovalState, Remember
from parley_server.domain.audit import AuditDecision
from parley_server.domain.resolution import CallOutcome
from parley_server.domain.run import RunState, StopReason
from parley_server.domain.tool import ApprovalRule, ToolCallStatus, ToolEffect

MemberT = TypeVar("MemberT", bound=Enum)
NumberT = TypeVar("NumberT", bound=int)


def _numbers(members: type[MemberT], number_of: Callable[[str], NumberT], prefix: str) -> dict[MemberT, NumberT]:
    """Pair every member with the number of its name. Raises ValueError when the contract lacks one."""
    return {member: number_of(f"{prefix}_{member.name}") for member in members}


RUN_STATE_NUMBERS = _numbers(RunState, run_pb2.RunState.Value, "RUN_STATE")
RUN_STATES = {number: state for state, number in RUN_STATE_NUMBERS.items()}

STOP_REASON_NUMBERS = _numbers(StopReason, run_pb2.StopReason.Value, "STOP_REASON")
STOP_REASONS = {number: reason for reason, number in STOP_REASON_NUMBERS.items()}

# A tool the agent does not have has no effect to name.
TOOL_EFFECT_NUMBERS = {
    effect: tool_pb2.ToolEffect.Value(f"TOOL_EFFECT_{effect.name if effect else 'UNSPECIFIED'}")
    for effect in (None, *ToolEffect)
}
TOOL_EFFECTS = {number: effect for effect, number in TOOL_EFFECT_NUMBERS.items()}

TOOL_CALL_STATUS_NUMBERS = _numbers(ToolCallStatus, tool_pb2.ToolCallStatus.Value, "TOOL_CALL_STATUS")
TOOL_CALL_STATUSES = {number: status for status, number in TOOL_CALL_STATUS_NUMBERS.items()}

APPROVAL_STATE_NUMBERS = _numbers(ApprovalState, approval_pb2.ApprovalState.Value, "APPROVAL_STATE")
APPROVAL_STATES = {number: state for state, number in APPROVAL_STATE_NUMBERS.items()}

REMEMBER_NUMBERS = _numbers(Remember, approval_pb2.ApprovalRemember.Value, "APPROVAL_REMEMBER")

TOOL_APPROVAL_NUMBERS = _numbers(ApprovalRule, tool_pb2.ToolApproval.Value, "TOOL_APPROVAL")

CALL_OUTCOME_NUMBERS = _numbers(CallOutcome, tool_pb2.ToolCallOutcome.Value, "TOOL_CALL_OUTCOME")
CALL_OUTCOMES = {number: outcome for outcome, number in CALL_OUTCOME_NUMBERS.items()}

AUDIT_DECISION_NUMBERS = _numbers(AuditDecision, audit_event_pb2.AuditDecision.Value, "AUDIT_DECISION")
AUDIT_DECISIONS = {number: decision for decision, number in AUDIT_DECISION_NUMBERS.items()}
