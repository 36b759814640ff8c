"""What a user does whose runs ask him before they call a tool."""

import asyncio
from collections.abc import Sequence

from contract.recovery.recovering import calls
from contract.storage.test_repositories import spec
from parley.v1 import approval_pb2, run_event_pb2
from parley_server.domain.approval import Approval, ApprovalAnswer, ApprovalState, Remember
from parley_server.domain.context import RequestContext
from parley_server.domain.run import RunSpec, RunState
from parley_server.runs.engine import RunEngine
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import ApprovalFilter
from parley_server.storage.sql.store import SqlStore
from parley_server.tools.approval_policy import ApprovalPolicy, ApprovalSettings
from unit.agents.scripted_model import say

WRITES = ApprovalPolicy(ApprovalSettings(write="always"))
YES, NO = ApprovalAnswer(is_approved=True), ApprovalAnswer(is_approved=False, reason="not today")
ALWAYS = ApprovalAnswer(is_approved=True, remember=Remember.CONVERSATION)
NEVER = ApprovalAnswer(is_approved=False, remember=Remember.CONVERSATION)

# The events of a run that waited once, for one answer.
WHOLE = ["approval_requested", "run_waiting", "approval_resolved", "run_resumed"]

BOOKING = [calls(("book", 1)), say("Done.")]


async def waiting_run(
    engine: RunEngine, store: SqlStore, context: RequestContext, wish: RunSpec | None = None
) -> tuple[str, list[Approval]]:
    """Start a run and wait until it waits for its user; return it and what it asks, in order."""
    run = await engine.start(context, wish or spec(), None)
    return run.run_id, await asked(store, context, run.run_id)


async def asked(store: SqlStore, context: RequestContext, run_id: str) -> list[Approval]:
    """Wait until a run waits for its user; return what it asks, in order."""
    async with asyncio.timeout(10):
        while not (approvals := await pending(store, context, run_id)):
            state = await state_of(store, context, run_id)
            assert not state.is_terminal, f"it is {state} and asks nobody"
            await asyncio.sleep(0.005)
    assert await state_of(store, context, run_id) is RunState.WAITING_APPROVAL
    return approvals


async def pending(store: SqlStore, context: RequestContext, run_id: str) -> list[Approval]:
    """Return what a run asks at the moment, in order."""
    wanted = ApprovalFilter(states=(ApprovalState.PENDING,), run_id=run_id)
    page = await store.for_user(context).approvals.list(wanted, PageRequest(50))
    return list(reversed(page.items))


async def state_of(store: SqlStore, context: RequestContext, run_id: str) -> RunState:
    return (await store.for_user(context).runs.get(run_id)).state


def kinds_of(events: Sequence[run_event_pb2.RunEvent]) -> list[str]:
    """Name the events of a run that concern its waiting, in order."""
    names = [event.WhichOneof("event") or "" for event in events]
    return [name for name in names if name in {"approval_requested", "run_waiting", "approval_resolved", "run_resumed"}]


def resolutions_of(events: Sequence[run_event_pb2.RunEvent]) -> list[str]:
    """Tell what became of the approvals, in order."""
    resolved = [event.approval_resolved for event in events if event.HasField("approval_resolved")]
    return [approval_pb2.ApprovalState.Name(each.state).removeprefix("APPROVAL_STATE_") for each in resolved]
