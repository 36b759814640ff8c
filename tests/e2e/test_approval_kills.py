"""A server that is killed while a run waits for its user, and again when he has answered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, stubs_on
from e2e.test_effects import PROGRAM, SCRIPT, Marked, after_restart, start, statuses
from model_server import ModelServer
from parley.v1 import agent_service_pb2, approval_pb2, approval_service_pb2, approval_service_pb2_grpc, run_pb2
from server_process import ServerProcess


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Marked]:
    """A server that asks before every WRITE."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ModelServer(SCRIPT))
        environment = {
            "MARKS_FILE": str(tmp_path / "marks"),
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
            "PARLEY_MODEL__API_KEY": "sk-test",
            "PARLEY_APPROVALS__WRITE": "always",
        }
        server = ServerProcess(tmp_path / "data", environment=environment, program=PROGRAM)
        await asyncio.to_thread(server.start)
        stack.callback(lambda: server.kill() if server.is_running else None)
        yield Marked(server, tmp_path / "marks")


async def test_what_is_approved_happens_once_or_is_in_doubt(asking: Marked) -> None:
    async with asking.channel() as channel:
        run_id = await start(stubs_on(channel), "book never")
        approval_id = await asked(stubs_on(channel), run_id)
        asking.server.kill()
    await asyncio.to_thread(asking.server.start)
    async with asking.channel() as channel:
        got = await stubs_on(channel).agents.GetRun(agent_service_pb2.GetRunRequest(run_id=run_id), timeout=10)
        assert (got.run.state, got.run.attempt) == (run_pb2.RUN_STATE_WAITING_APPROVAL, 1)
        request = approval_service_pb2.DecideApprovalRequest(
            approval_id=approval_id, decision=approval_service_pb2.APPROVAL_DECISION_APPROVE
        )
        approvals = approval_service_pb2_grpc.ApprovalServiceStub(channel)
        decided = (await approvals.DecideApproval(request, timeout=RPC_DEADLINE_S)).approval
        asking.server.kill()
    assert decided.state == approval_pb2.APPROVAL_STATE_APPROVED
    events = await after_restart(asking, run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    status, times = statuses(events)["book"], len(asking.marks("book"))
    assert (status, times) in {("OK", 1), ("UNKNOWN_OUTCOME", 0), ("UNKNOWN_OUTCOME", 1)}


async def asked(stubs: Stubs, run_id: str) -> str:
    """Watch a run until it waits; return what it waits for."""
    call = stubs.agents.WatchRun(agent_service_pb2.WatchRunRequest(run_id=run_id), timeout=RPC_DEADLINE_S)
    async for response in call:
        if response.event.HasField("run_waiting"):
            [approval_id] = response.event.run_waiting.approval_ids
            return approval_id
    pytest.fail("it does not wait")
