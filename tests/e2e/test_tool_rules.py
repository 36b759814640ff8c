"""The rules of tool calls on a real server: whose a call is, who may make it, and what a cancel leaves behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, stubs_on
from e2e.test_isolation import Caller, caller, keys
from model_server import DONE, ModelServer, RawAnswer, delta_frame, finish_frame
from parley.v1 import agent_service_pb2, run_event_pb2, run_pb2, tool_pb2
from run_history import check_run
from server_process import ServerProcess

TOOLS = '''
import asyncio

from parley_server.domain.tool import ToolEffect
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict

class Claim(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int
    user_id: str

class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")

class Whose(BaseModel):
    user_id: str
    actor: str

@tool(effect=ToolEffect.READ)
async def whose(context: ToolContext, arguments: Claim) -> Whose:
    """Tell whose call it is."""
    await asyncio.sleep(0.001 * (arguments.n % 3))
    return Whose(user_id=context.user_id, actor=context.actor)

@tool(effect=ToolEffect.READ, per_user_concurrency=1)
async def hold(context: ToolContext, arguments: Nothing) -> Nothing:
    """Hold on."""
    context.progress("holding")
    await asyncio.Event().wait()
    return arguments

@tool(effect=ToolEffect.READ, required_scopes=frozenset({"tool:refunds"}))
async def refund(context: ToolContext, arguments: Nothing) -> Nothing:
    """Refund."""
    return arguments
'''
CALLS_PER_TURN = 8
CLAIMS = [{"name": "whose", "arguments": {"n": n, "user_id": "eve"}} for n in range(9)]
SCRIPT = {
    "rules": [
        {"when": "^whose", "tool_calls": CLAIMS},
        {"when": "^hold", "tool_calls": [{"name": "hold"}]},
        {"after_tool": "*", "text": "Done."},
        {"text": "Hello."},
    ]
}
# What a model says that calls a tool it was not offered.
A_REFUND = [
    delta_frame(tool_calls=[{"index": 0, "id": "c", "function": {"name": "refund", "arguments": "{}"}}]),
    finish_frame("tool_calls"),
    DONE,
]


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[ModelServer]:
    async with ModelServer(SCRIPT) as serving:
        yield serving


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, upstream: ModelServer) -> AsyncIterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("rules")
    (folder / "ruled_tools.py").write_text(TOOLS)
    environment = {
        "PYTHONPATH": str(folder),
        "PARLEY_TOOLS__MODULES": "ruled_tools",
        "PARLEY_TOOLS__CALLS_PER_TURN": str(CALLS_PER_TURN),
        "PARLEY_MODEL__BASE_URL": upstream.base_url,
        "PARLEY_MODEL__NAME": "scripted",
        "PARLEY_MODEL__API_KEY": "sk-test",
    }
    running = ServerProcess(folder / "data", environment=environment)
    await asyncio.to_thread(running.start)
    yield running
    running.kill()


@pytest.fixture(scope="module")
async def service_key(server: ServerProcess) -> str:
    return await asyncio.to_thread(keys, server, "create", "--service", "web", "--act-as", "*")


@pytest.fixture(scope="module")
async def channel(server: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(grpc.aio.insecure_channel(server.address))


def answers(events: Sequence[run_event_pb2.RunEvent]) -> list[run_event_pb2.ToolCallFinished]:
    return [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]


async def test_calls_of_two_users_at_once_are_each_users_own_whatever_the_model_says(
    channel: grpc.aio.Channel, service_key: str
) -> None:
    async def run(number: int) -> None:
        user_id = ("ann", "bob")[number % 2]
        ann_or_bob = caller(stubs_on(channel), service_key, user_id)
        events = await ann_or_bob.watch((await ann_or_bob.start(f"whose {number}")).run_id)
        check_run(events)
        *told, beyond = sorted(answers(events), key=lambda answer: answer.status)
        assert beyond.status == tool_pb2.TOOL_CALL_STATUS_TOO_MANY_CALLS
        results = [json.loads(answer.result_json)["result"] for answer in told]
        assert results == [{"user_id": user_id, "actor": "service:web"}] * CALLS_PER_TURN

    await asyncio.gather(*(run(number) for number in range(20)))


async def test_a_cancel_gives_the_tools_place_back_and_leaves_a_history_that_the_model_takes(
    channel: grpc.aio.Channel, upstream: ModelServer
) -> None:
    ann = Caller(stubs_on(channel), ())
    conversation_id = ""
    for _ in range(3):
        run = await ann.start("hold", conversation_id)
        conversation_id = run.conversation_id
        # It is under way, so the place of the one before is free.
        await until(ann, run.run_id, "tool_call_progress")
        await ann.cancel(run.run_id)
        events = await ann.watch(run.run_id)
        check_run(events)
        assert events[-1].run_finished.state == run_pb2.RUN_STATE_CANCELLED
        assert [each.status for each in answers(events)] == [tool_pb2.TOOL_CALL_STATUS_CANCELLED]
    run = await ann.start("hello", conversation_id)
    events = await ann.watch(run.run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    assert not any(event.HasField("warning") for event in events)
    assert results_missing(upstream.requests[-1].body["messages"]) == []


async def until(who: Caller, run_id: str, kind: str) -> None:
    """Watch a run to the first event of a kind."""
    call = who.stubs.agents.WatchRun(agent_service_pb2.WatchRunRequest(run_id=run_id), timeout=RPC_DEADLINE_S)
    async for response in call:
        if response.event.WhichOneof("event") == kind:
            return


async def test_a_tool_is_for_those_who_have_its_scope(
    channel: grpc.aio.Channel, service_key: str, upstream: ModelServer
) -> None:
    service, local = caller(stubs_on(channel), service_key, "ann"), Caller(stubs_on(channel), ())
    for who, status in ((service, tool_pb2.TOOL_CALL_STATUS_DENIED), (local, tool_pb2.TOOL_CALL_STATUS_OK)):
        upstream.enqueue(RawAnswer(A_REFUND))
        events = await who.watch((await who.start("refund")).run_id)
        check_run(events)
        is_allowed = status == tool_pb2.TOOL_CALL_STATUS_OK
        [answer] = answers(events)
        assert (answer.status, answer.error_code) == (status, "" if is_allowed else "PERMISSION_DENIED")
        offered = {tool["function"]["name"] for tool in upstream.requests[-1].body["tools"]}
        assert ("refund" in offered) == is_allowed


def results_missing(messages: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the calls that are not followed by exactly their result."""
    missing: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            missing.remove(str(message["tool_call_id"]))
        else:
            assert not missing
            calls = message.get("tool_calls") or []
            assert isinstance(calls, list)
            missing = [call["id"] for call in calls]
    return missing
