"""The composition root: opens what a server is made of, in order, serves, and closes it again."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from google.protobuf.descriptor import FileDescriptor
from parley.v1 import (
    account_service_pb2,
    admin_service_pb2,
    agent_service_pb2,
    api_key_service_pb2,
    approval_service_pb2,
    conversation_service_pb2,
    delegation_service_pb2,
    tool_service_pb2,
    usage_service_pb2,
)

from parley_server import overdue
from parley_server.agents.assistant import build_assistant
from parley_server.agents.registry import AgentRegistry
from parley_server.auth.last_use import LastUses
from parley_server.composition.account_keeping import AccountKeeping, keep_accounts
from parley_server.composition.admission import Access, open_access
from parley_server.composition.auditing import open_auditor
from parley_server.composition.installation import hash_key_of, lock_path, make_data_dir, open_installed_store
from parley_server.composition.quota_setup import open_quotas
from parley_server.composition.tooling import build_tool_calls, open_tools
from parley_server.domain.errors import StartError
from parley_server.llm.factory import Models, open_models
from parley_server.llm.prices import Prices
from parley_server.logs import end_process
from parley_server.metrics.endpoint import NOT_READY, READY, Answer, MetricsEndpoint
from parley_server.metrics.prometheus import CONTENT_TYPE, PrometheusRecorder
from parley_server.metrics.recorder import Gauge, Recorder
from parley_server.quotas.administration import BudgetAdministration
from parley_server.quotas.quotas import Quotas
from parley_server.rpc.auditor import Auditor
from parley_server.rpc.call_checks import CallChecks
from parley_server.rpc.call_observer import CallObserver
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import Listener, complain_of_insecurity, connections_held
from parley_server.rpc.request_log import RequestLog
from parley_server.rpc.server import RpcServer
from parley_server.rpc.server_options import server_options
from parley_server.rpc.service import Service
from parley_server.rpc.servicers.account_service import AccountServicer
from parley_server.rpc.servicers.admin_service import AdminServicer
from parley_server.rpc.servicers.agent_service import AgentServicer
from parley_server.rpc.servicers.api_key_service import ApiKeyServicer
from parley_server.rpc.servicers.approval_service import ApprovalServicer
from parley_server.rpc.servicers.conversation_service import ConversationServicer
from parley_server.rpc.servicers.delegation_service import DelegationServicer
from parley_server.rpc.servicers.tool_service import ToolServicer
from parley_server.rpc.servicers.usage_service import UsageServicer
from parley_server.rpc.tls_settings import CertificateFiles
from parley_server.runs.engine import RunEngine
from parley_server.settings import Settings
from parley_server.signals import ProcessSignals, Requests
from parley_server.storage.retention import Sweeper
from parley_server.storage.sql.lock_file import DataDirectoryInUseError, LockFile
from parley_server.storage.sql.store import SqlStore
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import Tool

if TYPE_CHECKING:
    from parley_server.rpc.tls import CertificateReloader

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a server is made of."""

    store: SqlStore
    models: Models
    access: Access
    tools: ToolRegistry
    agents: AgentRegistry
    quotas: Quotas
    budgets: BudgetAdministration
    engine: RunEngine
    accounts: AccountKeeping
    observer: CallObserver
    auditor: Auditor


async def serve(
    settings: Settings,
    signals: ProcessSignals,
    dropped_log_lines: Callable[[], int] = int,
    more_tools: Sequence[Tool] = (),
) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the process at once. SIGHUP reads certificates and keys anew.

    `dropped_log_lines` is read, from any thread, for the metrics. The default agent has `more_tools` besides its own.

    Raises:
        StartError: the server cannot start, and says why.
    """
    recorder = PrometheusRecorder()
    recorder.watch(Gauge.LOG_DROPPED, dropped_log_lines)
    with signals.requests() as requests:
        await _serve(settings, requests, recorder, more_tools)


async def _serve(
    settings: Settings, requests: Requests, recorder: PrometheusRecorder, more_tools: Sequence[Tool]
) -> None:
    certificates = None if settings.tls.files is None else _open_certificates(settings.tls.files)
    make_data_dir(settings)
    async with AsyncExitStack() as stack:
        try:
            lock = stack.enter_context(LockFile(lock_path(settings)))
        except DataDirectoryInUseError as error:
            raise StartError(str(error)) from error
        parts = await _open_parts(stack, settings, recorder, more_tools)
        server = _build_server(settings, parts)
        metrics_address = stack.enter_context(_metrics(settings, recorder, server))
        if requests.stop.is_set():
            return
        address = server.bind(settings.server, None if certificates is None else certificates.credentials())
        # After all that may keep the server from starting, for it costs every run that was cut one of its attempts.
        await _recover(parts.engine)
        await parts.accounts.eraser.resume()
        await server.serve(settings.server.overload_lag_s)
        for work in _upkeep(settings, address, parts.access, certificates, requests.reload):
            stack.callback(_begin(work).cancel)
        sweeper = Sweeper(parts.store.retention, settings.retention, settings.audit.keep_days)
        stack.callback(_begin(sweeper.sweep_for_ever()).cancel)
        stack.push_async_callback(server.stop, settings.server.drain_grace_s, settings.server.drain_delay_s)
        server.health.set_serving(True)
        parts.store.watch_availability(server.health.set_storing)
        # Each full collection would look through all that the start has built, and stop every stream for 0.1 s.
        gc.freeze()
        gc.enable()
        lock.publish(address)
        where = {"address": address, "metrics": metrics_address, "data_dir": str(settings.data_dir)}
        _log.info("serving", **where, offline_model=parts.models.is_offline)
        await requests.stop.wait()
        _log.info("stopping")
        drain_s = settings.server.drain_delay_s + settings.server.drain_grace_s
        overdue.end_when_overdue(drain_s + overdue.MARGIN_S, end_process)


async def _open_parts(
    stack: AsyncExitStack, settings: Settings, recorder: Recorder, more_tools: Sequence[Tool]
) -> _Parts:
    """Open all that serves calls; `stack` closes it. Raises StartError."""
    hash_key = hash_key_of(settings)
    store = await stack.enter_async_context(open_installed_store(settings, hash_key, recorder, serves=True))
    models = await stack.enter_async_context(open_models(settings.model_settings(), settings.providers, recorder))
    last_uses = await stack.enter_async_context(LastUses(store.api_keys.record_uses))
    access = await stack.enter_async_context(open_access(settings, store, hash_key, last_uses))
    tools = await stack.enter_async_context(open_tools(settings, store, access.delegations, more_tools))
    tool_calls = build_tool_calls(settings, store, tools.registry, recorder, access.credentials)
    agents = _build_agents(models, Prices(settings.prices), tools.registry, tool_calls)
    quotas, budgets = await open_quotas(settings, store, (model.name for model in models.catalog.models))
    expiry = timedelta(seconds=settings.approvals.expiry_s)
    engine = RunEngine(
        store, store.worker, agents, recorder, models=models.catalog, approval_expiry=expiry, quotas=quotas
    )
    stack.push_async_callback(engine.park)
    return _Parts(
        store=store,
        models=models,
        access=access,
        tools=tools.registry,
        agents=agents,
        quotas=quotas,
        budgets=budgets,
        engine=engine,
        accounts=await stack.enter_async_context(keep_accounts(settings, store, engine, access, tools)),
        observer=CallObserver(recorder, _request_log(settings, hash_key)),
        auditor=await stack.enter_async_context(open_auditor(store, recorder)),
    )


async def _recover(engine: RunEngine) -> None:
    try:
        await engine.recover()
    except (ValueError, LookupError) as error:
        _log.error("recovery_failed", exc_info=error)
        raise StartError(
            "what unfinished runs left in the database cannot be read; `parley-server db check` says what is wrong"
        ) from error


def _build_agents(models: Models, prices: Prices, tools: ToolRegistry, calls: ToolCallManager) -> AgentRegistry:
    default_model = models.catalog.models[0].name
    assistant = build_assistant(
        model=models.service,
        model_name=default_model,
        tools=tools,
        tool_calls=calls,
        prices=prices,
        profiles=models.profiles,
    )
    return AgentRegistry([assistant])


def _build_server(settings: Settings, parts: _Parts) -> RpcServer:
    drain = Drain()
    store, agents, engine, accounts = parts.store, parts.agents, parts.engine, parts.accounts
    account = AccountServicer(store, accounts.cache, accounts.eraser, drain)
    delegations = DelegationServicer(parts.access.delegations, parts.access.signer)
    admin = AdminServicer(agents, parts.models.catalog, store.audit, offline_model=parts.models.is_offline)
    usage = UsageServicer(store, parts.budgets, store.page_tokens)
    return RpcServer(
        (
            _service(agent_service_pb2.DESCRIPTOR, "AgentService", AgentServicer(engine, agents, store, drain)),
            _service(conversation_service_pb2.DESCRIPTOR, "ConversationService", ConversationServicer(store, drain)),
            _service(tool_service_pb2.DESCRIPTOR, "ToolService", ToolServicer(agents, parts.tools, store)),
            _service(approval_service_pb2.DESCRIPTOR, "ApprovalService", ApprovalServicer(engine, store)),
            _service(api_key_service_pb2.DESCRIPTOR, "ApiKeyService", ApiKeyServicer(parts.access.keys)),
            _service(delegation_service_pb2.DESCRIPTOR, "DelegationService", delegations),
            _service(account_service_pb2.DESCRIPTOR, "AccountService", account),
            _service(usage_service_pb2.DESCRIPTOR, "UsageService", usage),
            _service(admin_service_pb2.DESCRIPTOR, "AdminService", admin),
        ),
        parts.access.chain,
        drain,
        reflection=settings.server.reflects,
        options=server_options(connections_held(settings.server.max_connections)),
        observer=parts.observer,
        checks=CallChecks(accounts.cache, parts.auditor, parts.quotas, settings.auth.recheck_s),
    )


def _request_log(settings: Settings, hash_key: bytes) -> RequestLog | None:
    if not settings.log.requests:
        return None
    return RequestLog(name_key=hash_key if settings.log.hash_users else b"")


@contextmanager
def _metrics(settings: Settings, recorder: PrometheusRecorder, server: RpcServer) -> Iterator[str]:
    """Serve the pages for whoever watches the server, where the settings want it; yield their address."""
    if not settings.metrics.listen:
        yield ""
        return
    pages = {
        "/metrics": lambda: Answer(recorder.scrape(), content_type=CONTENT_TYPE),
        "/healthz": lambda: Answer(b"alive\n"),
        "/readyz": lambda: READY if server.is_ready else NOT_READY,
    }
    with MetricsEndpoint(settings.metrics, pages) as endpoint:
        yield endpoint.address


def _service(file: FileDescriptor, name: str, servicer: object) -> Service:
    return Service(file.services_by_name[name], servicer)


def _upkeep(
    settings: Settings,
    address: str,
    access: Access,
    certificates: "CertificateReloader | None",
    asked: asyncio.Event,
) -> Iterator[Coroutine[object, object, None]]:
    """Yield what goes on beside the calls for as long as the server does."""
    yield _reload_when(asked, access, certificates)
    if certificates is not None:
        yield certificates.watch()
    elif not Listener.parse(settings.server.listen).is_local:
        yield complain_of_insecurity(address)


def _open_certificates(files: CertificateFiles) -> "CertificateReloader":
    from parley_server.rpc.tls import CertificateReloader  # noqa: PLC0415 - takes 8 MiB, which is for TLS alone

    return CertificateReloader(files)


async def _reload_when(asked: asyncio.Event, access: Access, certificates: "CertificateReloader | None") -> None:
    """Read again what may change under way, every time it is asked for."""
    while True:
        await asked.wait()
        asked.clear()
        access.forget_all()
        if certificates is not None:
            await certificates.reload()
        _log.info("reloaded")


def _begin(work: Coroutine[object, object, None]) -> asyncio.Task[None]:
    """Begin what never ends by itself; a fault in it is told, and takes nothing else with it."""

    def tell(ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            _log.error("upkeep_failed", work=repr(ended.get_coro()), exc_info=error)

    task = asyncio.create_task(work)
    task.add_done_callback(tell)
    return task
