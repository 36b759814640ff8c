"""What is said of an approval: the question, its choices, and what became of it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from parley.v1.approval_pb2 import (
    APPROVAL_STATE_APPROVED,
    APPROVAL_STATE_CANCELLED,
    APPROVAL_STATE_DENIED,
    APPROVAL_STATE_EXPIRED,
    Approval,
    ApprovalState,
)
from parley.v1.tool_pb2 import TOOL_EFFECT_IDEMPOTENT, TOOL_EFFECT_READ, TOOL_EFFECT_WRITE, ToolEffect
from parley_client import ParleyClient

from parley_console.visible_text import argument_lines, visible

_MAX_ROWS: Final = 12
_MAX_ROW: Final = 240

EFFECTS: Final[dict[ToolEffect.ValueType, str]] = {
    TOOL_EFFECT_READ: "read",
    TOOL_EFFECT_IDEMPOTENT: "idempotent",
    TOOL_EFFECT_WRITE: "write",
}
_EFFECT_SENTENCES: Final[dict[ToolEffect.ValueType, str]] = {
    TOOL_EFFECT_READ: "it changes nothing",
    TOOL_EFFECT_IDEMPOTENT: "it changes something; twice is the same as once",
    TOOL_EFFECT_WRITE: "it changes something each time",
}
_OUTCOMES: Final[dict[ApprovalState.ValueType, str]] = {
    APPROVAL_STATE_APPROVED: "approved",
    APPROVAL_STATE_DENIED: "denied",
    APPROVAL_STATE_EXPIRED: "not approved: nobody answered in time",
    APPROVAL_STATE_CANCELLED: "not approved: the run ended before",
}


def question_rows(approval: Approval, left: timedelta | None = None, *, whole: bool = False) -> tuple[list[str], bool]:
    """Write the question, and say whether something of it was left out.

    `left` is the time for an answer, None where there is none to give. `whole` leaves nothing out and adds what the
    tool says of itself. No row has a control character.
    """
    effect = _EFFECT_SENTENCES.get(approval.effect, "")
    head = " · ".join(filter(None, [f"? {visible(approval.tool_name)} waits for your approval", effect]))
    arguments = [*asked_rows(approval.question), *(argument_lines(approval.arguments_json) or ["no arguments"])]
    description = [visible(line) for line in approval.tool_description.splitlines()]
    rows = [_row(line) for line in arguments[:_MAX_ROWS]]
    is_cut = len(arguments) > _MAX_ROWS or rows != arguments[:_MAX_ROWS]
    if whole:
        rows = [*arguments, "it says of itself:", *(f"  {line}" for line in description)]
    elif len(arguments) > _MAX_ROWS:
        rows.append(f"… {len(arguments) - _MAX_ROWS:,} more rows")
    time_row = [] if left is None else [f"  {time_text(left)}"]
    return [head, *(f"    {row}" for row in rows), *time_row], is_cut and not whole


def asked_rows(question: str) -> list[str]:
    """Write what the tool itself asks, as no argument can look; nothing where it asks nothing."""
    return [f"it asks: {visible(question)}"] if question else []


def choices_of(approval: Approval, *, is_cut: bool) -> dict[str, str]:
    """Return the keys that answer, with what they mean. A yes to a tool's own question holds for nothing else."""
    choices = {
        "1": "yes, once",
        "2": f"yes, every {visible(approval.tool_name)} of this conversation",
        "3": "no",
        "4": "later",
        "5": "show all",
    }
    left_out = {"2" if approval.question else "", "" if is_cut else "5"}
    return {key: meaning for key, meaning in choices.items() if key not in left_out}


def choices_text(choices: Mapping[str, str]) -> str:
    """Write what the keys mean."""
    return " · ".join(f"{key} {meaning}" for key, meaning in choices.items())


def outcome_text(state: ApprovalState.ValueType, reason: str) -> str:
    """Write what became of an approval."""
    outcome = _OUTCOMES.get(state, str(state))
    return f"{outcome}: {visible(reason)}" if reason else outcome


def time_text(left: timedelta) -> str:
    """Write how long an answer still counts."""
    if left >= timedelta(minutes=2):
        return f"{round(left / timedelta(minutes=1))} min left"
    return f"{max(0, round(left.total_seconds()))} s left"


async def time_left(client: ParleyClient, approval: Approval) -> timedelta:
    """Return how long an answer counts: until the approval's expiry or its run's deadline. Raises ParleyError."""
    run = await client.get_run(approval.run_id)
    ends = [approval.expire_time, *([run.deadline_time] if run.HasField("deadline_time") else [])]
    return min(end.ToDatetime(UTC) for end in ends) - datetime.now(UTC)


def _row(line: str) -> str:
    return line if len(line) <= _MAX_ROW else f"{line[:_MAX_ROW]}… {len(line) - _MAX_ROW:,} more characters"
