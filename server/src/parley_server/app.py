"""The composition root: builds the server from its settings. The only file that names adapters."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
from google.protobuf.descriptor import FileDescriptor
from parley.v1 import (
    admin_service_pb2,
    agent_service_pb2,
    api_key_service_pb2,
    conversation_service_pb2,
)

from parley_server.agents.assistant import build_assistant
from parley_server.agents.registry import AgentRegistry
from parley_server.auth.api_key_provider import StoredKey
from parley_server.auth.factory import ProviderParts, build_auth_chain
from parley_server.auth.hash_key import load_hash_key
from parley_server.auth.key_administration import KeyAdministration
from parley_server.domain.api_key import ApiKey
from parley_server.domain.errors import StartError
from parley_server.llm.model_settings import ModelSettings
from parley_server.llm.offline.script import load_script
from parley_server.llm.offline.server import OFFLINE_MODEL_NAME, OfflineModelServer
from parley_server.llm.openai_service import OpenAIService
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import Listener
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.rpc.server import RpcServer
from parley_server.rpc.service import Service
from parley_server.rpc.servicers.admin_service import AdminServicer
from parley_server.rpc.servicers.agent_service import AgentServicer
from parley_server.rpc.servicers.api_key_service import ApiKeyServicer
from parley_server.rpc.servicers.conversation_service import ConversationServicer
from parley_server.runs.engine import RunEngine
from parley_server.settings import Settings
from parley_server.storage.repositories import Page, PageRequest
from parley_server.storage.sql.api_keys import SqlApiKeyRepository
from parley_server.storage.sql.database import Database
from parley_server.storage.sql.lock_file import DataDirectoryInUseError, LockFile, live_holder
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import SqlStore, open_store
from parley_server.tools.builtin.calculator import calculator
from parley_server.tools.builtin.current_time import current_time_tool
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry

Keys = KeyAdministration[PageRequest, Page[ApiKey]]

_log = structlog.get_logger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the process at once.

    Raises:
        StartError: the server cannot start, and says why.
    """
    stopping = _stop_on_signals()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        try:
            lock = stack.enter_context(LockFile(_lock_path(settings)))
        except DataDirectoryInUseError as error:
            raise StartError(str(error)) from error
        hash_key = _hash_key(settings)
        store = await stack.enter_async_context(_open_store(settings, hash_key, serves=True))
        agents, offline = await _build_agents(settings, stack)
        engine = RunEngine(store, store.worker, agents)
        stack.push_async_callback(engine.park)
        await engine.recover()
        server = _build_server(settings, store, hash_key, agents, engine, offline_model=offline)
        address = await server.start(settings.server)
        stack.push_async_callback(server.stop, settings.server.drain_grace_s)
        server.health.set_serving(True)
        lock.publish(address)
        _log.info("serving", address=address, data_dir=str(settings.data_dir), offline_model=offline)
        await stopping.wait()
        _log.info("stopping")


@asynccontextmanager
async def key_administration(settings: Settings) -> AsyncIterator[Keys]:
    """Open the keys of an installation, beside a running server or without one.

    Raises:
        StartError: the database cannot be reached, or is of another version and may not be upgraded from here.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    hash_key = _hash_key(settings)
    async with _open_store(settings, hash_key, serves=False) as store:
        yield KeyAdministration(store.api_keys, hash_key)


async def upgrade_database(settings: Settings) -> None:
    """Bring the database to this version's schema. Raises StartError while a server is using it."""
    if settings.storage.is_postgres:
        await _upgrade_postgres(settings.storage.url)
        return
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with LockFile(_lock_path(settings)):
            async with SqliteDatabase(_database_path(settings)):
                pass
    except DataDirectoryInUseError as error:
        raise StartError(str(error)) from error


async def _upgrade_postgres(url: str) -> None:
    from parley_server.storage.sql.postgres import PostgresDatabase, Purpose  # noqa: PLC0415  # for who has it

    async with PostgresDatabase(url, Purpose.UPGRADE):
        pass


@asynccontextmanager
async def _open_store(settings: Settings, hash_key: bytes, *, serves: bool) -> AsyncIterator[SqlStore]:
    async with (
        _database(settings, serves=serves) as database,
        open_store(database, ProtoEventCodec(), hash_key) as store,
    ):
        yield store


def _database(settings: Settings, *, serves: bool) -> AbstractAsyncContextManager[Database]:
    """Return the database of the settings, to be opened; raises StartError when that cannot be."""
    if not settings.storage.is_postgres:
        may_upgrade = serves or live_holder(_lock_path(settings)) is None
        return SqliteDatabase(_database_path(settings), may_upgrade=may_upgrade)
    from parley_server.storage.sql.postgres import PostgresDatabase, Purpose  # noqa: PLC0415  # for who has it

    return PostgresDatabase(settings.storage.url, Purpose.SERVE if serves else Purpose.ADMINISTER)


async def _build_agents(settings: Settings, stack: AsyncExitStack) -> tuple[AgentRegistry, bool]:
    """Build the agents and the model they ask; tell whether it is the offline one."""
    model_settings = settings.model_settings()
    offline = model_settings is None
    if model_settings is None:
        upstream = await stack.enter_async_context(OfflineModelServer(load_script()))
        model_settings = ModelSettings(base_url=upstream.base_url, name=OFFLINE_MODEL_NAME)
        _log.warning("offline_model", hint="no AI answers: set OPENAI_API_KEY or [model] base_url to connect one")
    model = OpenAIService(model_settings)
    stack.push_async_callback(model.aclose)
    tools = ToolRegistry([calculator, current_time_tool()])
    assistant = build_assistant(
        model=model, model_name=model_settings.name, tools=tools, tool_calls=ToolCallManager(tools)
    )
    return AgentRegistry([assistant]), offline


def _build_server(
    settings: Settings,
    store: SqlStore,
    hash_key: bytes,
    agents: AgentRegistry,
    engine: RunEngine,
    *,
    offline_model: bool,
) -> RpcServer:
    drain = Drain()
    types = settings.auth.provider_types(listens_locally=Listener.parse(settings.server.listen).is_local)
    chain = build_auth_chain(types, ProviderParts(_StoredKeys(store.api_keys), hash_key))
    keys: Keys = KeyAdministration(store.api_keys, hash_key, on_revoke=chain.forget)
    return RpcServer(
        (
            _service(agent_service_pb2.DESCRIPTOR, "AgentService", AgentServicer(engine, agents, store, drain)),
            _service(conversation_service_pb2.DESCRIPTOR, "ConversationService", ConversationServicer(store)),
            _service(api_key_service_pb2.DESCRIPTOR, "ApiKeyService", ApiKeyServicer(keys)),
            _service(admin_service_pb2.DESCRIPTOR, "AdminService", AdminServicer(agents, offline_model=offline_model)),
        ),
        chain,
        drain,
    )


class _StoredKeys:
    """Implements the KeyStore that authentication asks for, over the store's keys."""

    def __init__(self, keys: SqlApiKeyRepository) -> None:
        self._keys = keys

    async def find(self, key_id: str) -> StoredKey | None:
        """Return a key with its hash."""
        found = await self._keys.find(key_id)
        return None if found is None else StoredKey(*found)


def _service(file: FileDescriptor, name: str, servicer: object) -> Service:
    return Service(file.services_by_name[name], servicer)


def _lock_path(settings: Settings) -> Path:
    return settings.data_dir / "server.lock"


def _database_path(settings: Settings) -> Path:
    return settings.storage.sqlite_path(settings.data_dir)


def _hash_key(settings: Settings) -> bytes:
    configured = settings.auth.hash_key
    text = None if configured is None else configured.get_secret_value()
    return load_hash_key(text, settings.auth.hash_key_file, settings.data_dir)


def _stop_on_signals() -> asyncio.Event:
    """Return what the first SIGTERM or SIGINT sets; the second one does not wait for anything."""
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(130)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stopping
