"""Tool hosts that want proof of whom they work for, and call back the server that calls them, for that user alone."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, run_spec, stubs_on
from model_server import ModelServer
from nursery import ran
from parley.v1 import agent_service_pb2, api_key_service_pb2, api_key_service_pb2_grpc, run_event_pb2, tool_pb2
from parley.v1.request_context_pb2 import RequestContext
from parley_client.tool_host import Arguments, DelegationKeys, ToolContext, ToolHost
from pydantic import BaseModel
from rpc.chassis import Metadata, bearer, failure_of
from server_process import ServerProcess

SCRIPT = {
    "rules": [
        *({"when": f"^{host}", "tool_calls": [{"name": f"{host}_back"}]} for host in ("open", "plain", "other")),
        {"after_tool": "*", "text": "That is all."},
    ]
}
HASH_KEY = "a long random text of this test and no other"


class Nothing(Arguments):
    """No arguments."""


class Told(BaseModel):
    """What a host learns, and what it may do where it was called from."""

    user_id: str
    actors: list[str]
    scopes: list[str]
    own_runs: int
    start: str
    echo: str


@dataclass
class Back:
    """A host's way back to the server that calls it."""

    address: str = ""
    tokens: list[str] = field(default_factory=list)

    async def call(self, context: ToolContext) -> Told:
        proved = context.delegation
        assert proved is not None
        self.tokens.append(context.delegation_token)
        metadata = bearer(context.delegation_token)
        async with grpc.aio.insecure_channel(self.address) as channel:
            agents = stubs_on(channel).agents
            try:
                listed = await agents.ListRuns(
                    agent_service_pb2.ListRunsRequest(), metadata=metadata, timeout=RPC_DEADLINE_S
                )
                own_runs = len(listed.runs)
            except grpc.aio.AioRpcError as error:
                own_runs = -1 if failure_of(error).reason == "CREDENTIALS_INVALID" else -2
            request = agent_service_pb2.StartRunRequest(run=run_spec("open"))
            try:
                await agents.StartRun(request, metadata=metadata, timeout=RPC_DEADLINE_S)
                start = "OK"
            except grpc.aio.AioRpcError as error:
                start = failure_of(error).reason
        return Told(
            user_id=proved.user_id,
            actors=list(proved.actors),
            scopes=sorted(proved.scopes),
            own_runs=own_runs,
            start=start,
            echo=f"my token is {context.delegation_token}",
        )


def host_of(back: Back) -> ToolHost:
    host = ToolHost()

    @host.tool(effect="read", name="back")
    async def call_back(context: ToolContext, arguments: Nothing) -> Told:  # noqa: ARG001
        """Call back."""
        return await back.call(context)

    return host


@dataclass(frozen=True)
class Hosted:
    """A server with hosts: one that may read and begin runs, one that may do nothing, one that has a wrong name."""

    server: ServerProcess
    channel: grpc.aio.Channel
    back: Back

    async def ask(self, host: str, metadata: Metadata = ()) -> run_event_pb2.ToolCallFinished:
        request = agent_service_pb2.RunAgentRequest(run=run_spec(host))
        call = stubs_on(self.channel).agents.RunAgent(request, metadata=metadata, timeout=RPC_DEADLINE_S)
        events = [response.event async for response in call]
        [finished] = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
        return finished

    async def told(self, host: str, metadata: Metadata = ()) -> dict[str, object]:
        finished = await self.ask(host, metadata)
        assert finished.status == tool_pb2.TOOL_CALL_STATUS_OK, finished
        result: dict[str, object] = json.loads(finished.result_json)["result"]
        return result


@pytest.fixture(scope="module")
async def hosted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hosted]:
    folder, back = tmp_path_factory.mktemp("hosts"), Back()
    shown = ran(
        [sys.executable, "-m", "parley_server", "keys", "public", "--data-dir", str(folder)],
        {"PARLEY_AUTH__HASH_KEY": HASH_KEY},
        folder,
    )
    assert shown.returncode == 0, shown.stderr
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ModelServer(SCRIPT))
        environment = {
            "PARLEY_AUTH__HASH_KEY": HASH_KEY,
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
            "PARLEY_TOOL_HOSTS__OPEN__DELEGATE_SCOPES": "runs:read,runs:write",
        }
        for name, called in (("OPEN", "open"), ("PLAIN", "plain"), ("OTHER", "somebody")):
            serving = host_of(back).serving("127.0.0.1:0", keys=DelegationKeys(called, shown.stdout))
            environment[f"PARLEY_TOOL_HOSTS__{name}__TARGET"] = await stack.enter_async_context(serving)
        server = ServerProcess(folder, environment=environment)
        await asyncio.to_thread(server.start)
        stack.callback(server.kill)
        back.address = server.address
        yield Hosted(server, await stack.enter_async_context(grpc.aio.insecure_channel(server.address)), back)


async def service(hosted: Hosted, user_id: str, *scopes: str) -> Metadata:
    """Make a key of a service that acts for this user; return what it sends."""
    stub: api_key_service_pb2_grpc.ApiKeyServiceAsyncStub = api_key_service_pb2_grpc.ApiKeyServiceStub(hosted.channel)
    request = api_key_service_pb2.CreateApiKeyRequest(service_id="web", act_as=[user_id], scopes=scopes)
    made = await stub.CreateApiKey(request, timeout=RPC_DEADLINE_S)
    return (*bearer(made.secret), ("parley-context-bin", RequestContext(user_id=user_id).SerializeToString()))


async def test_a_host_knows_whom_it_works_for_and_acts_for_him_as_far_as_it_may(hosted: Hosted) -> None:
    web = await service(hosted, "tg:1", "runs:read", "runs:write")
    told = await hosted.told("open", web)
    assert (told["user_id"], told["own_runs"], told["start"]) == ("tg:1", 1, "OK")
    assert told["actors"] == ["service:host:open", "service:web"]
    assert told["scopes"] == ["runs:read", "runs:write"]
    # Of the run that it has begun in his name he sees the end; a host that calls itself does not go on for ever.
    runs = await stubs_on(hosted.channel).agents.ListRuns(
        agent_service_pb2.ListRunsRequest(), metadata=web, timeout=RPC_DEADLINE_S
    )
    assert len(runs.runs) >= 2
    async with asyncio.timeout(20):
        while any(not run.HasField("finish_time") for run in runs.runs) or len(runs.runs) < 4:
            await asyncio.sleep(0.05)
            runs = await stubs_on(hosted.channel).agents.ListRuns(
                agent_service_pb2.ListRunsRequest(), metadata=web, timeout=RPC_DEADLINE_S
            )
    assert len(runs.runs) == 4


async def test_a_host_gets_no_scope_that_its_runs_caller_lacks(hosted: Hosted) -> None:
    """A run has to be written, so `runs:read` is what can be missing."""
    web = await service(hosted, "tg:2", "runs:write", "agents:read")
    told = await hosted.told("open", web)
    assert (told["scopes"], told["own_runs"]) == (["runs:write"], -2)


async def test_a_host_without_scopes_has_a_proof_that_opens_nothing(hosted: Hosted) -> None:
    told = await hosted.told("plain", await service(hosted, "tg:3"))
    assert (told["user_id"], told["scopes"]) == ("tg:3", [])
    assert (told["own_runs"], told["start"]) == (-1, "CREDENTIALS_INVALID")


async def test_a_hosts_token_is_no_proof_to_another(hosted: Hosted) -> None:
    finished = await hosted.ask("other", await service(hosted, "tg:4"))
    assert finished.status == tool_pb2.TOOL_CALL_STATUS_ERROR
    assert "eyJ" not in finished.result_json


async def test_a_hosts_token_makes_no_key_and_no_token_beyond_it(hosted: Hosted) -> None:
    await hosted.told("open")
    metadata = bearer(hosted.back.tokens[-1])
    request = api_key_service_pb2.CreateApiKeyRequest(user_id="tg:5")
    create: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = hosted.channel.unary_unary(
        "/parley.v1.ApiKeyService/CreateApiKey"
    )
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await create(request.SerializeToString(), metadata=grpc.aio.Metadata(*metadata), timeout=RPC_DEADLINE_S)
    assert failure_of(failure.value).metadata == {"scope": "admin"}


async def test_a_token_is_neither_told_to_the_model_nor_stored_nor_logged(hosted: Hosted) -> None:
    echo = str((await hosted.told("open"))["echo"])
    assert echo.startswith("my token is ")
    token = hosted.back.tokens[-1]
    assert not any(part in echo for part in token.split("."))
    hosted.server.stop()
    kept = [file.read_bytes() for file in hosted.server.data_dir.rglob("*") if file.is_file()]
    signatures = [each.rpartition(".")[2].encode() for each in hosted.back.tokens]
    assert not any(signature in content for signature in signatures for content in kept)
    assert "serving" in hosted.server.log
    assert "eyJ" not in hosted.server.log
