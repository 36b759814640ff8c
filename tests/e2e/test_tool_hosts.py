"""Tool hosts in processes of their own, in two languages, called by a real server in users' runs."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import pytest
from clients.node_tools import ROOT, require_node
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, stubs_on, watch
from e2e.test_isolation import keys
from lasting_port import lasting_port
from model_server import ModelServer
from parley.v1 import admin_service_pb2, agent_service_pb2, run_event_pb2, tool_pb2
from parley.v1.request_context_pb2 import RequestContext
from run_history import check_run
from server_process import ServerProcess

TOKEN = "host-token"
GUIDE = ROOT / "docs" / "guides" / "tool-hosts.md"
LATE_HOST = """
import asyncio
import os
import sys

from parley_client.tool_host import Arguments, ToolContext, ToolHost

host = ToolHost()

class Nothing(Arguments):
    pass

class Person(Arguments):
    user_id: str

@host.tool(effect="read")
async def whoami(context: ToolContext, arguments: Person) -> Person:
    '''Tell who asks.'''
    await asyncio.sleep(0.01)
    return Person(user_id=context.user_id)

async def die(context: ToolContext) -> None:
    context.progress("about to die")
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), 9)

@host.tool(effect="read")
async def look(context: ToolContext, arguments: Nothing) -> Nothing:
    '''Look.'''
    await die(context)
    return arguments

@host.tool(effect="write", name="book")
async def book(context: ToolContext, arguments: Nothing) -> Nothing:
    '''Book.'''
    await die(context)
    return arguments

class Nap(Arguments):
    file: str

async def nap(context: ToolContext, arguments: Nap) -> Nothing:
    with open(arguments.file, "a") as file:
        print(context.idempotency_key, file=file)
    await asyncio.sleep(1)
    return Nothing()

@host.tool(effect="idempotent")
async def again(context: ToolContext, arguments: Nap) -> Nothing:
    '''Nap.'''
    return await nap(context, arguments)

@host.tool(effect="write")
async def once(context: ToolContext, arguments: Nap) -> Nothing:
    '''Nap.'''
    return await nap(context, arguments)

@host.tool(effect="read")
async def hang(context: ToolContext, arguments: Nothing) -> Nothing:
    '''Hang.'''
    context.progress("hanging")
    try:
        await asyncio.Event().wait()
    finally:
        open(sys.argv[2], "w").close()
    return arguments

host.run(sys.argv[1], token=os.environ["TOKEN"])
"""
SCRIPT = {
    "rules": [
        {
            "when": "weather in (?P<name>\\w+)",
            "tool_calls": [{"name": "weather_weather", "arguments": {"name": "{name}"}}],
        },
        {"when": "^count", "tool_calls": [{"name": "node_word_count", "arguments": {"text": "one two  three"}}]},
        {"when": "^miscount", "tool_calls": [{"name": "node_word_count", "arguments": {"text": 3}}]},
        {"when": "^whoami", "tool_calls": [{"name": "late_whoami", "arguments": {"user_id": "carl"}}]},
        *(
            {"when": f"^{tool} (?P<file>.+)", "tool_calls": [{"name": f"late_{tool}", "arguments": {"file": "{file}"}}]}
            for tool in ("again", "once")
        ),
        *({"when": f"^{tool}", "tool_calls": [{"name": f"late_{tool}"}]} for tool in ("look", "book", "hang")),
        {"after_tool": "*", "text": "Done."},
    ]
}


@contextmanager
def running(command: Sequence[str | Path], environment: Mapping[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a host for a block."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


@asynccontextmanager
async def serving(folder: Path, **hosts: str) -> AsyncIterator[tuple[ServerProcess, Stubs]]:
    """Run a server that has these hosts, by their addresses."""
    async with ModelServer(SCRIPT) as upstream:
        environment = {
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
        }
        for name, target in hosts.items():
            environment[f"PARLEY_TOOL_HOSTS__{name.upper()}__TARGET"] = target
            environment[f"PARLEY_TOOL_HOSTS__{name.upper()}__TOKEN"] = TOKEN
        server = ServerProcess(folder, environment=environment)
        await asyncio.to_thread(server.start)
        try:
            async with grpc.aio.insecure_channel(server.address) as channel:
                yield server, stubs_on(channel)
        finally:
            server.kill()


async def until_there(stubs: Stubs, name: str) -> None:
    """Wait until agents have a tool."""
    async with asyncio.timeout(30):
        while True:
            told = await stubs.agents.ListAgents(agent_service_pb2.ListAgentsRequest(), timeout=RPC_DEADLINE_S)
            if name in told.agents[0].tool_names:
                return
            await asyncio.sleep(0.05)


async def ask(stubs: Stubs, text: str) -> tuple[list[str], run_event_pb2.ToolCallFinished]:
    """Run; return what the tool said on its way, and what its call came to."""
    events = await run_agent(stubs, run_spec(text))
    check_run(events)
    [finished] = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    return [event.tool_call_progress.message for event in events if event.HasField("tool_call_progress")], finished


async def test_the_guides_host_is_called_in_a_run(tmp_path: Path) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    [program] = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    [settings] = re.findall(r"```toml\n(.*?)```", guide, flags=re.DOTALL)
    assert "127.0.0.1:7070" in program
    assert "127.0.0.1:7070" in settings
    address = f"127.0.0.1:{lasting_port()}"
    (tmp_path / "host.py").write_text(program.replace("127.0.0.1:7070", address))
    command: list[str | Path] = [sys.executable, "-W", "error", tmp_path / "host.py"]
    with running(command, {"WEATHER_TOKEN": TOKEN}) as process:
        async with serving(tmp_path / "data", weather=address) as (_, stubs):
            await until_there(stubs, "weather_weather")
            progress, finished = await ask(stubs, "weather in Bern")
            assert progress == ["asking the station"]
            assert json.loads(finished.result_json) == {"ok": True, "result": {"degrees": 21.5}}
            info = await stubs.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=RPC_DEADLINE_S)
            assert "tool_hosts" in info.features
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


async def test_a_host_in_another_language_is_called_in_a_run(tmp_path: Path) -> None:
    require_node("@grpc/grpc-js", "@grpc/proto-loader")
    host = ROOT / "clients" / "conformance" / "tool_hosts" / "grpc_js.mjs"
    with running(["node", host, ROOT / "protos", "127.0.0.1:0"], {"TOOL_HOST_TOKEN": TOKEN}) as process:
        assert process.stdout is not None
        said = await asyncio.to_thread(process.stdout.readline)
        async with serving(tmp_path, node=said.decode().split()[-1]) as (_, stubs):
            progress, finished = await ask(stubs, "count")
            assert progress == ["counting"]
            [counted] = [json.loads(finished.result_json)["result"]]
            assert counted["words"] == 3
            assert counted["for"]
            _, refused = await ask(stubs, "miscount")
            assert refused.status == tool_pb2.TOOL_CALL_STATUS_INVALID_ARGUMENTS
            assert json.loads(refused.result_json)["error"]["fields"] == [{"path": "text", "problem": "must be a text"}]


async def test_a_host_that_comes_late_dies_at_work_and_comes_again(tmp_path: Path) -> None:
    address = f"127.0.0.1:{lasting_port()}"
    (tmp_path / "host.py").write_text(LATE_HOST)
    command: list[str | Path] = [sys.executable, tmp_path / "host.py", address, str(tmp_path / "ended")]
    unknown, error = tool_pb2.TOOL_CALL_STATUS_UNKNOWN_OUTCOME, tool_pb2.TOOL_CALL_STATUS_ERROR
    async with serving(tmp_path / "data", late=address) as (server, stubs):
        for tool, status in (("look", error), ("book", unknown)):
            with running(command, {"TOKEN": TOKEN}):
                await until_there(stubs, "late_look")
                progress, finished = await ask_until_reached(stubs, tool)
                assert progress == ["about to die"]
                assert (finished.status, finished.error_code) == (
                    status,
                    "UNAVAILABLE" if status == error else "UNKNOWN_OUTCOME",
                )
        with running(command, {"TOKEN": TOKEN}):
            await cancel_at_work(stubs)
            await ask_as_two_users(server, stubs)
            async with asyncio.timeout(10):
                while not (tmp_path / "ended").exists():  # noqa: ASYNC110  # another process
                    await asyncio.sleep(0.02)


@pytest.mark.soak
@pytest.mark.parametrize("tool", ["again", "once"])
async def test_a_server_killed_while_a_host_works_repeats_only_what_it_may(tmp_path: Path, tool: str) -> None:
    address, marks = f"127.0.0.1:{lasting_port()}", tmp_path / "marks"
    (tmp_path / "host.py").write_text(LATE_HOST)
    command: list[str | Path] = [sys.executable, tmp_path / "host.py", address]
    with running(command, {"TOKEN": TOKEN}):
        async with serving(tmp_path / "data", late=address) as (server, stubs):
            await until_there(stubs, "late_once")
            request = agent_service_pb2.StartRunRequest(run=run_spec(f"{tool} {marks}"))
            started = await stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)
            async with asyncio.timeout(20):
                while not marks.exists():  # noqa: ASYNC110  # another process
                    await asyncio.sleep(0.02)
            server.kill()
            await asyncio.to_thread(server.start)
            async with grpc.aio.insecure_channel(server.address) as channel:
                events = await watch(stubs_on(channel), started.run.run_id)
    check_run(events)
    [finished] = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    keys_told = marks.read_text().split()
    if tool == "again":
        assert finished.status == tool_pb2.TOOL_CALL_STATUS_OK
        assert len(keys_told) == 2
        assert len(set(keys_told)) == 1
    else:
        assert finished.status == tool_pb2.TOOL_CALL_STATUS_UNKNOWN_OUTCOME
        assert len(keys_told) == 1


async def ask_as_two_users(server: ServerProcess, stubs: Stubs) -> None:
    """Ask for two users at once, again and again, who they are; their model says somebody else."""
    key = await asyncio.to_thread(keys, server, "create", "--service", "bridge", "--act-as", "*")

    async def ask_as(user_id: str) -> None:
        metadata = (
            ("authorization", f"Bearer {key}"),
            ("parley-context-bin", RequestContext(user_id=user_id).SerializeToString()),
        )
        request = agent_service_pb2.RunAgentRequest(run=run_spec("whoami"))
        call = stubs.agents.RunAgent(request, timeout=RPC_DEADLINE_S, metadata=metadata)
        told = [response.event.tool_call_finished.result_json async for response in call]
        assert [text for text in told if text] == [f'{{"ok":true,"result":{{"user_id":"{user_id}"}}}}']

    await asyncio.gather(*(ask_as(("ann", "ben")[number % 2]) for number in range(20)))


async def ask_until_reached(stubs: Stubs, text: str) -> tuple[list[str], run_event_pb2.ToolCallFinished]:
    """Ask until the host, which may have started only now, has begun to work."""
    async with asyncio.timeout(30):
        while not (told := await ask(stubs, text))[0]:
            assert told[1].error_code == "UNAVAILABLE"
            await asyncio.sleep(0.1)
    return told


async def cancel_at_work(stubs: Stubs) -> None:
    """Cancel a run once its tool has told that it is at work; start over while the host is not there yet."""
    while True:
        call = stubs.agents.RunAgent(agent_service_pb2.RunAgentRequest(run=run_spec("hang")), timeout=RPC_DEADLINE_S)
        async for response in call:
            if response.event.HasField("tool_call_progress"):
                request = agent_service_pb2.CancelRunRequest(run_id=response.event.run_id)
                await stubs.agents.CancelRun(request, timeout=RPC_DEADLINE_S)
                return
        await asyncio.sleep(0.1)
