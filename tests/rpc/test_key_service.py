"""Keys over the wire: rotated, and made once however often it is asked."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from parley.v1 import api_key_service_pb2 as pb
from parley.v1 import conversation_service_pb2
from parley_server.domain.principal import PrincipalKind
from rpc.chassis import bearer, failed
from rpc.key_server import KeyServer, serving_keys

DAY_S = 86_400


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KeyServer]:
    async with serving_keys(tmp_path_factory.mktemp("keys")) as serving:
        yield serving


async def works(server: KeyServer, secret: str) -> bool:
    """Tell whether a secret lets its holder in."""
    request = conversation_service_pb2.ListConversationsRequest()
    metadata = grpc.aio.Metadata(*bearer(secret))
    call = server.conversations.ListConversations(request, metadata=metadata, timeout=5)
    code = await call.code()
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED}
    return code is grpc.StatusCode.OK


async def create(server: KeyServer, user_id: str = "ann", request_id: str = "") -> pb.CreateApiKeyResponse:
    return await server.keys.CreateApiKey(pb.CreateApiKeyRequest(user_id=user_id, request_id=request_id), timeout=5)


async def rotate(
    server: KeyServer, key_id: str, overlap_s: int | None = None, lifetime_s: int | None = None, request_id: str = ""
) -> pb.RotateApiKeyResponse:
    request = pb.RotateApiKeyRequest(
        key_id=key_id,
        overlap=None if overlap_s is None else Duration(seconds=overlap_s),
        lifetime=None if lifetime_s is None else Duration(seconds=lifetime_s),
        request_id=request_id,
    )
    return await server.keys.RotateApiKey(request, timeout=5)


async def test_a_rotated_key_has_two_secrets_and_its_old_name(server: KeyServer) -> None:
    made = await create(server)
    assert await works(server, made.secret)
    rotated = await rotate(server, made.api_key.key_id, overlap_s=DAY_S)
    assert rotated.secret.split("_")[1] == made.api_key.key_id
    assert rotated.secret != made.secret
    assert [await works(server, secret) for secret in (made.secret, rotated.secret)] == [True, True]
    key = rotated.api_key
    assert 0 <= key.previous_secret_expire_time.seconds - key.create_time.seconds - DAY_S < 60
    assert key.expire_time == made.api_key.expire_time
    key.ClearField("previous_secret_expire_time")
    assert key == made.api_key


async def test_rotating_again_ends_the_oldest_secret_at_once(server: KeyServer) -> None:
    made = await create(server)
    key_id = made.api_key.key_id
    rotations = [await rotate(server, key_id, overlap_s=DAY_S) for _ in range(2)]
    secrets = [made.secret, *(rotation.secret for rotation in rotations)]
    assert [await works(server, secret) for secret in secrets] == [False, True, True]
    last = await rotate(server, key_id, lifetime_s=10 * DAY_S)
    assert [await works(server, secret) for secret in (*secrets, last.secret)] == [False, False, False, True]
    assert not last.api_key.HasField("previous_secret_expire_time")
    assert 0 <= last.api_key.expire_time.seconds - last.api_key.create_time.seconds - 10 * DAY_S < 60
    await server.keys.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=key_id), timeout=5)
    assert not await works(server, last.secret)


async def test_an_old_secret_that_ended_is_told_no_more(server: KeyServer) -> None:
    made = await create(server)
    await rotate(server, made.api_key.key_id, overlap_s=DAY_S)
    revoked = await server.keys.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=made.api_key.key_id), timeout=5)
    assert not revoked.api_key.HasField("previous_secret_expire_time")


async def test_a_key_not_in_force_is_not_found_for_rotation(server: KeyServer) -> None:
    revoked = (await create(server)).api_key.key_id
    await server.keys.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=revoked), timeout=5)
    failures = [await failed(rotate(server, key_id)) for key_id in (revoked, "absent")]
    assert {(failure.code, failure.message) for failure in failures} == {
        (grpc.StatusCode.NOT_FOUND, "api_key not found")
    }
    failure = await failed(rotate(server, revoked, overlap_s=7 * DAY_S + 1))
    assert failure.reason == "INVALID_REQUEST"


async def test_a_repeated_create_is_the_same_key_without_its_secret(server: KeyServer) -> None:
    made = await create(server, request_id="create")
    again = await create(server, request_id="create")
    assert made.secret
    assert (again.api_key, again.secret) == (made.api_key, "")
    failure = await failed(create(server, user_id="bob", request_id="create"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert (await create(server)).api_key.key_id != (await create(server)).api_key.key_id


async def test_creates_at_the_same_time_make_one_key(server: KeyServer) -> None:
    made = await asyncio.gather(*(create(server, request_id="together") for _ in range(10)))
    assert len({response.api_key.key_id for response in made}) == 1
    (secret,) = [response.secret for response in made if response.secret]
    assert await works(server, secret)


async def test_a_repeated_rotation_changes_no_secret(server: KeyServer) -> None:
    key_id = (await create(server)).api_key.key_id
    rotated = await rotate(server, key_id, DAY_S, request_id="create")
    again = await rotate(server, key_id, DAY_S, request_id="create")
    assert (again.api_key, again.secret) == (rotated.api_key, "")
    assert await works(server, rotated.secret)
    failure = await failed(rotate(server, key_id, request_id="create"))
    assert failure.reason == "REQUEST_ID_REUSED"


async def test_request_ids_are_each_administrators_own(server: KeyServer) -> None:
    made = set()
    for subject, kind in (("root", PrincipalKind.USER), ("root", PrincipalKind.SERVICE), ("toor", PrincipalKind.USER)):
        request = pb.CreateApiKeyRequest(user_id="ann", request_id="mine")
        metadata = await server.metadata(subject, kind)
        made.add((await server.keys.CreateApiKey(request, metadata=metadata, timeout=5)).api_key.key_id)
    assert len(made) == 3


@pytest.mark.parametrize("scope", ["everything", "runs:delete", "admin:all"])
async def test_a_scope_that_no_rpc_asks_for_is_refused(server: KeyServer, scope: str) -> None:
    failure = await failed(server.keys.CreateApiKey(pb.CreateApiKeyRequest(user_id="ann", scopes=[scope]), timeout=5))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "scopes" in str(failure.details["BadRequest"])


@pytest.mark.parametrize("pattern", ["*", "**", "*tg", "t*g", "tg:*\n", "tg *", "", "-tg*", "tg:%", "a" * 130])
async def test_a_pattern_that_is_none_is_refused(server: KeyServer, pattern: str) -> None:
    failure = await failed(
        server.keys.CreateApiKey(pb.CreateApiKeyRequest(service_id="bot", act_as=[pattern]), timeout=5)
    )
    assert failure.reason == "INVALID_REQUEST"
