"""What the user is asked before tools are called, and his answers."""

from collections.abc import AsyncGenerator, Iterable

from parley.v1 import approval_service_pb2 as messages
from parley.v1.approval_pb2 import APPROVAL_REMEMBER_ONCE, Approval, ApprovalRemember, ApprovalState
from parley.v1.approval_service_pb2_grpc import ApprovalServiceStub

from parley_client.transport import Transport


class Approvals:
    """ApprovalService over one transport. Every method raises ParleyError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = ApprovalServiceStub(transport.channel)

    async def list(
        self,
        *,
        states: Iterable[ApprovalState.ValueType] = (),
        conversation_id: str = "",
        run_id: str = "",
        page_size: int = 0,
    ) -> AsyncGenerator[Approval]:
        """List the user's approvals, the newest first, fetched `page_size` at a time (0: the server's)."""
        request = messages.ListApprovalsRequest(
            page_size=page_size, states=states, conversation_id=conversation_id, run_id=run_id
        )
        async for page in self._transport.pages(self._stub.ListApprovals, request):
            for approval in page.approvals:
                yield approval

    async def get(self, approval_id: str) -> Approval:
        """Return one approval as it stands."""
        request = messages.GetApprovalRequest(approval_id=approval_id)
        return (await self._transport.unary(self._stub.GetApproval, request)).approval

    async def approve(
        self,
        approval_id: str,
        *,
        reason: str = "",
        remember: ApprovalRemember.ValueType = APPROVAL_REMEMBER_ONCE,
    ) -> Approval:
        """Let the tool be called; the run goes on by itself once none of its approvals is pending.

        `reason` is kept with the approval. `remember` is how long the answer holds: for this call, or for the tool's
        later calls in the conversation too. The same answer again changes nothing; another one, and one that comes too
        late, is a FailedPreconditionError.
        """
        return await self._decide(
            messages.DecideApprovalRequest(
                approval_id=approval_id,
                decision=messages.APPROVAL_DECISION_APPROVE,
                reason=reason,
                remember=remember,
            )
        )

    async def deny(
        self,
        approval_id: str,
        *,
        reason: str = "",
        remember: ApprovalRemember.ValueType = APPROVAL_REMEMBER_ONCE,
    ) -> Approval:
        """Keep the tool from being called; the model is told so, with `reason`, and goes on. Otherwise as `approve`."""
        return await self._decide(
            messages.DecideApprovalRequest(
                approval_id=approval_id, decision=messages.APPROVAL_DECISION_DENY, reason=reason, remember=remember
            )
        )

    async def _decide(self, request: messages.DecideApprovalRequest) -> Approval:
        return (await self._transport.unary(self._stub.DecideApproval, request)).approval
