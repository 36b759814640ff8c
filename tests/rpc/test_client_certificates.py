"""Services that prove themselves by the certificate of their connection: real handshakes, and what each comes to."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from certificates import Pair, authority, issued_by
from parley.v1 import run_pb2
from parley_server.auth.api_key_provider import ApiKeyProvider
from parley_server.auth.local import LocalProvider, operating_system_user
from parley_server.auth.mtls import MtlsProvider
from parley_server.auth.mtls_settings import MtlsServiceSettings
from parley_server.domain.principal import PrincipalKind
from rpc.chassis import HASH_KEY, Keys, Metadata, bearer, failed
from rpc.tls_server import TlsServer, get_run, serving_tls

CODE = grpc.StatusCode
CA, OTHER_CA = authority(), authority("Other CA")
BOT = "spiffe://prod.example/ns/bots/sa/telegram"
WORKER = "spiffe://prod.example/ns/workers/7"
SERVICES = {
    "bot": MtlsServiceSettings(spiffe_ids=(BOT,), act_as=("telegram:*",)),
    "workers": MtlsServiceSettings(spiffe_ids=("spiffe://prod.example/ns/workers/*",), service="worker"),
}


@dataclass(frozen=True)
class Place:
    """A server that knows the services, its keys, and the time it goes by."""

    server: TlsServer
    keys: Keys
    passed: list[timedelta]

    async def called_by(self, *names: str, metadata: Metadata = (), pair: Pair | None = None) -> run_pb2.Run:
        """Call over a connection of its own, with a certificate for these names."""
        shown = pair or issued_by(CA, "client", hosts=names)
        async with self.server.channel(CA.certificate_pem, shown) as channel:
            return (await get_run(channel, metadata)).run

    async def refuses(self, *names: str, metadata: Metadata = (), pair: Pair | None = None) -> bool:
        failure = await failed(asyncio.ensure_future(self.called_by(*names, metadata=metadata, pair=pair)))
        assert (failure.code, failure.reason) == (CODE.UNAUTHENTICATED, "CREDENTIALS_INVALID")
        return failure.message == "missing or invalid credentials"


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    keys, passed = Keys(), [timedelta()]
    # In the order in which a certificate has the least to say.
    providers = [
        ApiKeyProvider(keys, HASH_KEY),
        MtlsProvider(SERVICES, lambda: datetime.now(UTC) + passed[0]),
        LocalProvider(),
    ]
    folder = tmp_path_factory.mktemp("tls")
    async with serving_tls(folder, issued_by(CA), client_ca=CA, providers=providers) as server:
        yield Place(server, keys, passed)


def speaking_for(user_id: str) -> Metadata:
    return (("parley-context", f'{{"userId":"{user_id}"}}'),)


async def test_a_certificate_is_the_service_whose_id_it_has(place: Place) -> None:
    assert (await place.called_by(BOT)).conversation_id == "bot"
    assert (await place.called_by(WORKER)).conversation_id == "worker"
    assert (await place.called_by(WORKER, "client.prod.example", "10.0.0.7")).conversation_id == "worker"


async def test_a_service_speaks_for_whom_its_patterns_name(place: Place) -> None:
    said = await place.called_by(BOT, metadata=speaking_for("telegram:42"))
    assert (said.agent_id, said.conversation_id) == ("telegram:42", "bot")
    for names, user_id in (((BOT,), "ann"), ((WORKER,), "telegram:42")):
        failure = await failed(asyncio.ensure_future(place.called_by(*names, metadata=speaking_for(user_id))))
        assert (failure.code, failure.reason) == (CODE.PERMISSION_DENIED, "USER_MISMATCH")


REFUSED = {
    "another path": (BOT + "2",),
    "a path above": ("spiffe://prod.example/ns/workers",),
    "a path below": (BOT + "/x",),
    "another trust domain": (BOT.replace("prod", "test"),),
    "a trust domain that begins alike": (BOT.replace("example", "example.evil"),),
    "two ids": (BOT, WORKER),
    "the same id twice": (BOT, BOT),
    "an id and another URI": (BOT, "https://prod.example/"),
    "a way up": ("spiffe://prod.example/ns/workers/../bots/sa/telegram",),
    "an empty part": ("spiffe://prod.example/ns/workers//7",),
    "no path": ("spiffe://prod.example",),
    "a slash at the end": (WORKER + "/",),
    "a question": (WORKER + "?x=1",),
    "a fragment": (WORKER + "#x",),
    "a user": ("spiffe://x@prod.example/ns/workers/7",),
    "a port": ("spiffe://prod.example:1/ns/workers/7",),
    "a percent": ("spiffe://prod.example/ns/workers/%37",),
    "capitals": ("SPIFFE://prod.example/ns/workers/7",),
    "a trust domain in capitals": (WORKER.replace("prod", "PROD"),),
    "too long": (WORKER + "7" * 2048,),
}


@pytest.mark.parametrize("names", REFUSED.values(), ids=REFUSED.keys())
async def test_an_identity_that_is_nobodys_is_refused_and_nobody_else_is_asked(
    place: Place, names: tuple[str, ...]
) -> None:
    assert await place.refuses(*names)


async def test_an_authoritys_certificate_is_no_services(place: Place) -> None:
    assert await place.refuses(pair=issued_by(CA, hosts=[BOT], is_authority=True))


async def test_nothing_but_the_uri_is_an_identity(place: Place) -> None:
    """Not the common name, not a DNS name, and not what a proxy says: such a certificate opens the connection."""
    said: Metadata = (
        ("x-forwarded-client-cert", f"URI={BOT}"),
        ("x-client-cert", issued_by(CA, hosts=[BOT]).certificate_pem.decode().replace("\n", "")),
        ("x-ssl-client-s-dn", "CN=bot"),
        ("ssl-client-verify", "SUCCESS"),
    )
    for pair in (issued_by(CA, BOT), issued_by(CA, "bot", hosts=["bot", "spiffe.prod.example", "127.0.0.1"])):
        assert (await place.called_by(pair=pair, metadata=said)).conversation_id == operating_system_user()


async def test_a_certificate_of_another_ca_opens_no_connection(place: Place) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await place.called_by(pair=issued_by(OTHER_CA, hosts=[BOT]))
    assert error.value.code() is CODE.UNAVAILABLE


async def test_a_certificate_that_ends_under_way_is_good_no_longer(place: Place) -> None:
    pair = issued_by(CA, hosts=[BOT], ends=datetime.now(UTC) + timedelta(hours=1))
    async with place.server.channel(CA.certificate_pem, pair) as channel:
        assert (await get_run(channel)).run.conversation_id == "bot"
        try:
            place.passed[0] = timedelta(hours=1)
            failure = await failed(asyncio.ensure_future(get_run(channel)))
            assert (failure.code, failure.reason) == (CODE.UNAUTHENTICATED, "CREDENTIALS_INVALID")
        finally:
            place.passed[0] = timedelta()
        assert (await get_run(channel)).run.conversation_id == "bot"


async def test_two_credentials_in_one_call_are_refused_whatever_they_are(place: Place) -> None:
    key = place.keys.issue("ann")
    own = place.keys.issue("bot", PrincipalKind.SERVICE)
    assert await place.refuses(BOT, metadata=bearer(key))
    assert await place.refuses(BOT, metadata=bearer(own))
    assert await place.refuses(BOT, metadata=(("authorization", ""),))
    assert await place.refuses(BOT, metadata=bearer(key) + bearer(key))
    assert (await place.called_by("client.example", metadata=bearer(key))).conversation_id == "ann"
    assert await place.refuses(BOT, metadata=bearer(key)), "also where the key is remembered"


async def test_a_certificate_that_names_no_service_leaves_room_for_a_key(place: Place) -> None:
    key = place.keys.issue("ann")
    for name in ("client.example", "spiffe://mesh.example/ns/x", BOT + "/x"):
        assert (await place.called_by(name, metadata=bearer(key))).conversation_id == "ann"
