"""The tools of a tool host: described and published while the server runs, and called over gRPC."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import structlog

from parley_server.domain.tool import ToolSpec
from parley_server.tools.remote.channel import read_credentials
from parley_server.tools.remote.description import HostedTool, HostTerms, read_description
from parley_server.tools.remote.host_caller import CallProof, ContextCodec, HostCaller
from parley_server.tools.remote.host_connection import HostConnection, HostUnreachableError
from parley_server.tools.remote.host_settings import ToolHostSettings
from parley_server.tools.source import Publish
from parley_server.tools.tool import JsonObject, ToolContext

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0

_jitter = random.Random()  # noqa: S311  # no secret
_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A tool of a host, called as any other."""

    hosted: HostedTool
    caller: HostCaller

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        return self.hosted.spec

    async def call(self, context: ToolContext, arguments: JsonObject) -> object:
        """Have the host run it once; see `Tool.call`."""
        return await self.caller.call(self.hosted, context, arguments)


class GrpcToolSource:
    """A tool host as a `ToolSource`; `host_name` is the operator's name for it.

    `codec` writes a user's context as the contract has it, `proof` makes what goes along with it. Raises StartError for
    files of the settings that do not serve.
    """

    def __init__(
        self,
        host_name: str,
        settings: ToolHostSettings,
        codec: ContextCodec,
        clock: Callable[[], float] = monotonic,
        proof: CallProof | None = None,
    ) -> None:
        self.name = f"host:{host_name}"
        self.prefix = settings.prefix_of(host_name)
        self._refresh_s = settings.refresh_s
        self._terms = HostTerms(self.name, self.prefix, frozenset(settings.allowed), settings.call_timeout_s)
        self._connection = HostConnection(settings, read_credentials(host_name, settings))
        self._look_again = asyncio.Event()
        self._caller = HostCaller(self.name, self._connection, codec, self._look_again.set, clock, proof)
        self._described: tuple[HostedTool, ...] | None = None
        self._problem = self._health_problem = ""

    async def serve(self, publish: Publish) -> None:
        """Keep the host's tools published; see `ToolSource.serve`."""
        clock = asyncio.get_running_loop().time
        pause_s = FIRST_PAUSE_S
        async with self._connection:
            while True:
                began = clock()
                await self._follow(publish)
                # However often it goes wrong, and however fast, this is not what keeps the server busy.
                lasted_s = clock() - began
                pause_s = FIRST_PAUSE_S if lasted_s > MAX_PAUSE_S else min(2 * pause_s, MAX_PAUSE_S)
                if lasted_s < pause_s:
                    await asyncio.sleep(_jitter.uniform(pause_s / 2, pause_s))

    def forget(self, user_id: str) -> None:
        """Do nothing: the one connection is everybody's, and nothing of a call is kept."""

    async def _follow(self, publish: Publish) -> None:
        """Describe the host, and stay with it until it is to be described again."""
        self._look_again.clear()
        try:
            if await self._describe(publish):
                await self._while_all_is_well()
        except asyncio.CancelledError:
            self._caller.is_up = False
            raise

    async def _describe(self, publish: Publish) -> bool:
        """Ask the host for its tools, and publish them when they are others than before; tell whether it answered."""
        try:
            await self._connection.connect(patiently=self._described is not None)
            told = await self._connection.describe()
            # To check large schemas takes seconds.
            tools = await asyncio.to_thread(read_description, told, self._terms)
        except HostUnreachableError as error:
            self._note(str(error))
            self._publish(self._described or (), publish)
            return False
        self._note(self._health_problem)
        self._publish(tools, publish)
        return True

    def _publish(self, tools: tuple[HostedTool, ...], publish: Publish) -> None:
        if tools == self._described:
            return
        if tools or self._described:
            _log.info("tools_described", source=self.name, tools=[tool.spec.name for tool in tools])
        self._described = tools
        publish([RemoteTool(tool, self._caller) for tool in tools])

    def _note(self, problem: str) -> None:
        """Take up whether the host is there; a change is told in the log."""
        self._caller.is_up = not problem
        if problem and problem != self._problem:
            _log.warning("tool_host_down", source=self.name, problem=problem)
        elif self._problem and not problem:
            _log.info("tool_host_up", source=self.name)
        self._problem = problem

    async def _while_all_is_well(self) -> None:
        """Return when the host is to be asked again: it is lost, a call found it changed, or it is time."""
        health = asyncio.create_task(self._connection.watch_health(self._note_health))
        called = asyncio.create_task(self._look_again.wait())
        try:
            await asyncio.wait({health, called}, timeout=self._refresh_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if health.done():
                # Whoever is there next has not said so yet.
                self._health_problem = ""
            health.cancel()
            called.cancel()
            await asyncio.gather(health, called, return_exceptions=True)

    def _note_health(self, is_serving: bool) -> None:
        self._health_problem = "" if is_serving else "it is not serving"
        self._note(self._health_problem)
