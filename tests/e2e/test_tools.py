"""Tools that an operator adds to a real server."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, run_spec, stubs_on, watch
from model_server import ModelServer
from parley.v1 import agent_service_pb2, conversation_service_pb2, run_event_pb2, tool_pb2
from run_history import check_run
from server_process import ServerProcess

TOOLS = '''
import threading
import time
from pathlib import Path

from parley_server.domain.tool import ToolEffect
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict

class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")

class Report(BaseModel):
    user_id: str

@tool(effect=ToolEffect.READ)
def report(context: ToolContext, arguments: Nothing) -> Report:
    """Report."""
    context.progress("half", 0.5)
    time.sleep(0.3)
    return Report(user_id=context.user_id)

@tool(effect=ToolEffect.READ, timeout_s=0.5)
def stick(context: ToolContext, arguments: Nothing) -> Nothing:
    """Stick."""
    threading.Event().wait()
    return arguments
'''
SCRIPT = {
    "rules": [
        {"when": "^report", "tool_calls": [{"name": "report"}]},
        {"when": "^stick", "tool_calls": [{"name": "stick"}]},
        {"after_tool": "*", "text": "Done."},
    ]
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    (tmp_path / "my_tools.py").write_text(TOOLS)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ModelServer(SCRIPT))
        environment = {
            "PYTHONPATH": str(tmp_path),
            "PARLEY_TOOLS__MODULES": "my_tools",
            "PARLEY_TOOLS__DISABLED": "calculator",
            "PARLEY_TOOLS__THREADS": "1",
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
            "PARLEY_MODEL__API_KEY": "sk-test",
        }
        server = ServerProcess(tmp_path / "data", environment=environment)
        await asyncio.to_thread(server.start)
        stack.callback(lambda: server.kill() if server.is_running else None)
        yield server


async def run(channel: grpc.aio.Channel, text: str) -> list[run_event_pb2.RunEvent]:
    stubs = stubs_on(channel)
    started = await stubs.agents.StartRun(agent_service_pb2.StartRunRequest(run=run_spec(text)), timeout=RPC_DEADLINE_S)
    events = await watch(stubs, started.run.run_id)
    check_run(events)
    return events


async def test_an_operators_own_tool_runs_in_a_thread_and_tells_how_far_it_is(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        events = await run(channel, "report")
        kinds = [kind for event in events if (kind := str(event.WhichOneof("event"))).startswith("tool_call")]
        assert kinds == ["tool_call_started", "tool_call_progress", "tool_call_finished"]
        [progress] = [event.tool_call_progress for event in events if event.HasField("tool_call_progress")]
        assert (progress.message, progress.fraction) == ("half", 0.5)
        [agent] = (
            await stubs_on(channel).agents.ListAgents(agent_service_pb2.ListAgentsRequest(), timeout=RPC_DEADLINE_S)
        ).agents
        assert {"report", "stick"} <= set(agent.tool_names)
        assert "calculator" not in agent.tool_names
        messages = await stubs_on(channel).conversations.ListMessages(
            conversation_service_pb2.ListMessagesRequest(conversation_id=events[0].conversation_id),
            timeout=RPC_DEADLINE_S,
        )
        assert "half" not in str(messages)


async def test_a_stuck_thread_keeps_its_place_and_does_not_keep_the_server_from_stopping(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        calls = [
            event.tool_call_finished
            for text in ("stick", "stick")
            for event in await run(channel, text)
            if event.HasField("tool_call_finished")
        ]
    timed_out, error = tool_pb2.TOOL_CALL_STATUS_TIMED_OUT, tool_pb2.TOOL_CALL_STATUS_ERROR
    assert [(call.status, call.error_code) for call in calls] == [(timed_out, "TIMEOUT"), (error, "UNAVAILABLE")]
    assert await asyncio.to_thread(server.stop) == 0


async def test_a_server_whose_tools_cannot_be_had_says_so_and_does_not_start(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "parley_server", "serve", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path)),
        env={"PARLEY_TOOLS__MODULES": "nowhere_to_be_found"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode != 0
    assert b"[tools] modules, nowhere_to_be_found: cannot be imported" in stderr
