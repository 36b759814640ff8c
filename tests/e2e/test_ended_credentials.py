"""A run outlives the credential it was started with: it goes on, watches end, and it changes nothing any more."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_spec, stubs_on
from google.protobuf.duration_pb2 import Duration
from model_server import ModelServer
from parley.v1 import (
    agent_service_pb2,
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    approval_service_pb2,
    approval_service_pb2_grpc,
    delegation_service_pb2,
    delegation_service_pb2_grpc,
    run_event_pb2,
    run_pb2,
    tool_pb2,
)
from parley.v1.request_context_pb2 import RequestContext
from postgres_server import PostgresServer
from rpc.chassis import Metadata, bearer, failure_of
from run_history import check_run
from server_process import ServerProcess

SCRIPT = {
    "rules": [
        {"when": "^wait", "tool_calls": [{"name": "wait"}]},
        {"when": "^pay", "tool_calls": [{"name": "pay"}]},
        {"after_tool": "pay", "tool_calls": [{"name": "book"}]},
        {"after_tool": "wait", "tool_calls": [{"name": "book"}]},
        {"after_tool": "book", "text": "That is all."},
    ]
}
DENIED, OK = tool_pb2.TOOL_CALL_STATUS_DENIED, tool_pb2.TOOL_CALL_STATUS_OK


@dataclass
class Waiting:
    """A server whose runs wait for a word before they book."""

    server: ServerProcess
    marks: Path
    channel: grpc.aio.Channel

    @property
    def stubs(self) -> Stubs:
        return stubs_on(self.channel)

    @property
    def keys(self) -> "api_key_service_pb2_grpc.ApiKeyServiceAsyncStub":
        return api_key_service_pb2_grpc.ApiKeyServiceStub(self.channel)

    async def service_key(self) -> tuple[str, Metadata]:
        """Make a key of a service that acts for others; return its id, and what its holder sends."""
        request = api_key_service_pb2.CreateApiKeyRequest(service_id="web", act_as=["tg:*"])
        made = await self.keys.CreateApiKey(request, timeout=RPC_DEADLINE_S)
        return made.api_key.key_id, bearer(made.secret)

    async def revoke(self, key_id: str) -> None:
        request = api_key_service_pb2.RevokeApiKeyRequest(key_id=key_id)
        await self.keys.RevokeApiKey(request, timeout=RPC_DEADLINE_S)

    async def token(self, metadata: Metadata, lifetime_s: int) -> str:
        stub: delegation_service_pb2_grpc.DelegationServiceAsyncStub = (
            delegation_service_pb2_grpc.DelegationServiceStub(self.channel)
        )
        request = delegation_service_pb2.IssueDelegationTokenRequest(
            user_id="tg:1", scopes=["runs:read", "runs:write"], lifetime=Duration(seconds=lifetime_s)
        )
        made = await stub.IssueDelegationToken(request, metadata=metadata, timeout=RPC_DEADLINE_S)
        return made.token

    async def user(self) -> Metadata:
        """Make a key of the user's own; return what he sends."""
        request = api_key_service_pb2.CreateApiKeyRequest(user_id="tg:1")
        return bearer((await self.keys.CreateApiKey(request, timeout=RPC_DEADLINE_S)).secret)

    async def begun(self, metadata: Metadata) -> tuple[str, "asyncio.Task[tuple[int, str]]"]:
        """Start a run that waits; return it, and the watch of its caller, by how many events it saw and its end."""
        request = agent_service_pb2.StartRunRequest(run=run_spec("wait"))
        run = (await self.stubs.agents.StartRun(request, metadata=metadata, timeout=RPC_DEADLINE_S)).run
        watching = asyncio.create_task(self._watched(run.run_id, metadata))
        async with asyncio.timeout(20):
            while not (self.marks / "waiting").exists():  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.02)
        return run.run_id, watching

    async def ended(self, run_id: str) -> tuple[list[run_event_pb2.RunEvent], run_event_pb2.ToolCallFinished]:
        """Let a run book, and return its events and what came of it; read by the user's own new credential."""
        (self.marks / "go").touch()
        call = self.stubs.agents.WatchRun(
            agent_service_pb2.WatchRunRequest(run_id=run_id), metadata=await self.user(), timeout=RPC_DEADLINE_S
        )
        events = [response.event async for response in call if response.event.seq]
        check_run(events)
        finished = {event.tool_call_finished.name: event.tool_call_finished for event in events}
        assert finished["wait"].status == OK
        assert json.loads(finished["wait"].result_json)["result"] == {"actor": "service:web"}
        assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
        return events, finished["book"]

    async def _watched(self, run_id: str, metadata: Metadata) -> tuple[int, str]:
        request = agent_service_pb2.WatchRunRequest(run_id=run_id)
        count = 0
        try:
            async for _ in self.stubs.agents.WatchRun(request, metadata=metadata, timeout=RPC_DEADLINE_S):
                count += 1
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            return count, f"{failure.code.name} {failure.reason}"
        return count, "OK"


@pytest.fixture
async def waiting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Waiting]:
    # Where the server runs, so that it is imported without more ado.
    (tmp_path / "data").mkdir()
    shutil.copy(Path(__file__).with_name("waiting_tools.py"), tmp_path / "data")
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ModelServer(SCRIPT))
        environment = {
            "MARKS_FOLDER": str(tmp_path),
            "PARLEY_TOOLS__MODULES": "waiting_tools",
            "PARLEY_AUTH__RECHECK_S": "0.2",
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
        }
        if request.param == "postgres":
            postgres: PostgresServer = request.getfixturevalue("postgres")
            environment["PARLEY_STORAGE__URL"] = await stack.enter_async_context(postgres.database())
        server = ServerProcess(tmp_path / "data", environment=environment)
        await asyncio.to_thread(server.start)
        stack.callback(server.kill)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        yield Waiting(server, tmp_path, channel)


both_engines = pytest.mark.parametrize("waiting", ["sqlite", "postgres"], indirect=True)
on_sqlite = pytest.mark.parametrize("waiting", ["sqlite"], indirect=True)


def claiming(metadata: Metadata) -> Metadata:
    return (*metadata, ("parley-context-bin", RequestContext(user_id="tg:1").SerializeToString()))


@both_engines
@pytest.mark.parametrize("how", ["claim", "token"])
async def test_a_run_whose_key_is_revoked_goes_on_and_changes_nothing(waiting: Waiting, how: str) -> None:
    key_id, web = await waiting.service_key()
    metadata = claiming(web) if how == "claim" else bearer(await waiting.token(web, 300))
    run_id, watching = await waiting.begun(metadata)
    await waiting.revoke(key_id)
    count, end = await watching
    assert (count > 0, end) == (True, "UNAUTHENTICATED CREDENTIALS_INVALID")
    _, booked = await waiting.ended(run_id)
    assert (booked.status, booked.error_code) == (DENIED, "CREDENTIAL_ENDED")
    assert not list(waiting.marks.glob("booked *"))


@on_sqlite
async def test_a_run_whose_token_is_over_changes_nothing(waiting: Waiting) -> None:
    _, web = await waiting.service_key()
    run_id, watching = await waiting.begun(bearer(await waiting.token(web, 2)))
    assert (await watching)[1] == "UNAUTHENTICATED CREDENTIALS_INVALID"
    _, booked = await waiting.ended(run_id)
    assert (booked.status, booked.error_code) == (DENIED, "CREDENTIAL_ENDED")
    assert not list(waiting.marks.glob("booked *"))


@both_engines
async def test_a_good_credential_outlives_a_restart(waiting: Waiting) -> None:
    """What is stored with a run is enough to know later who acts for whom, and whether he still may."""
    _, web = await waiting.service_key()
    run_id, watching = await waiting.begun(claiming(web))
    waiting.server.kill()
    await asyncio.gather(watching, return_exceptions=True)
    await asyncio.to_thread(waiting.server.start)
    async with grpc.aio.insecure_channel(waiting.server.address) as channel:
        again = Waiting(waiting.server, waiting.marks, channel)
        _, booked = await again.ended(run_id)
    assert booked.status == OK
    assert json.loads(booked.result_json)["result"] == {"actor": "service:web"}
    assert (waiting.marks / f"booked {run_id}").exists()


@on_sqlite
async def test_what_the_user_approves_is_done_though_the_key_is_gone(waiting: Waiting) -> None:
    key_id, web = await waiting.service_key()
    request = agent_service_pb2.RunAgentRequest(run=run_spec("pay"))
    run_id = approval_id = ""
    async for response in waiting.stubs.agents.RunAgent(request, metadata=claiming(web), timeout=RPC_DEADLINE_S):
        if response.event.HasField("run_waiting"):
            run_id, [approval_id] = response.event.run_id, response.event.run_waiting.approval_ids
            break
    await waiting.revoke(key_id)
    own = await waiting.user()
    approvals: approval_service_pb2_grpc.ApprovalServiceAsyncStub = approval_service_pb2_grpc.ApprovalServiceStub(
        waiting.channel
    )
    approve = approval_service_pb2.DecideApprovalRequest(
        approval_id=approval_id, decision=approval_service_pb2.APPROVAL_DECISION_APPROVE
    )
    await approvals.DecideApproval(approve, metadata=own, timeout=RPC_DEADLINE_S)
    watch = agent_service_pb2.WatchRunRequest(run_id=run_id)
    call = waiting.stubs.agents.WatchRun(watch, metadata=own, timeout=RPC_DEADLINE_S)
    events = [response.event async for response in call if response.event.seq]
    check_run(events)
    finished = {event.tool_call_finished.name: event.tool_call_finished for event in events}
    assert finished["pay"].status == OK
    # His yes was to that call; the next one rests on the key again.
    assert (finished["book"].status, finished["book"].error_code) == (DENIED, "CREDENTIAL_ENDED")
