"""A server of keys, delegations and conversations over a real store, for tests of who may do what."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from parley.v1 import (
    api_key_service_pb2,
    api_key_service_pb2_grpc,
    conversation_service_pb2,
    conversation_service_pb2_grpc,
    delegation_service_pb2,
    delegation_service_pb2_grpc,
)
from parley_server.auth.delegation_signer import DelegationSigner
from parley_server.auth.delegations import Delegations
from parley_server.auth.factory import ProviderParts, build_auth_chain
from parley_server.auth.key_administration import KeyAdministration
from parley_server.composition.auditing import open_auditor
from parley_server.domain.api_key import ApiKey
from parley_server.domain.principal import ALL_SCOPES, PrincipalKind
from parley_server.metrics.recorder import SILENT
from parley_server.rpc.call_checks import CallChecks
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import ServerSettings
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.rpc.server import RpcServer
from parley_server.rpc.service import Service
from parley_server.rpc.servicers.api_key_service import ApiKeyServicer
from parley_server.rpc.servicers.conversation_service import ConversationServicer
from parley_server.rpc.servicers.delegation_service import DelegationServicer
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore, open_store
from rpc.chassis import HASH_KEY, bearer

Administration = KeyAdministration[PageRequest, Page[ApiKey]]


@dataclass(frozen=True)
class KeyServer:
    """The stubs, and a way to make credentials for them; what is changed `elsewhere` is in another process."""

    keys: "api_key_service_pb2_grpc.ApiKeyServiceAsyncStub"
    conversations: "conversation_service_pb2_grpc.ConversationServiceAsyncStub"
    delegations: "delegation_service_pb2_grpc.DelegationServiceAsyncStub"
    administration: Administration
    store: SqlStore
    elsewhere: Administration

    async def metadata(
        self,
        subject: str,
        kind: PrincipalKind = PrincipalKind.USER,
        scopes: Sequence[str] = tuple(ALL_SCOPES),
        act_as: Sequence[str] = (),
    ) -> grpc.aio.Metadata:
        """Make a key and return what its holder sends."""
        _, text = await self.administration.create(kind, subject, scopes, act_as)
        return grpc.aio.Metadata(*bearer(text))


@asynccontextmanager
async def serving_keys(folder: Path) -> AsyncIterator[KeyServer]:
    """Serve for a block."""
    async with (
        SqliteDatabase(folder / "parley.db") as database,
        open_store(database, ProtoEventCodec(), HASH_KEY) as store,
        open_auditor(store, SILENT) as auditor,
    ):
        chain = build_auth_chain(("api_key", "delegation", "local"), ProviderParts(store.api_keys, HASH_KEY))
        administration: Administration = KeyAdministration(store.api_keys, HASH_KEY, on_change=chain.forget)
        drain, signer = Drain(), DelegationSigner(HASH_KEY)
        services = [
            Service(
                api_key_service_pb2.DESCRIPTOR.services_by_name["ApiKeyService"],
                ApiKeyServicer(administration),
            ),
            Service(
                delegation_service_pb2.DESCRIPTOR.services_by_name["DelegationService"],
                DelegationServicer(Delegations(signer), signer),
            ),
            Service(
                conversation_service_pb2.DESCRIPTOR.services_by_name["ConversationService"],
                ConversationServicer(store, drain),
            ),
        ]
        server = RpcServer(services, chain, drain, checks=CallChecks(auditor=auditor))
        address = await server.start(ServerSettings(listen="127.0.0.1:0"))
        async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield KeyServer(
                api_key_service_pb2_grpc.ApiKeyServiceStub(channel),
                conversation_service_pb2_grpc.ConversationServiceStub(channel),
                delegation_service_pb2_grpc.DelegationServiceStub(channel),
                administration,
                store,
                KeyAdministration(store.api_keys, HASH_KEY),
            )
        await server.stop(0)
