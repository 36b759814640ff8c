"""Identities from end to end: a real server by its settings, an issuer, certificates, and each caller his own."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from certificates import Pair, authority, issued_by
from e2e.test_signals import wait_for_log
from e2e.test_tls_clients import environment_of
from parley.v1 import conversation_service_pb2 as pb
from parley.v1 import conversation_service_pb2_grpc
from server_process import ServerProcess, running_server
from token_issuer import AUDIENCE, ISSUER, JwksServer, SigningKey, jwks_server

CA = authority()
BOT = issued_by(CA, "client", hosts=["spiffe://prod.example/ns/bots/sa/telegram"])
PLAIN = issued_by(CA, "client", hosts=["laptop.example"])
KEY, NEXT = SigningKey.make("first"), SigningKey.make("next")
ASKING_S = 20.0


@dataclass(frozen=True)
class Place:
    """A server and the issuer that it trusts."""

    server: ServerProcess
    jwks: JwksServer

    async def titles(self, pair: Pair, token: str = "", speaking_for: str = "", new: str = "") -> list[str]:
        """Make a conversation, if a title is given, and return the titles of all that the caller has."""
        metadata = []
        if token:
            metadata.append(("authorization", f"Bearer {token}"))
        if speaking_for:
            metadata.append(("parley-context", json.dumps({"userId": speaking_for})))
        port = self.server.address.rpartition(":")[2]
        credentials = grpc.ssl_channel_credentials(CA.certificate_pem, pair.key_pem, pair.certificate_pem)
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            stub = conversation_service_pb2_grpc.ConversationServiceStub(channel)
            if new:
                request = pb.CreateConversationRequest(title=new)
                await stub.CreateConversation(request, metadata=metadata, timeout=ASKING_S)
            listed = await stub.ListConversations(pb.ListConversationsRequest(), metadata=metadata, timeout=ASKING_S)
        return [conversation.title for conversation in listed.conversations]


def token(sub: str, key: SigningKey = KEY) -> str:
    now = int(time.time())
    scope = "conversations:read conversations:write"
    return key.token({"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "iat": now, "exp": now + 600, "scope": scope})


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    files = issued_by(CA, "server").write(tmp_path / "tls", client_ca=CA)
    async with jwks_server(KEY) as jwks:
        environment = environment_of(files) | {
            "PARLEY_ISSUERS__STAFF__ISSUER": ISSUER,
            "PARLEY_ISSUERS__STAFF__AUDIENCE": AUDIENCE,
            "PARLEY_ISSUERS__STAFF__JWKS_URI": jwks.url,
            "PARLEY_ISSUERS__STAFF__ALGORITHMS": "ES256",
            "PARLEY_MTLS__BOT__SPIFFE_IDS": "spiffe://prod.example/ns/bots/*",
            "PARLEY_MTLS__BOT__ACT_AS": "telegram:*,staff:ann",
            "PARLEY_AUTH__LOCAL": "false",
        }
        with running_server(tmp_path / "data", environment=environment) as server:
            yield Place(server, jwks)


async def test_an_issuers_keys_are_there_before_the_first_token(place: Place) -> None:
    async with asyncio.timeout(ASKING_S):
        await place.jwks.was_asked.wait()
    assert await place.titles(PLAIN, token("ann")) == []
    assert place.jwks.asked == 1


async def test_users_by_token_and_services_by_certificate_have_what_is_theirs(place: Place) -> None:
    assert await place.titles(PLAIN, token("ann"), new="ann's") == ["ann's"]
    assert await place.titles(PLAIN, token("bob"), new="bob's") == ["bob's"]
    assert await place.titles(BOT, speaking_for="telegram:7", new="seven's") == ["seven's"]
    assert await place.titles(BOT) == []
    assert await place.titles(BOT, speaking_for="staff:ann") == ["ann's"]
    assert await place.titles(PLAIN, token("ann")) == ["ann's"]
    for pair, sent, user in (
        (BOT, token("ann"), ""),
        (PLAIN, "", ""),
        (BOT, "", "staff:bob"),
        (PLAIN, token("ann"), "bob"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await place.titles(pair, sent, user)
        expected = grpc.StatusCode.PERMISSION_DENIED if user else grpc.StatusCode.UNAUTHENTICATED
        assert refused.value.code() is expected
    log = place.server.log
    assert "user:staff:ann" in log
    assert "service:bot" in log
    assert token("ann").partition(".")[0] not in log


async def test_a_hangup_takes_up_an_issuers_new_keys(place: Place) -> None:
    assert await place.titles(PLAIN, token("ann")) == []
    place.jwks.publish(NEXT)
    with pytest.raises(grpc.aio.AioRpcError):
        await place.titles(PLAIN, token("ann", NEXT))
    place.server.signal(signal.SIGHUP)
    await asyncio.to_thread(wait_for_log, place.server, '"reloaded"')
    assert await place.titles(PLAIN, token("ann", NEXT)) == []
    with pytest.raises(grpc.aio.AioRpcError):
        await place.titles(PLAIN, token("ann", KEY))
