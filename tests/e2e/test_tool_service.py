"""ToolService over the wire: what there is to call, what was called, large results, calls in doubt, credentials."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_spec, stubs_on, watch
from e2e.test_runs import reason_of
from model_server import ModelServer
from parley.v1 import (
    admin_service_pb2,
    agent_service_pb2,
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    conversation_service_pb2,
    run_event_pb2,
    tool_pb2,
    tool_service_pb2_grpc,
)
from parley.v1 import tool_service_pb2 as pb
from rpc.chassis import bearer, failure_of
from server_process import ServerProcess

SECRET = "s3cr3t-of-the-user"
TOOLS = '''
import os
import signal

from parley_server.domain.tool import ToolEffect
from parley_server.tools.errors import ToolError
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict

class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")

class Lines(BaseModel):
    lines: list[str]

@tool(effect=ToolEffect.READ)
async def much(context: ToolContext, arguments: Nothing) -> Lines:
    """Say much."""
    return Lines(lines=[f"line {n} of many" for n in range(5_000)])

@tool(effect=ToolEffect.WRITE, required_scopes=frozenset({"tool:money"}))
async def charge(context: ToolContext, arguments: Nothing) -> Nothing:
    """Charge, and take the server down."""
    os.kill(os.getpid(), signal.SIGKILL)
    return arguments

@tool(effect=ToolEffect.READ, credential_slots=("vault",))
async def unlock(context: ToolContext, arguments: Nothing) -> Lines:
    """Tell what should not be told."""
    secret = (await context.credential("vault")).get_secret_value()
    context.progress(f"with {secret}")
    return Lines(lines=[secret, str(len(secret))])

@tool(effect=ToolEffect.READ, credential_slots=("vault",))
def fail_to_unlock(context: ToolContext, arguments: Nothing) -> Lines:
    """Tell it in an error."""
    raise ToolError("locked", "not opened by " + context.wait_for_credential("vault").get_secret_value())
'''
SCRIPT = {
    "rules": [
        {
            "after_tool": "much",
            "tool_calls": [
                {"name": "read_result", "arguments": {"result_id": "{tool_result.result_id}", "search": "line 4999"}}
            ],
        },
        {"after_tool": "*", "text": "Done."},
        *(
            {"when": f"^{name}$", "tool_calls": [{"name": name}]}
            for name in ("much", "charge", "unlock", "fail_to_unlock")
        ),
        {
            "when": r"^peek (?P<id>\w+)$",
            "tool_calls": [{"name": "read_result", "arguments": {"result_id": "{id}"}}],
        },
        {"text": "Hello."},
    ]
}


@dataclass
class Served:
    """A server with these tools, its model, and the stubs of its operator's own user."""

    process: ServerProcess
    upstream: ModelServer
    channel: grpc.aio.Channel

    @property
    def stubs(self) -> Stubs:
        return stubs_on(self.channel)

    @property
    def tools(self) -> "tool_service_pb2_grpc.ToolServiceAsyncStub":
        return tool_service_pb2_grpc.ToolServiceStub(self.channel)

    async def start(self, text: str, conversation_id: str = "") -> str:
        request = agent_service_pb2.StartRunRequest(run=run_spec(text, conversation_id))
        return (await self.stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run.run_id

    async def run(self, text: str, conversation_id: str = "") -> list[run_event_pb2.RunEvent]:
        return await watch(self.stubs, await self.start(text, conversation_id))

    async def calls(self, **call_filter: object) -> list[tool_pb2.ToolCall]:
        request = pb.ListToolCallsRequest(**call_filter)  # type: ignore[arg-type]  # as the message has it
        return list((await self.tools.ListToolCalls(request, timeout=RPC_DEADLINE_S)).tool_calls)


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    # Where the server runs, so that they are imported without more ado.
    data_dir = tmp_path_factory.mktemp("data")
    (data_dir / "my_tools.py").write_text(TOOLS)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ModelServer(SCRIPT))
        environment = {
            "PARLEY_TOOLS__MODULES": "my_tools",
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
            "PARLEY_MODEL__API_KEY": "sk-test",
            "PARLEY_CREDENTIALS__SHARED": "weather=env:WEATHER_KEY",
        }
        process = ServerProcess(data_dir, environment=environment)
        await asyncio.to_thread(process.start)
        stack.callback(lambda: process.kill() if process.is_running else None)
        options = [("grpc.max_reconnect_backoff_ms", 200)]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(process.address, options=options))
        yield Served(process, upstream, channel)


def finished(events: list[run_event_pb2.RunEvent], name: str) -> run_event_pb2.ToolCallFinished:
    [call] = [
        e.tool_call_finished for e in events if e.HasField("tool_call_finished") and e.tool_call_finished.name == name
    ]
    return call


def store_credential(served: Served, user_id: str, slot: str, secret: str) -> None:
    """Run `parley-server credentials set` beside the running server."""
    command = [sys.executable, "-m", "parley_server", "credentials", "set", "--user", user_id, "--slot", slot]
    command += ["--data-dir", str(served.process.data_dir)]
    subprocess.run(command, input=f"{secret}\n", text=True, check=True)


async def test_tools_are_listed_as_their_callers_may_use_them(served: Served) -> None:
    tools: dict[str, tool_pb2.Tool] = {}
    request = pb.ListToolsRequest(page_size=2)
    while True:
        page = await served.tools.ListTools(request, timeout=RPC_DEADLINE_S)
        assert len(page.tools) <= 2
        tools |= {tool.name: tool for tool in page.tools}
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert list(tools) == sorted(tools)
    assert {"calculator", "much", "read_result", "remember"} <= tools.keys()
    charge, unlock = tools["charge"], tools["unlock"]
    assert (charge.effect, list(charge.required_scopes)) == (tool_pb2.TOOL_EFFECT_WRITE, ["tool:money"])
    assert (list(unlock.credential_slots), unlock.source, unlock.allowed) == (["vault"], "server", True)
    assert (list(unlock.agent_ids), unlock.timeout.seconds, len(unlock.spec_hash)) == (["assistant"], 30, 64)
    assert json.loads(unlock.input_schema_json)["type"] == "object"
    assert charge.allowed
    wanted = api_key_service_pb2.CreateApiKeyRequest(user_id="ann", scopes=["agents:read"])
    keys: api_key_service_pb2_grpc.ApiKeyServiceAsyncStub = api_key_service_pb2_grpc.ApiKeyServiceStub(served.channel)
    key = bearer((await keys.CreateApiKey(wanted, timeout=RPC_DEADLINE_S)).secret)
    told = await served.tools.ListTools(pb.ListToolsRequest(agent_id="assistant"), metadata=key, timeout=RPC_DEADLINE_S)
    assert {tool.name for tool in told.tools if not tool.allowed} == {"charge"}
    with pytest.raises(grpc.aio.AioRpcError) as absent:
        await served.tools.ListTools(pb.ListToolsRequest(agent_id="nobody"), timeout=RPC_DEADLINE_S)
    assert reason_of(absent.value) == "RESOURCE_NOT_FOUND"
    info = await served.stubs.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=RPC_DEADLINE_S)
    assert "tool_calls" in info.features


async def test_a_large_result_is_there_for_the_model_and_for_the_client(served: Served) -> None:
    events = await served.run("much")
    told, found = finished(events, "much"), finished(events, "read_result")
    assert told.truncated
    assert json.loads(told.result_json)["result_id"] == told.result_id
    [match] = json.loads(found.result_json)["result"]["matches"]
    assert "line 4999 of many" in match["text"]
    whole = b""
    while True:
        piece = await served.tools.GetToolResult(
            pb.GetToolResultRequest(result_id=told.result_id, offset=len(whole), max_bytes=30_000),
            timeout=RPC_DEADLINE_S,
        )
        whole += piece.content
        if len(piece.content) < 30_000:
            break
    assert len(whole) == piece.total_bytes
    assert json.loads(whole)["lines"][-1] == "line 4999 of many"
    assert whole.decode()[match["offset"] :].startswith("line 4999 of many")
    [read, much] = await served.calls(run_id=events[0].run_id)
    assert (much.name, much.result_id, much.truncated, much.result_json) == (
        "much",
        told.result_id,
        True,
        told.result_json,
    )
    assert (read.name, read.status, read.result_id) == ("read_result", tool_pb2.TOOL_CALL_STATUS_OK, "")
    with pytest.raises(grpc.aio.AioRpcError) as beyond:
        await served.tools.GetToolResult(
            pb.GetToolResultRequest(result_id=told.result_id, offset=len(whole) + 1), timeout=RPC_DEADLINE_S
        )
    assert failure_of(beyond.value).reason == "INVALID_REQUEST"


async def test_a_model_reads_no_result_of_another_conversation(served: Served) -> None:
    first = await served.run("much")
    result_id = finished(first, "much").result_id
    inside = finished(await served.run(f"peek {result_id}", first[0].conversation_id), "read_result")
    assert json.loads(inside.result_json)["result"]["text"].startswith('{\n"lines": [')
    outside, absent = [finished(await served.run(f"peek {id_}"), "read_result") for id_ in (result_id, "result_0")]
    assert outside.error_code == "UNKNOWN_RESULT"
    assert outside.result_json == absent.result_json


async def test_a_result_is_exported_whole(served: Served) -> None:
    events = await served.run("much")
    request = conversation_service_pb2.ExportConversationRequest(conversation_id=events[0].conversation_id)
    call = served.stubs.conversations.ExportConversation(request, timeout=RPC_DEADLINE_S)
    lines = [json.loads(line) for text in [each.json_lines async for each in call] for line in text.splitlines()]
    pieces = [line["toolResult"] for line in lines if "toolResult" in line]
    assert {piece["resultId"] for piece in pieces} == {finished(events, "much").result_id}
    assert json.loads("".join(piece["text"] for piece in pieces))["lines"][0] == "line 0 of many"


async def test_a_call_in_doubt_is_settled_and_the_model_is_told(served: Served) -> None:
    run_id = await served.start("charge")
    assert await asyncio.to_thread(served.process.wait) == -signal.SIGKILL
    await asyncio.to_thread(served.process.start)
    conversation_id = (await watch(served.stubs, run_id))[0].conversation_id
    [doubt] = await served.calls(unresolved=True)
    assert (doubt.run_id, doubt.name, doubt.status) == (run_id, "charge", tool_pb2.TOOL_CALL_STATUS_UNKNOWN_OUTCOME)
    assert doubt.arguments_json == "{}"
    happened = pb.ResolveToolCallRequest(
        run_id=run_id, call_id=doubt.call_id, outcome=tool_pb2.TOOL_CALL_OUTCOME_HAPPENED, note="it is on my bill"
    )
    settled = (await served.tools.ResolveToolCall(happened, timeout=RPC_DEADLINE_S)).tool_call
    assert settled.resolution.note == "it is on my bill"
    assert settled.resolution.WhichOneof("actor") == "user_id"
    assert (await served.tools.ResolveToolCall(happened, timeout=RPC_DEADLINE_S)).tool_call == settled
    await served.run("hello", conversation_id)
    [answer] = [each for each in served.upstream.requests[-1].body["messages"] if each["role"] == "tool"]
    told = json.loads(answer["content"])
    assert told["error"]["code"] == "unknown_outcome"
    assert told["resolved"] == {"outcome": "happened", "said_by": "user", "note": "it is on my bill"}
    assert await served.calls(unresolved=True) == []


async def test_what_is_settled_or_never_was_in_doubt_is_not_settled_again(served: Served) -> None:
    [doubt] = await served.calls(statuses=[tool_pb2.TOOL_CALL_STATUS_UNKNOWN_OUTCOME])
    known = (await served.calls(statuses=[tool_pb2.TOOL_CALL_STATUS_OK]))[0]
    for call, reason in ((doubt, "TOOL_CALL_RESOLVED"), (known, "TOOL_CALL_NOT_IN_DOUBT")):
        request = pb.ResolveToolCallRequest(
            run_id=call.run_id, call_id=call.call_id, outcome=tool_pb2.TOOL_CALL_OUTCOME_DID_NOT_HAPPEN
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.tools.ResolveToolCall(request, timeout=RPC_DEADLINE_S)
        assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.FAILED_PRECONDITION, reason)


async def test_a_users_secret_reaches_the_tool_and_nobody_else(served: Served) -> None:
    missing = finished(await served.run("unlock"), "unlock")
    assert missing.error_code == "CREDENTIAL_MISSING"
    command = json.loads(missing.result_json)["error"]["hint"].partition("`")[2].split()
    name = command[command.index("--user") + 1]
    store_credential(served, name, "vault", SECRET)
    events = await served.run("unlock")
    assert json.loads(finished(events, "unlock").result_json)["result"]["lines"] == ["[secret]", str(len(SECRET))]
    failed = finished(await served.run("fail_to_unlock"), "fail_to_unlock")
    assert failed.error_message == "not opened by [secret]"
    assert not any(SECRET in str(event) for event in events)
    assert not any(SECRET in json.dumps(each.body) for each in served.upstream.requests)
    assert SECRET not in served.process.log
    assert not any(SECRET.encode() in file.read_bytes() for file in served.process.data_dir.glob("parley.db*"))
    [file] = (served.process.data_dir / "credentials").glob("*/vault")
    file.unlink()
    assert finished(await served.run("unlock"), "unlock").error_code == "CREDENTIAL_MISSING"
