"""Two users, each with a key: neither sees, watches, cancels or continues what is the other's."""

import asyncio
import sys
from collections.abc import Awaitable
from dataclasses import dataclass

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_spec
from e2e.test_runs import reason_of
from nursery import ran
from parley.v1 import (
    agent_service_pb2,
    conversation_pb2,
    conversation_service_pb2,
    request_context_pb2,
    run_event_pb2,
    run_pb2,
)
from server_process import ServerProcess

Metadata = tuple[tuple[str, str | bytes], ...]


def keys(server: ServerProcess, *arguments: str) -> str:
    """Run `parley-server keys` beside the running server; return what it prints."""
    command = [sys.executable, "-m", "parley_server", "keys", *arguments, "--data-dir", str(server.data_dir)]
    done = ran(command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True)
class Caller:
    """The stubs together with the metadata one caller sends."""

    stubs: Stubs
    metadata: Metadata

    async def runs(self, conversation_id: str = "") -> list[str]:
        request = agent_service_pb2.ListRunsRequest(conversation_id=conversation_id)
        found = await self.stubs.agents.ListRuns(request, metadata=self.metadata, timeout=RPC_DEADLINE_S)
        return [run.run_id for run in found.runs]

    async def start(self, text: str, conversation_id: str = "", request_id: str = "") -> run_pb2.Run:
        request = agent_service_pb2.StartRunRequest(run=run_spec(text, conversation_id), request_id=request_id)
        return (await self.stubs.agents.StartRun(request, metadata=self.metadata, timeout=RPC_DEADLINE_S)).run

    async def get(self, run_id: str) -> run_pb2.Run:
        request = agent_service_pb2.GetRunRequest(run_id=run_id)
        return (await self.stubs.agents.GetRun(request, metadata=self.metadata, timeout=RPC_DEADLINE_S)).run

    async def cancel(self, run_id: str) -> run_pb2.Run:
        request = agent_service_pb2.CancelRunRequest(run_id=run_id)
        return (await self.stubs.agents.CancelRun(request, metadata=self.metadata, timeout=RPC_DEADLINE_S)).run

    async def watch(self, run_id: str) -> list[run_event_pb2.RunEvent]:
        request = agent_service_pb2.WatchRunRequest(run_id=run_id)
        call = self.stubs.agents.WatchRun(request, metadata=self.metadata, timeout=RPC_DEADLINE_S)
        return [response.event async for response in call if response.event.seq]

    async def messages(self, conversation_id: str) -> list[conversation_pb2.Message]:
        request = conversation_service_pb2.ListMessagesRequest(conversation_id=conversation_id)
        found = await self.stubs.conversations.ListMessages(request, metadata=self.metadata, timeout=RPC_DEADLINE_S)
        return list(found.messages)


def caller(stubs: Stubs, key: str, user_id: str = "") -> Caller:
    """Call with a key, for a user where the key is a service's."""
    claim = request_context_pb2.RequestContext(user_id=user_id)
    return Caller(stubs, (("authorization", f"Bearer {key}"), ("parley-context-bin", claim.SerializeToString())))


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str, str]:
    """Return the code, reason and words of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), reason_of(error.value), error.value.details() or ""


async def test_a_foreign_run_and_an_absent_one_are_told_alike_by_every_rpc(server: ServerProcess, stubs: Stubs) -> None:
    ann, bob = (caller(stubs, keys(server, "create", "--user", name)) for name in ("ann", "bob"))
    run = await ann.start("What is 2 + 2?")
    await ann.watch(run.run_id)
    absent_run, absent_conversation = "run_0", "conv_0"
    for foreign, absent in (
        (bob.get(run.run_id), bob.get(absent_run)),
        (bob.watch(run.run_id), bob.watch(absent_run)),
        (bob.cancel(run.run_id), bob.cancel(absent_run)),
        (bob.runs(run.conversation_id), bob.runs(absent_conversation)),
        (bob.messages(run.conversation_id), bob.messages(absent_conversation)),
        (bob.start("hello", run.conversation_id), bob.start("hello", absent_conversation)),
    ):
        answer = await refused(foreign)
        assert answer[:2] == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        assert await refused(absent) == answer
    assert await bob.runs() == []
    assert len(await ann.messages(run.conversation_id)) == 3


async def test_request_ids_are_each_users_own(server: ServerProcess, stubs: Stubs) -> None:
    ann, bob = (caller(stubs, keys(server, "create", "--user", name)) for name in ("ann", "bob"))
    runs = [await user.start("hello", request_id="the-same") for user in (ann, bob, ann)]
    assert runs[0].run_id == runs[2].run_id != runs[1].run_id


async def test_a_service_speaks_for_the_users_its_key_names_and_for_no_other(
    server: ServerProcess, stubs: Stubs
) -> None:
    key = keys(server, "create", "--service", "telegram-bot", "--act-as", "telegram:*")
    run = await caller(stubs, key, "telegram:42").start("hello")
    assert (await caller(stubs, key, "telegram:42").get(run.run_id)).run_id == run.run_id
    for other in ("telegram:43", ""):
        answer = await refused(caller(stubs, key, other).get(run.run_id))
        assert answer[0] == grpc.StatusCode.NOT_FOUND
    for stranger in ("ann", "telegra"):
        answer = await refused(caller(stubs, key, stranger).get(run.run_id))
        assert answer[:2] == (grpc.StatusCode.PERMISSION_DENIED, "USER_MISMATCH")


async def test_a_service_of_a_users_name_is_not_that_user(server: ServerProcess, stubs: Stubs) -> None:
    user, service = (keys(server, "create", kind, "sue") for kind in ("--user", "--service"))
    gateway = keys(server, "create", "--service", "gateway", "--act-as", "*")
    run = await caller(stubs, user).start("hello")
    own = await caller(stubs, service).start("hello")
    for stranger in (caller(stubs, service), caller(stubs, gateway)):
        assert (await refused(stranger.get(run.run_id)))[0] == grpc.StatusCode.NOT_FOUND
    for stranger in (caller(stubs, user), caller(stubs, gateway, "sue")):
        assert (await refused(stranger.get(own.run_id)))[0] == grpc.StatusCode.NOT_FOUND
    for claimant, user_id in ((service, "sue"), (user, "service:sue"), (gateway, "service:sue")):
        answer = await refused(caller(stubs, claimant, user_id).runs())
        assert answer[:2] == (grpc.StatusCode.PERMISSION_DENIED, "USER_MISMATCH")
    assert await caller(stubs, service, "service:sue").runs() == [own.run_id]


async def test_a_user_cannot_claim_to_be_another(server: ServerProcess, stubs: Stubs) -> None:
    key = keys(server, "create", "--user", "ann")
    answer = await refused(caller(stubs, key, "bob").runs())
    assert answer[:2] == (grpc.StatusCode.PERMISSION_DENIED, "USER_MISMATCH")


async def test_a_key_works_until_it_is_revoked_and_only_for_its_scopes(server: ServerProcess, stubs: Stubs) -> None:
    key = keys(server, "create", "--user", "ann", "--scope", "runs:read")
    assert isinstance(await caller(stubs, key).runs(), list)
    answer = await refused(caller(stubs, key).start("hello"))
    assert answer[:2] == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert key not in keys(server, "list")
    keys(server, "revoke", key.split("_")[1])
    await asyncio.sleep(1.5)
    for bad in (key, key[:-1] + ("A" if key[-1] != "A" else "B"), "parley_x", "other"):
        answer = await refused(caller(stubs, bad).runs())
        assert answer == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "missing or invalid credentials")
