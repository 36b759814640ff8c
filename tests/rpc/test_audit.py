"""What the log says of the rpcs whose policy asks for a record: one line a call, however it ends."""

import json
from collections.abc import AsyncIterator, Awaitable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from parley.v1 import api_key_service_pb2 as pb
from parley.v1 import api_key_service_pb2_grpc, conversation_service_pb2
from parley_server.auth.local import operating_system_user
from parley_server.domain.principal import PrincipalKind
from rpc.chassis import bearer, failed
from rpc.key_server import KeyServer, serving_keys
from server_process import running_server

CREATE = "/parley.v1.ApiKeyService/CreateApiKey"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KeyServer]:
    async with serving_keys(tmp_path_factory.mktemp("audit")) as serving:
        yield serving


def only_line(logs: Sequence[MutableMapping[str, Any]]) -> dict[str, object]:
    """Return the one audit line, without what differs from call to call."""
    (line,) = [entry for entry in logs if entry["event"] == "audit"]
    assert str(line["peer"]).startswith("ipv4:127.0.0.1:")
    return {key: value for key, value in line.items() if key not in {"peer", "event", "log_level"}}


async def recorded(call: Awaitable[object]) -> dict[str, object]:
    """Make a call that must fail; return its line."""
    with structlog.testing.capture_logs() as logs:
        await failed(call)
    return only_line(logs)


def with_id(metadata: Sequence[tuple[str, str | bytes]]) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(*metadata, ("x-request-id", "mine"))


async def test_a_call_that_is_done_is_recorded_without_what_it_carried(server: KeyServer) -> None:
    with structlog.testing.capture_logs() as logs:
        request = pb.CreateApiKeyRequest(user_id="canary-user")
        made = await server.keys.CreateApiKey(request, metadata=with_id(()), timeout=5)
    user = operating_system_user()
    assert only_line(logs) == {
        "method": CREATE,
        "caller": f"user:{user}",
        "credential_id": "",
        "user": user,
        "request_id": "mine",
        "decision": "allowed",
        "outcome": "OK",
        "reason": "",
    }
    assert "canary" not in repr(logs)
    assert made.secret not in repr(logs)


async def test_a_caller_who_may_not_is_recorded_by_his_credential(server: KeyServer) -> None:
    metadata = await server.metadata("bot", PrincipalKind.SERVICE, ["runs:read"])
    line = await recorded(server.keys.CreateApiKey(pb.CreateApiKeyRequest(user_id="ann"), metadata=metadata, timeout=5))
    assert (line["caller"], line["user"], line["decision"]) == ("service:bot", "service:bot", "denied")
    assert (line["outcome"], line["reason"]) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    authorization = metadata.get("authorization")
    assert isinstance(authorization, str)
    assert line["credential_id"] == authorization.split("_")[1]


async def test_a_caller_nobody_knows_is_recorded_without_a_name(server: KeyServer) -> None:
    metadata = with_id(bearer("parley_secret"))
    line = await recorded(server.keys.RevokeApiKey(pb.RevokeApiKeyRequest(key_id="x"), metadata=metadata, timeout=5))
    assert (line["caller"], line["credential_id"], line["user"], line["request_id"]) == ("", "", "", "mine")
    assert (line["decision"], line["outcome"]) == ("denied", "UNAUTHENTICATED")
    assert "secret" not in repr(line)


async def test_a_claim_to_be_another_is_recorded_as_the_callers_own(server: KeyServer) -> None:
    metadata = await server.metadata("ann")
    metadata.add("parley-context", '{"userId":"bob"}')
    delete = conversation_service_pb2.DeleteConversationRequest(conversation_id="c")
    line = await recorded(server.conversations.DeleteConversation(delete, metadata=metadata, timeout=5))
    assert (line["caller"], line["user"], line["decision"]) == ("user:ann", "", "denied")
    assert (line["outcome"], line["reason"]) == ("PERMISSION_DENIED", "USER_MISMATCH")


@pytest.mark.parametrize(
    ("key_id", "outcome", "reason"),
    [("absent", "NOT_FOUND", "RESOURCE_NOT_FOUND"), ("no id!", "INVALID_ARGUMENT", "INVALID_REQUEST")],
)
async def test_a_call_that_was_allowed_and_failed_says_both(
    server: KeyServer, key_id: str, outcome: str, reason: str
) -> None:
    line = await recorded(server.keys.RotateApiKey(pb.RotateApiKeyRequest(key_id=key_id), timeout=5))
    assert (line["decision"], line["outcome"], line["reason"]) == ("allowed", outcome, reason)


async def test_what_no_policy_asks_to_record_is_not_recorded(server: KeyServer) -> None:
    with structlog.testing.capture_logs() as logs:
        await server.keys.ListApiKeys(pb.ListApiKeysRequest(), timeout=5)
        await failed(server.keys.ListApiKeys(pb.ListApiKeysRequest(page_token="x"), timeout=5))
    assert [entry for entry in logs if entry["event"] == "audit"] == []


async def test_a_quiet_log_has_the_audit_still(tmp_path: Path) -> None:
    environment = {"PARLEY_LOG__LEVEL": "error", "PARLEY_LOG__FORMAT": "json"}
    with running_server(tmp_path, environment=environment) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            keys = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)
            await failed(keys.RevokeApiKey(pb.RevokeApiKeyRequest(key_id="x"), timeout=5))
        server.stop()
    (line,) = [json.loads(line) for line in server.log.splitlines()]
    assert (line["event"], line["reason"]) == ("audit", "RESOURCE_NOT_FOUND")
