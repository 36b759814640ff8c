"""What cannot be recorded is not done; what is recorded beside the calls waits for the store, within bounds."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from parley.v1 import conversation_service_pb2 as pb
from parley_server.domain.audit import AuditEntry
from parley_server.domain.principal import PrincipalKind
from parley_server.storage.audit_log import AuditFilter
from parley_server.storage.audit_queue import MAX_WAITING, AuditQueue
from parley_server.storage.page import PageRequest
from rpc.chassis import failed
from rpc.key_server import KeyServer, serving_keys


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KeyServer]:
    async with serving_keys(tmp_path) as serving:
        yield serving


@contextmanager
def without_audit_log(folder: Path) -> Iterator[None]:
    """Take the table away from the server, and nothing else."""
    rename = "ALTER TABLE {} RENAME TO {}"
    with closing(sqlite3.connect(folder / "parley.db", isolation_level=None, timeout=20)) as database:
        database.execute(rename.format("audit_log", "taken_away"))
        try:
            yield
        finally:
            database.execute(rename.format("taken_away", "audit_log"))


async def conversation(server: KeyServer) -> str:
    made = await server.conversations.CreateConversation(pb.CreateConversationRequest(), timeout=20)
    return made.conversation.conversation_id


async def is_there(server: KeyServer, conversation_id: str) -> bool:
    listed = await server.conversations.ListConversations(pb.ListConversationsRequest(), timeout=20)
    return conversation_id in {each.conversation_id for each in listed.conversations}


async def test_a_call_that_cannot_be_recorded_is_not_served(server: KeyServer, tmp_path: Path) -> None:
    conversation_id = await conversation(server)
    delete = pb.DeleteConversationRequest(conversation_id=conversation_id)
    with without_audit_log(tmp_path):
        refusal = await failed(server.conversations.DeleteConversation(delete, timeout=20))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        # What is not recorded is served, also by this store.
        assert await is_there(server, conversation_id)
    await server.conversations.DeleteConversation(delete, timeout=20)
    assert not await is_there(server, conversation_id)


async def test_a_call_given_up_while_it_is_recorded_is_not_served_and_says_so(
    server: KeyServer, tmp_path: Path
) -> None:
    conversation_id = await conversation(server)
    delete = pb.DeleteConversationRequest(conversation_id=conversation_id)
    metadata = grpc.aio.Metadata(("x-request-id", "late"))
    with closing(sqlite3.connect(tmp_path / "parley.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        late = server.conversations.DeleteConversation(delete, metadata=metadata, timeout=0.5)
        assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        database.execute("ROLLBACK")
    async with asyncio.timeout(20):
        while len(found := await entries_of(server, "late")) < 2:  # noqa: ASYNC110  # it is in the database
            await asyncio.sleep(0.05)
    assert sorted(entry.status for entry in found) == ["", "CANCELLED"]
    assert await is_there(server, conversation_id)


async def entries_of(server: KeyServer, request_id: str) -> list[AuditEntry]:
    page = await server.store.audit.list(PageRequest(200), AuditFilter())
    return [each.entry for each in page.items if each.entry.request_id == request_id]


async def test_a_stream_that_cannot_be_recorded_does_not_begin(server: KeyServer, tmp_path: Path) -> None:
    export = pb.ExportConversationRequest(conversation_id=await conversation(server))
    with without_audit_log(tmp_path):
        refusal = await failed(server.conversations.ExportConversation(export, timeout=20).read())
        assert refusal.reason == "STORAGE_UNAVAILABLE"
    lines = [line async for line in server.conversations.ExportConversation(export, timeout=20)]
    assert lines


async def test_a_fault_of_the_log_itself_lets_nothing_pass_either(server: KeyServer, tmp_path: Path) -> None:
    conversation_id = await conversation(server)
    with closing(sqlite3.connect(tmp_path / "parley.db", timeout=20)) as database:
        database.execute("CREATE TRIGGER no BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'no'); END")
        delete = pb.DeleteConversationRequest(conversation_id=conversation_id)
        refusal = await failed(server.conversations.DeleteConversation(delete, timeout=20))
        assert refusal.code is grpc.StatusCode.INTERNAL
        assert await is_there(server, conversation_id)
        database.execute("DROP TRIGGER no")


async def test_what_is_recorded_beside_the_calls_waits_for_the_store(server: KeyServer, tmp_path: Path) -> None:
    metadata = await server.metadata("bot", PrincipalKind.SERVICE, ["agents:read"])
    with without_audit_log(tmp_path):
        request = pb.ListConversationsRequest()
        refusal = await failed(server.conversations.ListConversations(request, metadata=metadata, timeout=20))
        assert refusal.reason == "SCOPE_MISSING"
    only = AuditFilter(principal="service:bot")
    async with asyncio.timeout(20):
        while not (await server.store.audit.list(PageRequest(1), only)).items:  # noqa: ASYNC110  # in the database
            await asyncio.sleep(0.05)


async def test_what_finds_no_room_is_counted_and_told(server: KeyServer, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    with without_audit_log(tmp_path):
        async with AuditQueue(server.store.audit) as queue:
            for number in range(MAX_WAITING + 7):
                queue.offer(AuditEntry(now, "flood", object_id=str(number)))
            queue.offer(AuditEntry(now, "essential"), essential=True)
            assert queue.dropped == 7
        # At the end nothing could be written, and it waits for nobody.
        assert queue.dropped == MAX_WAITING + 8


async def test_the_log_itself_says_what_it_lacks(server: KeyServer) -> None:
    async with AuditQueue(server.store.audit) as queue:
        for _ in range(MAX_WAITING + 7):
            queue.offer(AuditEntry(datetime.now(UTC), "flood"))
    found = [each.entry async for each in server.store.audit_reader.entries()]
    assert sum(entry.action == "flood" for entry in found) == MAX_WAITING
    assert [(entry.principal, entry.left_out) for entry in found if entry.action == "audit drop"] == [("server", 7)]
    assert (await server.store.audit_reader.verify()).problem is None
