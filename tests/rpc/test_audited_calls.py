"""What calls leave in the audit log: an entry before they are served, one for how they ended, and some of refusals."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from parley.v1 import api_key_service_pb2 as pb
from parley.v1 import conversation_service_pb2 as conversations_pb
from parley_server.auth.local import operating_system_user
from parley_server.domain.audit import AuditEntry
from parley_server.domain.principal import PrincipalKind
from parley_server.storage.audit_log import AuditFilter
from parley_server.storage.page import PageRequest
from rpc.chassis import bearer, failed
from rpc.key_server import KeyServer, serving_keys

SERVICE = "/parley.v1.ApiKeyService"
CREATE, ROTATE, REVOKE, LIST = (
    f"{SERVICE}/{name}ApiKey{end}" for name, end in (("Create", ""), ("Rotate", ""), ("Revoke", ""), ("List", "s"))
)
DELETE = "/parley.v1.ConversationService/DeleteConversation"
ME = operating_system_user()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KeyServer]:
    async with serving_keys(tmp_path) as serving:
        yield serving


async def entries(server: KeyServer, request_id: str = "") -> list[AuditEntry]:
    """Return the entries, the oldest first, of one call or of all."""
    page = await server.store.audit.list(PageRequest(200), AuditFilter())
    return [each.entry for each in reversed(page.items) if request_id in ("", each.entry.request_id)]


async def settled(server: KeyServer, request_id: str, count: int) -> list[AuditEntry]:
    """Wait until a call has that many entries."""
    async with asyncio.timeout(20):
        while len(found := await entries(server, request_id)) < count:  # noqa: ASYNC110  # it is in the database
            await asyncio.sleep(0.02)
    return found


def with_id(request_id: str, metadata: "grpc.aio.Metadata | None" = None) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(*(metadata or ()), ("x-request-id", request_id))


async def test_a_call_is_recorded_before_it_is_served_and_what_it_made_afterwards(server: KeyServer) -> None:
    made = await server.keys.CreateApiKey(pb.CreateApiKeyRequest(user_id="ann"), metadata=with_id("m"), timeout=5)
    begun, ended = await settled(server, "m", 2)
    assert (begun.action, begun.decision, begun.principal, begun.user_id) == (CREATE, "allowed", f"user:{ME}", ME)
    assert (begun.object_type, begun.object_id, begun.status) == ("user", "ann", "")
    assert begun.peer.startswith("ipv4:127.0.0.1:")
    assert (ended.object_type, ended.object_id, ended.status) == ("key", made.api_key.key_id, "OK")
    page = await server.store.audit.list(PageRequest(1), AuditFilter())
    assert ended.about == page.items[0].position - 1


async def test_a_call_that_names_its_object_and_ends_well_is_one_entry(server: KeyServer) -> None:
    key = (await server.keys.CreateApiKey(pb.CreateApiKeyRequest(user_id="ann"), timeout=5)).api_key
    await server.keys.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=key.key_id), metadata=with_id("r"), timeout=5)
    await server.keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=with_id("l"), timeout=5)
    await refused_create(server, "later")
    await settled(server, "later", 1)
    (entry,) = await entries(server, "r")
    assert (entry.action, entry.object_type, entry.object_id) == (REVOKE, "key", key.key_id)
    assert await entries(server, "l") == []


async def test_a_call_that_fails_has_a_second_entry(server: KeyServer) -> None:
    await failed(server.keys.RotateApiKey(pb.RotateApiKeyRequest(key_id="absent"), metadata=with_id("f"), timeout=5))
    begun, ended = await settled(server, "f", 2)
    assert (begun.status, begun.object_id) == ("", "absent")
    assert (ended.action, ended.decision) == (ROTATE, "allowed")
    assert (ended.status, ended.reason) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")


async def test_a_request_that_breaks_a_rule_is_recorded_without_what_it_names(server: KeyServer) -> None:
    await failed(server.keys.RotateApiKey(pb.RotateApiKeyRequest(key_id="no id!"), metadata=with_id("i"), timeout=5))
    (entry,) = await settled(server, "i", 1)
    assert (entry.decision, entry.status, entry.reason) == ("allowed", "INVALID_ARGUMENT", "INVALID_REQUEST")
    assert (entry.object_type, entry.object_id) == ("", "")


async def refused_create(server: KeyServer, request_id: str) -> None:
    metadata = with_id(request_id, await server.metadata("bot", PrincipalKind.SERVICE, ["runs:read"]))
    await failed(server.keys.CreateApiKey(pb.CreateApiKeyRequest(user_id="ann"), metadata=metadata, timeout=5))


async def test_whoever_may_not_is_recorded_of_every_rpc(server: KeyServer) -> None:
    metadata = with_id("s", await server.metadata("bot", PrincipalKind.SERVICE, ["runs:read"]))
    await failed(server.keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=metadata, timeout=5))
    (entry,) = await settled(server, "s", 1)
    assert (entry.action, entry.decision, entry.principal) == (LIST, "denied", "service:bot")
    assert (entry.status, entry.reason, entry.user_id) == ("PERMISSION_DENIED", "SCOPE_MISSING", "service:bot")
    assert entry.credential_id == str(metadata.get("authorization")).split("_")[1]


async def test_a_claim_to_be_another_is_recorded_of_every_rpc(server: KeyServer) -> None:
    metadata = with_id("c", await server.metadata("ann"))
    metadata.add("parley-context", '{"userId":"bob"}')
    await failed(
        server.conversations.ListConversations(
            conversations_pb.ListConversationsRequest(), metadata=metadata, timeout=5
        )
    )
    (entry,) = await settled(server, "c", 1)
    assert (entry.principal, entry.user_id, entry.decision, entry.reason) == (
        "user:ann",
        "",
        "denied",
        "USER_MISMATCH",
    )


async def test_speaking_for_another_is_recorded_once_an_hour_for_each_pair(server: KeyServer) -> None:
    key, text = await server.administration.create(PrincipalKind.SERVICE, "bot", act_as=["tg:*"])
    for number, user in enumerate(("tg:1", "tg:2", "tg:1", "tg:2", "service:bot")):
        metadata = with_id(f"a{number}", grpc.aio.Metadata(*bearer(text)))
        metadata.add("parley-context", f'{{"userId":"{user}"}}')
        request = conversations_pb.ListConversationsRequest()
        await server.conversations.ListConversations(request, metadata=metadata, timeout=5)
    await settled(server, "a1", 1)
    await refused_create(server, "later")
    await settled(server, "later", 1)
    acting = [entry for entry in await entries(server) if entry.action == "act_as"]
    assert [(entry.request_id, entry.user_id, entry.actors) for entry in acting] == [
        ("a0", "tg:1", ("service:bot",)),
        ("a1", "tg:2", ("service:bot",)),
    ]
    assert (acting[0].object_id, acting[0].credential_id) == (
        "/parley.v1.ConversationService/ListConversations",
        key.key_id,
    )


async def test_failures_to_prove_oneself_are_a_few_entries_and_a_count(tmp_path: Path) -> None:
    async with serving_keys(tmp_path) as server:
        for _ in range(12):
            metadata = grpc.aio.Metadata(*bearer("parley_canary_secret"))
            await failed(server.keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=metadata, timeout=5))
        store = server.store
    # What was left out is told at the latest when the server stops.
    assert store.audit.last_position > 0
    with closing(sqlite3.connect(tmp_path / "parley.db")) as database:
        rows = database.execute(
            "SELECT principal, decision, reason, left_out FROM audit_log WHERE status = 'UNAUTHENTICATED'"
        ).fetchall()
    assert rows == [("", "denied", "CREDENTIALS_INVALID", 0)] * 5 + [("", "denied", "CREDENTIALS_INVALID", 7)]


async def test_refusals_of_one_caller_are_a_minutes_worth_and_a_count(tmp_path: Path) -> None:
    async with serving_keys(tmp_path) as server:
        metadata = await server.metadata("bot", PrincipalKind.SERVICE, ["runs:read"])
        for _ in range(70):
            await failed(server.keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=metadata, timeout=5))
    with closing(sqlite3.connect(tmp_path / "parley.db")) as database:
        rows = database.execute("SELECT left_out FROM audit_log WHERE principal = 'service:bot'").fetchall()
    assert rows == [(0,)] * 60 + [(10,)]


async def test_many_calls_at_once_are_each_recorded_and_the_chain_is_whole(server: KeyServer) -> None:
    calls = [
        server.conversations.DeleteConversation(
            conversations_pb.DeleteConversationRequest(conversation_id=f"c{number}", allow_missing=True),
            metadata=with_id(f"p{number}"),
            timeout=30,
        )
        for number in range(200)
    ]
    await asyncio.gather(*calls)
    report = await server.store.audit_reader.verify()
    assert report.problem is None
    found = [each async for each in server.store.audit_reader.entries()]
    assert [each.position for each in found] == list(range(1, len(found) + 1))
    deleted = [each.entry for each in found if each.entry.action == DELETE]
    assert sorted(entry.object_id for entry in deleted) == sorted(f"c{number}" for number in range(200))
    assert all(entry.request_id == f"p{entry.object_id[1:]}" for entry in deleted)
