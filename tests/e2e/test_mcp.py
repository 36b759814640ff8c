"""An MCP server's tools in a real server: called for users, withheld when they change, accepted by the command line."""

import asyncio
import getpass
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_spec, stubs_on, watch
from model_server import ModelServer
from nursery import ran
from parley.v1 import agent_service_pb2, run_event_pb2, tool_pb2
from parley_server.tools.credentials.directory import CredentialDirectory
from pydantic import SecretStr
from run_history import check_run
from server_process import ServerProcess
from unit.tools.mcp_servers.mcp_world import RAW_SERVER, is_alive, until

CALLS = ("env", "progress", "hang", "echo", "change")
SCRIPT = {
    "rules": [
        *({"when": f"^{name}", "tool_calls": [{"name": f"raw_{name}"}]} for name in CALLS),
        {"after_tool": "*", "text": "Done."},
    ]
}
OK, ERROR = tool_pb2.TOOL_CALL_STATUS_OK, tool_pb2.TOOL_CALL_STATUS_ERROR


@dataclass(frozen=True)
class Running:
    """A server with the raw MCP server's tools; `folder` is the latter's."""

    server: ServerProcess
    stubs: Stubs
    folder: Path

    async def start(self, name: str) -> str:
        """Begin a run whose model calls a tool; return its id."""
        request = agent_service_pb2.StartRunRequest(run=run_spec(name))
        return (await self.stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run.run_id

    async def call(self, name: str) -> tuple[list[str], run_event_pb2.ToolCallFinished]:
        """Let the model call a tool; return what was told of its progress, and its end."""
        events = await watch(self.stubs, await self.start(name))
        check_run(events)
        told = [event.tool_call_progress.message for event in events if event.HasField("tool_call_progress")]
        [finished] = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
        return told, finished

    async def until_offered(self, tool: str, *, is_offered: bool) -> None:
        """Wait until the agent has a tool, or has it no more."""
        request = agent_service_pb2.ListAgentsRequest()
        async with asyncio.timeout(RPC_DEADLINE_S):
            # The server looks for what the command line has accepted every now and then.
            while (tool in (await self.stubs.agents.ListAgents(request)).agents[0].tool_names) != is_offered:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    def command(self, *arguments: str) -> str:
        """Run `parley-server` on the server's data; return what it prints."""
        line = [sys.executable, "-m", "parley_server", *arguments, "--data-dir", str(self.server.data_dir)]
        done = ran(line, self.server.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def give_credential(self) -> None:
        """Store what the MCP server wants of the user of the tests."""
        CredentialDirectory(self.server.data_dir / "credentials").put(
            getpass.getuser(), "github", SecretStr("token-of-the-user")
        )

    def programs(self) -> list[int]:
        """Return the programs of the MCP server that run."""
        lines = (self.folder / "given_to_server.txt").read_text().splitlines()
        started = [int(line.removeprefix("started ")) for line in lines if line.startswith("started ")]
        return [pid for pid in started if is_alive(pid)]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ModelServer(SCRIPT))
        environment = {
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
            "PARLEY_MODEL__API_KEY": "sk-test",
            "PARLEY_MCP__RAW__COMMAND": sys.executable,
            "PARLEY_MCP__RAW__ARGS": f"{RAW_SERVER}, {tmp_path}",
            "PARLEY_MCP__RAW__USER_ENV": "TOKEN={github}",
            "PARLEY_MCP__RAW__EFFECT": "read",
            "PARLEY_MCP__RAW__EFFECTS": "hang=write",
            "PARLEY_MCP__RAW__APPROVAL": "never",
        }
        server = ServerProcess(tmp_path / "data", environment=environment)
        await asyncio.to_thread(server.start)
        stack.callback(lambda: server.kill() if server.is_running else None)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        yield Running(server, stubs_on(channel), tmp_path)


async def test_its_tools_are_called_for_users_and_withheld_when_they_change(running: Running) -> None:
    _, missing = await running.call("env")
    assert (missing.status, missing.error_code) == (ERROR, "CREDENTIAL_MISSING")
    running.give_credential()
    _, seen = await running.call("env")
    assert seen.status == OK
    environment = json.loads(json.loads(seen.result_json)["result"]["text"])["environment"]
    assert "TOKEN" in environment
    assert "token-of-the-user" not in seen.result_json
    assert not {name for name in environment if name.startswith(("PARLEY_", "OPENAI_"))}
    told, _ = await running.call("progress")
    assert told
    assert set(told) <= {"step 1", "step 2"}

    assert (await running.call("change"))[1].status == OK
    await running.until_offered("raw_echo", is_offered=False)
    shown = await asyncio.to_thread(running.command, "mcp", "pin", "raw", "--yes")
    assert "changed: echo (read)" in shown
    assert "+ Sends all to me." in shown
    await running.until_offered("raw_echo", is_offered=True)
    assert (await running.call("echo"))[1].status == OK

    await check_a_crash(running)


async def check_a_crash(running: Running) -> None:
    """No program outlives its server, and what was accepted is there after a restart though the program is not."""
    run_id = await running.start("hang")
    await until(lambda: "hanging" in (running.folder / "given_to_server.txt").read_text())
    assert running.programs()
    running.server.kill()
    await until(lambda: not running.programs())
    running.server.environment["PARLEY_MCP__RAW__COMMAND"] = "/nowhere/to/be/found"
    await asyncio.to_thread(running.server.start)
    events = await watch(running.stubs, run_id)
    [finished] = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert finished.status == tool_pb2.TOOL_CALL_STATUS_UNKNOWN_OUTCOME
    await running.until_offered("raw_echo", is_offered=True)
    assert (await running.call("echo"))[1].error_code == "UNAVAILABLE"
    assert await asyncio.to_thread(running.server.stop) == 0
    assert os.listdir(running.server.data_dir / "mcp") == ["raw.json"]
