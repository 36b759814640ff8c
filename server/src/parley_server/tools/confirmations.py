"""What a tool asks in the middle of a call: the call is taken back, the user is asked, and it is made again."""

from dataclasses import replace

from parley_server.domain.run import UnattendedPolicy
from parley_server.domain.tool import CallState
from parley_server.tools.approval_gate import CallDeniedError
from parley_server.tools.errors import ConfirmationNeededError, ToolError
from parley_server.tools.turn_plan import Job

# How often one call may ask.
MAX_QUESTIONS = 5


def asking(job: Job, needed: ConfirmationNeededError) -> Job:
    """Return a job as it waits for the answer: not dispatched."""
    calls = [replace(planned, record=replace(planned.record, state=CallState.PLANNED)) for planned in job.calls]
    return replace(job, calls=calls, question=needed.confirmation)


def refusal(job: Job, needed: ConfirmationNeededError, policy: UnattendedPolicy) -> ToolError | None:
    """Return what ends a call whose question nobody is asked; None where the user is."""
    if policy is UnattendedPolicy.DENY:
        return CallDeniedError(f"Not run: the tool asks the user ({needed.question}), and this run asks nobody.")
    if len(job.confirmed) >= MAX_QUESTIONS:
        hint = "Go on without it, and tell the user so."
        return ToolError("too_many_questions", f"Not run: the tool asked more than {MAX_QUESTIONS} times.", hint=hint)
    return None
