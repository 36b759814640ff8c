"""`parley-server keys` beside a running server, on either engine: what it changes, the server goes by soon after."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from nursery import ran
from parley.v1 import agent_service_pb2, agent_service_pb2_grpc, api_key_service_pb2, api_key_service_pb2_grpc
from postgres_server import PostgresServer
from server_process import ServerProcess, running_server

# What the contract grants a change made by another process.
PROPAGATION_S = 5.0
DEADLINE_S = 30.0


@dataclass(frozen=True)
class Installation:
    """A running server, the command line on its data, and calls to it."""

    server: ServerProcess
    environment: Mapping[str, str]

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `parley-server keys`; return what became of it."""
        line = [sys.executable, "-m", "parley_server", "keys", *arguments, "--data-dir", str(self.server.data_dir)]
        return ran(line, os.environ | self.environment)

    def keys(self, *arguments: str) -> str:
        """Run it where it must succeed; return what it prints."""
        done = self.command(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async def works(self, secret: str) -> bool:
        """Tell whether a secret lets its holder in."""
        async with grpc.aio.insecure_channel(self.server.address) as channel:
            call = agent_service_pb2_grpc.AgentServiceStub(channel).ListRuns(
                agent_service_pb2.ListRunsRequest(),
                metadata=(("authorization", f"Bearer {secret}"),),
                timeout=DEADLINE_S,
            )
            code = await call.code()
        assert code in {grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED}
        return code is grpc.StatusCode.OK

    async def ends(self, secret: str) -> None:
        """Wait until a secret works no more; fail when that takes longer than it may."""
        async with asyncio.timeout(PROPAGATION_S):
            while await self.works(secret):  # noqa: ASYNC110  # another process ends it
                await asyncio.sleep(0.1)


@pytest.fixture(params=["sqlite", "postgres"])
async def installation(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Installation]:
    async with AsyncExitStack() as stack:
        environment = {}
        if request.param == "postgres":
            postgres: PostgresServer = request.getfixturevalue("postgres")
            environment = {"PARLEY_STORAGE__URL": await stack.enter_async_context(postgres.database())}
        server = stack.enter_context(running_server(tmp_path / "data", environment=environment))
        yield Installation(server, environment)


def key_id_of(secret: str) -> str:
    return secret.split("_")[1]


async def test_a_key_lives_from_create_over_rotate_to_revoke(installation: Installation) -> None:
    first = installation.keys("create", "--user", "ann")
    key_id = key_id_of(first)
    assert await installation.works(first)
    second = installation.keys("rotate", key_id, "--overlap", "24h")
    assert [await installation.works(secret) for secret in (first, second)] == [True, True]
    assert "old secret until" in installation.keys("list")
    third = installation.keys("rotate", key_id, "--expires", "30m")
    assert await installation.works(third)
    await installation.ends(first)
    await installation.ends(second)
    assert await installation.works(third)
    installation.keys("revoke", key_id)
    await installation.ends(third)
    listed = installation.keys("list")
    assert listed.startswith(f"{key_id}  user:ann  ")
    assert "  revoked 2" in listed
    assert "old secret" not in listed
    assert not any(secret in listed for secret in (first, second, third))
    refused = installation.command("rotate", key_id)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert (
        refused.stderr
        == "parley-server: no key in force has this id; one that is revoked or expired cannot be rotated\n"
    )


async def test_the_list_tells_when_a_key_was_last_used(installation: Installation) -> None:
    used, unused = (installation.keys("create", "--user", name) for name in ("ann", "bob"))
    for _ in range(3):
        assert await installation.works(used)
    assert installation.server.stop() == 0
    lines = {line.split()[0]: line for line in installation.keys("list").splitlines()}
    assert "  used 2" in lines[key_id_of(used)]
    assert "  never used" in lines[key_id_of(unused)]


async def test_a_repeated_create_makes_one_key_also_over_a_crash(installation: Installation) -> None:
    request = api_key_service_pb2.CreateApiKeyRequest(user_id="ann", request_id="once")
    made = []
    for _ in range(2):
        async with grpc.aio.insecure_channel(installation.server.address) as channel:
            stub = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)
            made.append(await stub.CreateApiKey(request, timeout=DEADLINE_S))
        installation.server.kill()
        installation.server.start()
    assert made[0].api_key == made[1].api_key
    assert made[1].secret == ""
    assert await installation.works(made[0].secret)


async def test_every_change_of_a_key_by_an_rpc_is_in_the_servers_log(installation: Installation) -> None:
    async with grpc.aio.insecure_channel(installation.server.address) as channel:
        stub = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)
        request = api_key_service_pb2.CreateApiKeyRequest(user_id="canary-user")
        made = await stub.CreateApiKey(request, metadata=(("x-request-id", "audit-1"),), timeout=DEADLINE_S)
    assert installation.server.stop() == 0  # the log is written beside the calls
    (line,) = [line for line in installation.server.log.splitlines() if '"audit"' in line]
    assert all(word in line for word in ("audit-1", "/parley.v1.ApiKeyService/CreateApiKey", '"allowed"', '"OK"'))
    assert made.secret not in installation.server.log
    assert "canary" not in line
