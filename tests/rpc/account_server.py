"""A server of accounts, keys, conversations and runs over a real store, in this process."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import grpc
from parley.v1 import (
    account_pb2,
    account_service_pb2,
    account_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    conversation_service_pb2,
    conversation_service_pb2_grpc,
)
from parley_server.accounts.cache import AccountCache
from parley_server.accounts.eraser import AccountEraser
from parley_server.agents.base import AgentDescription
from parley_server.agents.registry import AgentRegistry
from parley_server.agents.tool_loop_agent import ToolLoopAgent
from parley_server.auth.factory import ProviderParts, build_auth_chain
from parley_server.auth.key_administration import KeyAdministration
from parley_server.domain.api_key import ApiKey
from parley_server.domain.principal import PrincipalKind
from parley_server.rpc.call_checks import CallChecks
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import ServerSettings
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.rpc.server import RpcServer
from parley_server.rpc.service import Service
from parley_server.rpc.servicers.account_service import AccountServicer
from parley_server.rpc.servicers.agent_service import AgentServicer
from parley_server.rpc.servicers.conversation_service import ConversationServicer
from parley_server.runs.engine import RunEngine
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore, open_store
from parley_server.tools.builtin.current_time import current_time_tool
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from rpc.chassis import HASH_KEY, Metadata, bearer
from rpc.run_server import ObedientModel

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class AccountServer:
    """A running server; `store` is what it serves from, `drain` what stops its streams."""

    path: Path
    address: str
    store: SqlStore
    drain: Drain
    keys: "KeyAdministration[PageRequest, Page[ApiKey]]"
    channels: AsyncExitStack

    async def caller(
        self,
        subject: str,
        kind: PrincipalKind = PrincipalKind.USER,
        scopes: Sequence[str] = (),
        acts_for: str = "",
    ) -> "AccountCaller":
        """Make a key, and a connection of its own for it."""
        _, text = await self.keys.create(kind, subject, scopes, [acts_for] if acts_for else [])
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = await self.channels.enter_async_context(grpc.aio.insecure_channel(self.address, options=options))
        claimed = (("parley-context", f'{{"userId":"{acts_for}"}}'),) if acts_for else ()
        return AccountCaller(
            account_service_pb2_grpc.AccountServiceStub(channel),
            agent_service_pb2_grpc.AgentServiceStub(channel),
            conversation_service_pb2_grpc.ConversationServiceStub(channel),
            (*bearer(text), *claimed),
        )

    def rows(self, table: str, column: str, value: str) -> list[dict[str, object]]:
        """Read a table past the server."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"SELECT * FROM {table} WHERE {column} = ?", (value,))  # noqa: S608
            return [dict(row) for row in found]


@dataclass(frozen=True)
class AccountCaller:
    """Somebody on a connection of his own."""

    accounts: "account_service_pb2_grpc.AccountServiceAsyncStub"
    agents: "agent_service_pb2_grpc.AgentServiceAsyncStub"
    conversations: "conversation_service_pb2_grpc.ConversationServiceAsyncStub"
    metadata: Metadata

    async def get(self) -> account_pb2.Account:
        request = account_service_pb2.GetAccountRequest()
        return (await self.accounts.GetAccount(request, metadata=self.metadata, timeout=TIMEOUT_S)).account

    async def update(self, account: account_pb2.Account, *paths: str) -> account_pb2.Account:
        request = account_service_pb2.UpdateAccountRequest(account=account)
        request.update_mask.paths.extend(paths)
        return (await self.accounts.UpdateAccount(request, metadata=self.metadata, timeout=TIMEOUT_S)).account

    async def erase(self, user_id: str, confirmation: str = "") -> account_service_pb2.ErasureState.ValueType:
        request = account_service_pb2.EraseAccountRequest(user_id=user_id, confirmation=confirmation or user_id)
        return (await self.accounts.EraseAccount(request, metadata=self.metadata, timeout=TIMEOUT_S)).state

    async def export(self) -> list[str]:
        """Return the lines."""
        request = account_service_pb2.ExportAccountRequest()
        call = self.accounts.ExportAccount(request, metadata=self.metadata, timeout=TIMEOUT_S)
        return "".join([response.json_lines async for response in call]).splitlines()

    async def create(self, title: str) -> str:
        """Make a conversation; returns its id."""
        request = conversation_service_pb2.CreateConversationRequest(title=title)
        made = await self.conversations.CreateConversation(request, metadata=self.metadata, timeout=TIMEOUT_S)
        return made.conversation.conversation_id


@asynccontextmanager
async def account_server(folder: Path) -> AsyncIterator[AccountServer]:
    """Run a server for a block, on a store of its own."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(SqliteDatabase(folder / "parley.db"))
        store = await stack.enter_async_context(open_store(database, ProtoEventCodec(), HASH_KEY))
        tools = ToolRegistry([current_time_tool()])
        agent = ToolLoopAgent(
            AgentDescription("assistant", "Assistant", "Helps.", "m", tools.names),
            "Obey.",
            model=ObedientModel(),
            tools=tools,
            tool_calls=ToolCallManager(tools),
        )
        agents, drain = AgentRegistry([agent]), Drain()
        engine = RunEngine(store, store.worker, agents)
        stack.push_async_callback(engine.park)
        chain = build_auth_chain(("api_key",), ProviderParts(store.api_keys, HASH_KEY))

        async def forget_keys(user_id: str) -> None:
            chain.forget_user(user_id)

        cache = AccountCache(store.accounts)
        eraser = AccountEraser(store.erasures, engine, cache, [forget_keys])
        stack.push_async_callback(eraser.stop)
        services = [
            _service(account_service_pb2, "AccountService", AccountServicer(store, cache, eraser, drain)),
            _service(agent_service_pb2, "AgentService", AgentServicer(engine, agents, store, drain)),
            _service(conversation_service_pb2, "ConversationService", ConversationServicer(store, drain)),
        ]
        server = RpcServer(services, chain, drain, checks=CallChecks(accounts=cache))
        address = await server.start(ServerSettings(listen="127.0.0.1:0"))
        stack.push_async_callback(server.stop, 0)
        keys = KeyAdministration(store.api_keys, HASH_KEY, on_change=chain.forget)
        channels = await stack.enter_async_context(AsyncExitStack())
        yield AccountServer(folder / "parley.db", address, store, drain, keys, channels)


def _service(module: ModuleType, name: str, servicer: object) -> Service:
    return Service(module.DESCRIPTOR.services_by_name[name], servicer)
