"""What a run asks its user: approvals made of the calls that wait, and the events that tell of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from parley_server.domain.approval import MAX_DESCRIPTION_BYTES, Approval
from parley_server.domain.identifiers import new_id
from parley_server.domain.run import Run
from parley_server.domain.run_event import ApprovalRequested, ItemEvent, RunWaiting
from parley_server.domain.tool import CallRecord
from parley_server.tools.arguments import MAX_ARGUMENTS_BYTES
from parley_server.tools.fingerprint import fingerprint
from parley_server.tools.json_value import dump_json
from parley_server.tools.turn_plan import Job


@dataclass(frozen=True, slots=True)
class ApprovalRequests:
    """The approvals, the events with which the run begins to wait for them, and the calls that have no result yet."""

    approvals: tuple[Approval, ...]
    events: tuple[ItemEvent, ...]
    calls: tuple[CallRecord, ...]


def requests_for(run: Run, user_id: str, held: Sequence[Job], expiry: timedelta) -> ApprovalRequests:
    """Ask about each of these jobs."""
    now = datetime.now(UTC)
    approvals = tuple(_approval(run, user_id, job, now, now + expiry) for job in held)
    asked: list[ItemEvent] = [
        (_requested(approval), job.calls[0].record.item_id) for approval, job in zip(approvals, held, strict=True)
    ]
    waiting = RunWaiting(tuple(approval.approval_id for approval in approvals))
    calls = tuple(planned.record for job in held for planned in job.calls)
    return ApprovalRequests(approvals, (*asked, (waiting, "")), calls)


def _approval(run: Run, user_id: str, job: Job, now: datetime, expire_time: datetime) -> Approval:
    spec = job.tool.spec
    return Approval(
        approval_id=new_id("apr"),
        user_id=user_id,
        conversation_id=run.conversation_id,
        run_id=run.run_id,
        call_id=job.call_ids[0],
        tool_name=spec.name,
        tool_description=spec.description.encode()[:MAX_DESCRIPTION_BYTES].decode(errors="ignore"),
        effect=spec.effect,
        arguments_json=_arguments(job),
        fingerprint=fingerprint(spec.name, job.arguments),
        spec_hash=spec.spec_hash,
        create_time=now,
        expire_time=expire_time,
        confirmation=job.question,
    )


def _arguments(job: Job) -> str:
    """Write what is dispatched, and not the model's own text, where one name may stand twice."""
    written = dump_json(job.arguments)
    return written if len(written.encode()) <= MAX_ARGUMENTS_BYTES else job.calls[0].call.arguments_json


def _requested(approval: Approval) -> ApprovalRequested:
    return ApprovalRequested(
        approval.approval_id,
        approval.call_id,
        approval.tool_name,
        approval.arguments_json,
        approval.expire_time,
        approval.question,
    )
