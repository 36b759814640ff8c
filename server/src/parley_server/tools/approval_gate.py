"""The gate between planning calls and dispatching them: some pass, some are refused, some wait for the user."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from parley_server.domain.approval import Approval, ApprovalState
from parley_server.domain.context import RequestContext
from parley_server.domain.run import UnattendedPolicy
from parley_server.domain.tool import CallState, ToolCallStatus, ToolEffect
from parley_server.storage.repositories import Store
from parley_server.tools.approval_policy import DEFAULT_POLICY, ApprovalPolicy
from parley_server.tools.errors import ToolError, UnknownOutcomeError
from parley_server.tools.fingerprint import fingerprint
from parley_server.tools.tool import FunctionTool
from parley_server.tools.turn_plan import Job, PlannedCall, TurnPlan


@dataclass(frozen=True, slots=True)
class Asking:
    """What a run brings to the gate: whose and which it is, what it does where the user is needed, and all it asked."""

    agent_id: str = ""
    conversation_id: str = ""
    policy: UnattendedPolicy = UnattendedPolicy.WAIT
    approvals: Sequence[Approval] = ()


class CallDeniedError(ToolError):
    """The user, or the run's policy in his place, does not want the call; nothing happened."""

    status = ToolCallStatus.DENIED

    def __init__(self, message: str) -> None:
        hint = "Do not make this call again unless the user asks for it. Go on without it, or say what you cannot do."
        super().__init__("approval_denied", message, hint=hint)


class CallApprovalExpiredError(ToolError):
    """Nobody answered in time; nothing happened."""

    status = ToolCallStatus.DENIED

    def __init__(self) -> None:
        message = "Not run: the user was asked to approve this call and did not answer in time."
        super().__init__("approval_expired", message, hint="Tell the user, who may want you to try again.")


class ApprovalNeededError(Exception):
    """Jobs wait for the user: before they are dispatched, or since their tools ask.

    All other calls of the turn are answered, and nothing of the run is at work.

    `tool_time_s` is for how long the run's tools were.
    """

    def __init__(self, held: Sequence[Job], tool_time_s: float = 0.0) -> None:
        super().__init__(f"{len(held)} calls need an approval")
        self.held = tuple(held)
        self.tool_time_s = tool_time_s


class ApprovalGate:
    """Decides for all runs. Without a store no answer is remembered from one call to the next."""

    def __init__(self, policy: ApprovalPolicy = DEFAULT_POLICY, store: Store | None = None) -> None:
        self._policy = policy
        self._store = store

    async def passed(self, context: RequestContext, asking: Asking, plan: TurnPlan) -> TurnPlan:
        """Return the plan with only those jobs that may be dispatched; the others are refused in it, or held.

        Raises:
            StorageUnavailableError: what the user said before cannot be read.
        """
        plan = replace(plan, jobs=tuple([_with_answers(asking.approvals, context.user_id, job) for job in plan.jobs]))
        jobs: list[Job] = []
        held: list[Job] = []
        refused: list[tuple[PlannedCall, ToolError]] = []
        for job in plan.jobs:
            try:
                (jobs if await self._passes(context, asking, job) else held).append(job)
            except ToolError as error:
                refused += [(planned, error) for planned in job.calls]
        if len(jobs) == len(plan.jobs):
            return plan
        return replace(plan, jobs=tuple(jobs), refused=(*plan.refused, *refused), held=tuple(held))

    async def _passes(self, context: RequestContext, asking: Asking, job: Job) -> bool:
        """Tell whether a job may be dispatched now, and not after the user is asked. Raises ToolError: it may never."""
        asked = [approval for approval in asking.approvals if approval.call_id in job.call_ids]
        if _was_dispatched(job) and not asked:
            # It had passed, whatever would be asked now.
            return True
        if (answer := _answer_to(asked, context.user_id, job)) is not None:
            return _approved(answer, job)
        if not self._policy.asks(job.tool.spec, asking.agent_id, context.user_id):
            return True
        remembered = await self._remembered(context, asking.conversation_id, job)
        if remembered is None and asking.policy is UnattendedPolicy.DENY:
            raise CallDeniedError("Not run: this call needs the user's approval, and this run asks nobody.")
        if remembered is False:
            raise CallDeniedError("Not run: the user refuses all calls of this tool in this conversation.")
        if remembered is None and isinstance(job.tool, FunctionTool):
            # Nobody is asked about what cannot be done.
            job.tool.checked(job.arguments)
        return bool(remembered)

    async def _remembered(self, context: RequestContext, conversation_id: str, job: Job) -> bool | None:
        if self._store is None:
            return None
        spec = job.tool.spec
        return await self._store.for_user(context).approvals.remembered(conversation_id, spec.name, spec.spec_hash)


def _answer_to(asked: Sequence[Approval], user_id: str, job: Job) -> Approval | None:
    """Return the newest answer that is one to this question, and to no other."""
    if not asked:
        return None
    # Of what is dispatched now, so that nothing else can have taken the place of what the user saw.
    now = fingerprint(job.tool.spec.name, job.arguments)
    holding = (each for each in reversed(asked) if each.holds_for(user_id, now, job.tool.spec.spec_hash))
    return next((each for each in holding if not each.is_pending), None)


def _with_answers(approvals: Sequence[Approval], user_id: str, job: Job) -> Job:
    """Return a job with what the user has said yes to: the call, and what its tool has asked him."""
    approved = [each for each in approvals if each.call_id in job.call_ids and each.state is ApprovalState.APPROVED]
    if not approved:
        return job
    now = fingerprint(job.tool.spec.name, job.arguments)
    holding = [each for each in approved if each.holds_for(user_id, now, job.tool.spec.spec_hash)]
    confirmed = tuple(each.confirmation for each in holding if each.confirmation is not None)
    return replace(job, confirmed=confirmed, is_approved=bool(holding))


def _approved(approval: Approval, job: Job) -> bool:
    """Tell that a job is approved. Raises ToolError when it is not."""
    if approval.state is ApprovalState.APPROVED:
        return True
    if _was_dispatched(job) and job.tool.spec.effect is not ToolEffect.READ:
        raise UnknownOutcomeError
    if approval.state is ApprovalState.EXPIRED:
        raise CallApprovalExpiredError
    reason = f" The user's reason: {approval.reason}" if approval.reason else ""
    raise CallDeniedError(f"Not run: the user refused this call.{reason}")


def _was_dispatched(job: Job) -> bool:
    return any(planned.record.state is not CallState.PLANNED for planned in job.calls)
