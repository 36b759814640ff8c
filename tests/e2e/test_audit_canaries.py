"""Whatever is put into audited calls, nothing of it is in the audit log but the ids of what they are done to."""

import asyncio
import base64
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from parley.v1 import api_key_service_pb2
from rpc.test_audit_objects import AUDITED
from server_process import ServerProcess, running_server

CANARY = "canary"

Metadata = tuple[tuple[str, str], ...]


def fill(message: Message, well_formed_ids: bool) -> None:
    """Put a canary into every field that has room for words, and something into every other."""
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            if field.type == FieldDescriptor.TYPE_STRING:
                getattr(message, field.name).append(CANARY)
        elif field.message_type is not None:
            fill(getattr(message, field.name), well_formed_ids)
        elif field.type == FieldDescriptor.TYPE_STRING:
            is_id = field.name.endswith("_id") and field.name != "request_id"
            word = f"{CANARY} {field.name}" if not is_id else "plain-1" if well_formed_ids else f"{CANARY} id"
            setattr(message, field.name, word)
        elif field.type == FieldDescriptor.TYPE_BYTES:
            setattr(message, field.name, CANARY.encode())
        elif field.type in (FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_BOOL):
            setattr(message, field.name, 1)


def requests(method: MethodDescriptor) -> Iterator[Message]:
    """Yield one that names objects by well-formed ids, one that does not, and one that keeps the rules where it can."""
    for well_formed_ids in (True, False):
        request = GetMessageClass(method.input_type)()
        fill(request, well_formed_ids)
        yield request
        if "page_token" in request.DESCRIPTOR.fields_by_name:
            request.ClearField("page_token")
            yield request


def metadatas() -> Iterator[Metadata]:
    context = base64.b64encode(CANARY.encode()).decode()
    yield ()
    yield (("parley-context", f'{{"locale": "en", "metadata": {{"{CANARY}": "{CANARY}"}}}}'),)
    yield (("parley-context", f'{{"userId": "{CANARY}"}}'),)
    yield (("parley-context", CANARY),)
    yield (("authorization", f"Bearer parley_{CANARY}_{CANARY}"), ("user-agent", CANARY))
    yield (("authorization", f"Basic {context}"),)


async def call_all(server: ServerProcess) -> Counter[str]:
    """Call every audited rpc that the server has in every way; return how many calls each got."""
    count: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(server.address) as channel:
        for method in AUDITED:
            path = f"/{method.containing_service.full_name}/{method.name}"
            for request in requests(method):
                for metadata in metadatas():
                    count[path] += await is_served(channel, path, request, metadata)
    return count


def serialized(message: Message) -> bytes:
    return message.SerializeToString()


async def is_served(channel: grpc.aio.Channel, path: str, request: Message, metadata: Metadata) -> bool:
    """Make a call and read what comes, whatever that is; tell whether there is such an rpc."""
    rpc: grpc.aio.UnaryStreamMultiCallable[Message, bytes] = channel.unary_stream(path, serialized)
    try:
        async for _ in rpc(request, metadata=grpc.aio.Metadata(*metadata), timeout=60):
            pass
    except grpc.aio.AioRpcError as error:
        return error.details() != "Method not found!"
    return True


def test_no_entry_holds_what_a_call_carried(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        calls = asyncio.run(call_all(server))
        made = asyncio.run(secret_of(server))
        assert server.stop() == 0
    with closing(sqlite3.connect(tmp_path / "parley.db")) as database:
        rows = database.execute("SELECT * FROM audit_log").fetchall()
        actions = {row[0] for row in database.execute("SELECT DISTINCT action FROM audit_log").fetchall()}
        (told,) = database.execute(
            "SELECT sum(left_out + (left_out = 0)) FROM audit_log WHERE about IS NULL"
        ).fetchone()
    assert {method for method, count in calls.items() if count} <= actions
    # Every call and no other, the start and the stop besides.
    assert told == calls.total() + 1 + 2
    assert calls.total() > 100
    assert CANARY not in repr(rows)
    assert made.split("_")[2] not in repr(rows)
    assert "plain-1" in repr(rows)


async def secret_of(server: ServerProcess) -> str:
    async with grpc.aio.insecure_channel(server.address) as channel:
        method = channel.unary_unary(
            "/parley.v1.ApiKeyService/CreateApiKey",
            api_key_service_pb2.CreateApiKeyRequest.SerializeToString,
            api_key_service_pb2.CreateApiKeyResponse.FromString,
        )
        made = await method(api_key_service_pb2.CreateApiKeyRequest(user_id="ann"), timeout=60)
    assert isinstance(made, api_key_service_pb2.CreateApiKeyResponse)
    return made.secret
