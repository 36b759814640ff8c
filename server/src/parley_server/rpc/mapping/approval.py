"""Approvals: how one stands, and what is answered."""

from parley.v1 import approval_pb2 as pb
from parley.v1 import approval_service_pb2 as service_pb

from parley_server.domain.approval import Approval, ApprovalAnswer, Remember
from parley_server.domain.principal import PrincipalKind
from parley_server.rpc.mapping.enums import APPROVAL_STATE_NUMBERS, REMEMBER_NUMBERS, TOOL_EFFECT_NUMBERS
from parley_server.rpc.mapping.text import refuse_nul
from parley_server.rpc.mapping.timestamps import optional_timestamp, to_timestamp

_REMEMBER = {
    pb.APPROVAL_REMEMBER_UNSPECIFIED: Remember.ONCE,
    **{number: remember for remember, number in REMEMBER_NUMBERS.items()},
}


def read_answer(request: service_pb.DecideApprovalRequest) -> ApprovalAnswer:
    """Read what the user says. Raises InvalidRequestError for NUL in his reason."""
    refuse_nul({"reason": [request.reason]})
    is_approved = request.decision == service_pb.APPROVAL_DECISION_APPROVE
    return ApprovalAnswer(is_approved, request.reason, _REMEMBER[request.remember])


def write_approval(approval: Approval) -> pb.Approval:
    """Return an approval as it stands."""
    kind, _, subject = approval.decider.partition(":")
    message = pb.Approval(
        approval_id=approval.approval_id,
        run_id=approval.run_id,
        conversation_id=approval.conversation_id,
        call_id=approval.call_id,
        tool_name=approval.tool_name,
        tool_description=approval.tool_description,
        effect=TOOL_EFFECT_NUMBERS[approval.effect],
        arguments_json=approval.arguments_json,
        state=APPROVAL_STATE_NUMBERS[approval.state],
        create_time=to_timestamp(approval.create_time),
        expire_time=to_timestamp(approval.expire_time),
        decide_time=optional_timestamp(approval.decide_time),
        reason=approval.reason,
        question=approval.question,
        remember=REMEMBER_NUMBERS[approval.remember] if approval.remember else pb.APPROVAL_REMEMBER_UNSPECIFIED,
    )
    if kind == PrincipalKind.USER:
        message.user_id = subject
    elif kind == PrincipalKind.SERVICE:
        message.service_id = subject
    return message
