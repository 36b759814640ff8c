"""ApprovalService: maps, calls one method, maps back."""

from parley.v1 import approval_service_pb2 as pb

from parley_server.domain.context import RequestContext
from parley_server.rpc.mapping.approval import read_answer, write_approval
from parley_server.rpc.mapping.enums import APPROVAL_STATES
from parley_server.rpc.mapping.page import read_page
from parley_server.runs.engine import RunEngine
from parley_server.storage.repositories import ApprovalFilter, Store


class ApprovalServicer:
    """Serves what users are asked before tools are called."""

    def __init__(self, engine: RunEngine, store: Store) -> None:
        self._engine = engine
        self._store = store

    async def list_approvals(
        self, context: RequestContext, request: pb.ListApprovalsRequest
    ) -> pb.ListApprovalsResponse:
        """Return a page of the user's approvals."""
        approval_filter = ApprovalFilter(
            states=tuple(APPROVAL_STATES[state] for state in request.states),
            conversation_id=request.conversation_id,
            run_id=request.run_id,
        )
        page = await self._store.for_user(context).approvals.list(
            approval_filter, read_page(request.page_size, request.page_token)
        )
        return pb.ListApprovalsResponse(
            approvals=[write_approval(approval) for approval in page.items], next_page_token=page.next_token
        )

    async def get_approval(self, context: RequestContext, request: pb.GetApprovalRequest) -> pb.GetApprovalResponse:
        """Return one approval."""
        approval = await self._store.for_user(context).approvals.get(request.approval_id)
        return pb.GetApprovalResponse(approval=write_approval(approval))

    async def decide_approval(
        self, context: RequestContext, request: pb.DecideApprovalRequest
    ) -> pb.DecideApprovalResponse:
        """Answer an approval."""
        approval = await self._engine.decide(context, request.approval_id, read_answer(request))
        return pb.DecideApprovalResponse(approval=write_approval(approval))
