"""The composition of tools: what is built in, what is installed, what comes from elsewhere while the server runs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from parley_server.auth.credential_check import CredentialCheck
from parley_server.auth.delegations import Delegations, HostCall
from parley_server.domain.access_errors import DelegationTooDeepError
from parley_server.domain.errors import StartError
from parley_server.metrics.recorder import Gauge, Recorder
from parley_server.rpc.mapping.request_context import to_binary
from parley_server.settings import Settings
from parley_server.storage.repositories import Store
from parley_server.tools.approval_gate import ApprovalGate
from parley_server.tools.approval_policy import ApprovalPolicy
from parley_server.tools.builtin.calculator import calculator
from parley_server.tools.builtin.current_time import current_time_tool
from parley_server.tools.builtin.notes import note_tools
from parley_server.tools.builtin.read_result import read_result_tool
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.credentials.directory import CredentialDirectory
from parley_server.tools.credentials.opening import open_credentials
from parley_server.tools.discovery import discover, register
from parley_server.tools.errors import ToolError
from parley_server.tools.mcp.mcp_settings import PACKAGE_MISSING
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.remote.host_settings import ToolHostSettings
from parley_server.tools.source import ToolSource, published
from parley_server.tools.threads import ToolThreads
from parley_server.tools.tool import Tool, ToolContext

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenTools:
    """The registry of all tools, and where those come from that are not of this process."""

    registry: ToolRegistry
    sources: Sequence[ToolSource]

    async def forget(self, user_id: str) -> None:
        """Drop what sources keep for a user who is being erased."""
        for source in self.sources:
            source.forget(user_id)


async def delete_credentials(settings: Settings, user_id: str) -> None:
    """Delete the files with the secrets of a user who is being erased; the log says where that cannot be."""
    directory = CredentialDirectory(settings.credentials.directory(settings.data_dir))
    try:
        await asyncio.to_thread(directory.delete_all, user_id)
    except StartError as error:
        # Where they are mounted, they are the operator's.
        _log.error("credentials_not_deleted", problem=str(error))


@asynccontextmanager
async def open_tools(
    settings: Settings, store: Store, delegations: Delegations, more_tools: Sequence[Tool] = ()
) -> AsyncIterator[OpenTools]:
    """Yield all tools, and keep the tools of sources up to date while the block lasts.

    `delegations` make what proves to tool hosts for whom they work.

    Raises:
        StartError: the settings name tools that cannot be had, or two tools have one name.
    """
    sources = list(_sources(settings, delegations))
    registry = build_tools(settings, store, more_tools, sources)
    async with published(sources, registry):
        yield OpenTools(registry, sources)


def build_tools(
    settings: Settings, store: Store, more_tools: Sequence[Tool] = (), sources: Iterable[ToolSource] = ()
) -> ToolRegistry:
    """Make the registry with the tools that are here already. Raises StartError as `open_tools` says."""
    tools = [calculator, current_time_tool(), *note_tools(store), read_result_tool(store)]
    if settings.tools.fetch_url.enabled:
        from parley_server.tools.builtin.fetch_url import fetch_url_tool  # noqa: PLC0415  # for who wants it

        tools.append(fetch_url_tool(settings.tools.fetch_url))
    prefixes = [source.prefix for source in sources]
    return register([*tools, *more_tools], discover(settings.tools.modules), settings.tools.disabled, prefixes)


def build_tool_calls(
    settings: Settings, store: Store, tools: ToolRegistry, recorder: Recorder, callers: CredentialCheck
) -> ToolCallManager:
    """Make what runs the calls of these tools, once the user has approved those that want it.

    `callers` tells before each WRITE whether the run's caller is still let in.

    Raises:
        StartError: the settings name a source of credentials that cannot be had.
    """
    gate = ApprovalGate(ApprovalPolicy(settings.approvals, tuple(settings.approval_rules.values())), store)
    threads = ToolThreads(settings.tools.threads)
    recorder.watch(Gauge.TOOL_THREADS_STUCK, lambda: threads.stuck)
    credentials = open_credentials(settings.credentials, settings.data_dir)
    return ToolCallManager(tools, threads, settings.tools.call_limits(), gate, credentials, callers.require)


def _sources(settings: Settings, delegations: Delegations) -> Iterator[ToolSource]:
    """Yield every source of tools that the settings name."""
    if settings.tool_hosts:
        from parley_server.tools.grpc_source import GrpcToolSource  # noqa: PLC0415  # for who has such hosts

        for name, host in settings.tool_hosts.items():
            yield GrpcToolSource(name, host, to_binary, proof=_proof(delegations, name, host))
    if settings.mcp:
        yield from _mcp_sources(settings)


def _proof(delegations: Delegations, host: str, settings: ToolHostSettings) -> Callable[[ToolContext, float], str]:
    """Return what makes the tokens of a host's calls; a run that may go no further is told so."""
    scopes = frozenset(settings.delegate_scopes)

    def make(context: ToolContext, lifetime_s: float) -> str:
        call = HostCall(host, context.run_id, context.call_id, lifetime_s, scopes)
        try:
            return delegations.for_call(context.request, call)
        except DelegationTooDeepError as error:
            hint = "Go on without this tool."
            raise ToolError("delegation_too_deep", "Too many hosts act one for the other.", hint=hint) from error

    return make


def _mcp_sources(settings: Settings) -> Iterator[ToolSource]:
    try:
        # Takes 30 MiB and more than a second, which is for who has such servers.
        from parley_server.tools.mcp.source import mcp_sources  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StartError(PACKAGE_MISSING) from error
    return mcp_sources(settings.mcp, settings.data_dir, open_credentials(settings.credentials, settings.data_dir))
