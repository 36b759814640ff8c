"""A real MCP server that asks in the middle of its calls: the user answers by ApprovalService, over crashes too."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_spec, stubs_on, watch
from model_server import ModelServer
from parley.v1 import (
    agent_service_pb2,
    approval_pb2,
    approval_service_pb2,
    approval_service_pb2_grpc,
    run_event_pb2,
    run_pb2,
    tool_pb2,
)
from run_history import check_run
from server_process import ServerProcess

PROGRAM = Path(__file__).with_name("questioning_program.py")
SCRIPT = {
    "rules": [
        {"when": r"^remove (?P<what>\w+)", "tool_calls": [{"name": "q_remove", "arguments": {"what": "{what}"}}]},
        *({"when": f"^{name}", "tool_calls": [{"name": f"q_{name}"}]} for name in ("rename", "cut")),
        {"after_tool": "*", "text": "Done."},
    ]
}
YES, NO = approval_service_pb2.APPROVAL_DECISION_APPROVE, approval_service_pb2.APPROVAL_DECISION_DENY


@dataclass(frozen=True)
class Running:
    """A server with the tools of the questioning program, which notes in `file` what it has done."""

    server: ServerProcess
    channel: grpc.aio.Channel
    file: Path

    @property
    def stubs(self) -> Stubs:
        return stubs_on(self.channel)

    @property
    def done(self) -> list[str]:
        """What has happened."""
        return self.file.read_text().splitlines() if self.file.exists() else []

    async def start(self, text: str) -> str:
        """Begin a run, once for each text; return its id."""
        request = agent_service_pb2.StartRunRequest(run=run_spec(text), request_id=text)
        return (await self.stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run.run_id

    async def asked(self, run_id: str) -> run_event_pb2.ApprovalRequested | None:
        """Watch a run until it asks; None when it ends without."""
        call = self.stubs.agents.WatchRun(agent_service_pb2.WatchRunRequest(run_id=run_id), timeout=RPC_DEADLINE_S)
        async for response in call:
            if response.event.HasField("approval_requested"):
                return response.event.approval_requested
        return None

    async def answer(
        self, approval_id: str, decision: approval_service_pb2.ApprovalDecision.ValueType
    ) -> approval_pb2.Approval:
        """Answer what is asked."""
        request = approval_service_pb2.DecideApprovalRequest(approval_id=approval_id, decision=decision)
        approvals = approval_service_pb2_grpc.ApprovalServiceStub(self.channel)
        return (await approvals.DecideApproval(request, timeout=RPC_DEADLINE_S)).approval

    async def finished(self, run_id: str) -> run_event_pb2.ToolCallFinished:
        """Watch a run to its end; return that of its call."""
        events = await watch(self.stubs, run_id)
        check_run(events)
        assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
        [finished] = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
        return finished


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ModelServer(SCRIPT))
        environment = {
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
            "PARLEY_MODEL__API_KEY": "sk-test",
            "PARLEY_MCP__Q__COMMAND": sys.executable,
            "PARLEY_MCP__Q__ARGS": f"{PROGRAM}, {tmp_path / 'done'}",
            "PARLEY_MCP__Q__SHARED": "true",
            "PARLEY_MCP__Q__APPROVAL": "never",
        }
        server = ServerProcess(tmp_path / "data", environment=environment)
        await asyncio.to_thread(server.start)
        stack.callback(lambda: server.kill() if server.is_running else None)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        yield Running(server, channel, tmp_path / "done")


async def test_what_the_user_says_happens_once_or_never(running: Running) -> None:
    await until_offered(running)
    refused = await running.start("remove nothing")
    question = await running.asked(refused)
    assert question is not None
    assert (question.question, json.loads(question.arguments_json)) == ("Remove nothing?", {"what": "nothing"})
    assert (await running.answer(question.approval_id, NO)).question == "Remove nothing?"
    assert (await running.finished(refused)).error_code == "APPROVAL_DENIED"

    wanted = await running.start("remove this")
    question = await running.asked(wanted)
    assert question is not None
    await running.answer(question.approval_id, YES)
    finished = await running.finished(wanted)
    assert json.loads(finished.result_json)["result"]["confirmed_questions"] == ["Remove this?"]
    assert running.done == ["removed this"]

    declined = await running.finished(await running.start("rename"))
    assert json.loads(declined.result_json)["result"]["declined_questions"] == ["Which name?"]

    await check_crashes(running)


async def check_crashes(running: Running) -> None:
    """What waits is asked still, though the program has forgotten it; what was cut happens once, or is in doubt."""
    waiting = await running.start("remove that")
    question = await running.asked(waiting)
    assert question is not None
    # It may be gone before it has answered.
    with suppress(grpc.aio.AioRpcError):
        await running.start("cut")
    await asyncio.to_thread(running.server.wait)
    await asyncio.to_thread(running.server.start)
    await until_offered(running)
    await running.answer(question.approval_id, YES)
    assert (await running.finished(waiting)).status == tool_pb2.TOOL_CALL_STATUS_OK
    assert running.done == ["removed this", "removed that"]
    cut = await running.start("cut")
    asked = await running.asked(cut)
    if asked is not None:
        await running.answer(asked.approval_id, YES)
    status = (await running.finished(cut)).status
    assert (status, running.done.count("cut")) in {
        (tool_pb2.TOOL_CALL_STATUS_OK, 1),
        (tool_pb2.TOOL_CALL_STATUS_UNKNOWN_OUTCOME, 0),
    }


async def until_offered(running: Running) -> None:
    """Wait until the program has started: a call before that fails."""
    async with asyncio.timeout(RPC_DEADLINE_S):
        while True:
            agents = (await running.stubs.agents.ListAgents(agent_service_pb2.ListAgentsRequest())).agents
            if "q_cut" in agents[0].tool_names:
                return
            await asyncio.sleep(0.05)
