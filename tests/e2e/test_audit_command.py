"""`parley-server audit` beside a running server, on either engine, and the log after a crash."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from nursery import ran
from parley.v1 import admin_service_pb2, admin_service_pb2_grpc, audit_event_pb2, conversation_service_pb2_grpc
from parley.v1 import conversation_service_pb2 as pb
from parley_server.auth.local import operating_system_user
from postgres_server import PostgresServer
from server_process import ServerProcess, running_server

DELETE = "/parley.v1.ConversationService/DeleteConversation"
LIST = "/parley.v1.AdminService/ListAuditEvents"
OPERATOR = f"operator:{operating_system_user()}"


@dataclass(frozen=True)
class Installation:
    """A running server, and the command line on its data."""

    server: ServerProcess
    environment: Mapping[str, str]

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "parley_server", *arguments, "--data-dir", str(self.server.data_dir)]
        return ran(line, os.environ | self.environment)

    def said(self, *arguments: str) -> str:
        """Run it where it must succeed; return what it prints."""
        done = self.command(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async def delete(self, *names: str, kill_after: int = 0) -> int:
        """Delete conversations that are not there, at once; return how many answers came before a kill."""
        answered = 0
        async with grpc.aio.insecure_channel(self.server.address) as channel:
            stub = conversation_service_pb2_grpc.ConversationServiceStub(channel)
            for answer in asyncio.as_completed([_deletion(stub, name) for name in names]):
                answered += await answer
                if answered == kill_after and self.server.is_running:
                    self.server.kill()
        return answered

    async def events(
        self, request: admin_service_pb2.ListAuditEventsRequest
    ) -> admin_service_pb2.ListAuditEventsResponse:
        async with grpc.aio.insecure_channel(self.server.address) as channel:
            return await admin_service_pb2_grpc.AdminServiceStub(channel).ListAuditEvents(request, timeout=30)


async def _deletion(stub: "conversation_service_pb2_grpc.ConversationServiceAsyncStub", name: str) -> bool:
    request = pb.DeleteConversationRequest(conversation_id=name, allow_missing=True)
    return await stub.DeleteConversation(request, timeout=30).code() is grpc.StatusCode.OK


@pytest.fixture(params=["sqlite", "postgres"])
async def installation(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Installation]:
    async with AsyncExitStack() as stack:
        environment: dict[str, str] = {}
        if request.param == "postgres":
            postgres: PostgresServer = request.getfixturevalue("postgres")
            environment["PARLEY_STORAGE__URL"] = await stack.enter_async_context(postgres.database())
        server = stack.enter_context(running_server(tmp_path / "data", environment=environment))
        yield Installation(server, environment)


async def test_the_log_is_verified_listed_and_handed_on_beside_the_server(installation: Installation) -> None:
    installation.said("keys", "create", "--user", "ann")
    assert await installation.delete("c1", "c2", "c3") == 3
    head = installation.said("audit", "head")
    told = installation.said("audit", "verify", "--expect-head", head)
    assert told.startswith("ok: ")
    assert told.endswith(f", head {head}")
    lines = [json.loads(line) for line in installation.said("audit", "export").splitlines()]
    assert [line["position"] for line in lines] == list(range(1, len(lines) + 1))
    assert f"{lines[-1]['position']}:{lines[-1]['mac']}" == head
    made = next(line for line in lines if line["action"] == "keys create")
    assert (made["principal"], made["user_id"], made["object_type"]) == (OPERATOR, "ann", "key")
    assert {line["object_id"] for line in lines if line["action"] == DELETE} == {"c1", "c2", "c3"}

    request = admin_service_pb2.ListAuditEventsRequest(page_size=2, action=DELETE)
    first = await installation.events(request)
    request.page_token = first.next_page_token
    second = await installation.events(request)
    found = [*first.events, *second.events]
    assert [event.position for event in found] == sorted((event.position for event in found), reverse=True)
    assert {event.object_id for event in found} == {"c1", "c2", "c3"}
    assert all(event.decision == audit_event_pb2.AUDIT_DECISION_ALLOWED for event in found)
    reads = await installation.events(admin_service_pb2.ListAuditEventsRequest(action=LIST))
    assert len(reads.events) == 3


async def test_a_server_that_was_killed_leaves_a_whole_log_and_goes_on_with_it(installation: Installation) -> None:
    answered = await installation.delete(*(f"c{number}" for number in range(200)), kill_after=40)
    installation.server.start()
    assert await installation.delete("after") == 1
    assert installation.server.stop() == 0
    assert "ok: " in installation.said("audit", "verify")
    actions = [json.loads(line)["action"] for line in installation.said("audit", "export").splitlines()]
    # Whatever was answered had been recorded.
    assert 40 < answered + 1 <= actions.count(DELETE)
    assert (actions.count("server start"), actions[-1]) == (2, "server stop")


async def test_an_entry_that_was_changed_past_the_server_is_named(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        installation = Installation(server, {})
        for name in ("c1", "c2", "c3"):
            await installation.delete(name)
        with closing(sqlite3.connect(tmp_path / "parley.db", isolation_level=None)) as database:
            ((wanted,),) = database.execute("SELECT position FROM audit_log WHERE object_id = 'c2'").fetchall()
            database.execute("DROP TRIGGER audit_log_update")
            database.execute("UPDATE audit_log SET principal = 'user:eve' WHERE position = ?", [wanted])
        done = installation.command("audit", "verify")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"parley-server: entry {wanted} is not what was written")
        assert f"as written before it: {wanted - 1} entries" in done.stderr
        # What comes after it was not touched.
        assert installation.said("audit", "verify", "--from", str(wanted + 1)).startswith("ok: ")
        later = installation.said("audit", "export", "--after", str(wanted)).splitlines()
        assert json.loads(later[0])["position"] == wanted + 1


async def test_a_head_that_is_not_there_is_told_by_one_sentence(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        installation = Installation(server, {})
        await installation.delete("c1")
        server.stop()
        done = installation.command("audit", "verify", "--expect-head", f"99:{'0' * 64}")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("parley-server: entry ")
        assert done.stderr.count("\n") == 1
        assert installation.command("audit", "verify", "--expect-head", "12:ab").returncode == 2


async def test_what_commands_change_is_recorded_and_their_secrets_are_not(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        installation = Installation(server, {})
        secret = installation.said("keys", "create", "--service", "bot", "--act-as", "tg:*")
        key_id = secret.split("_")[1]
        assert installation.command("credentials", "delete", "--user", "ann", "--slot", "mail").returncode == 1
        server.stop()
        installation.said("db", "backup", str(tmp_path / "copy.db"))
        installation.said("db", "restore", str(tmp_path / "copy.db"))
        exported = installation.said("audit", "export")
    lines = [json.loads(line) for line in exported.splitlines()]
    own = [(line["action"], line["object_type"], line["object_id"]) for line in lines if line["principal"] == OPERATOR]
    assert own == [
        ("server start", "", ""),
        ("keys create", "key", key_id),
        ("credentials delete", "credential", "mail"),
        ("server stop", "", ""),
        ("db restore", "", ""),
    ]
    assert secret.split("_")[2] not in exported
