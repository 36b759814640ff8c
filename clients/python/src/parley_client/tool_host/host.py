"""A tool host: a program whose tools agents use."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar, Unpack, cast

import grpc
from grpc_health.v1 import health_pb2_grpc  # type: ignore[import-untyped]  # has no stubs
from parley.v1 import tool_host_service_pb2_grpc as pb_grpc
from pydantic import BaseModel

from parley_client.channel import is_local
from parley_client.tool_host.definition import CallRules, DefinedTool, Effect, ToolFunction, define_tool
from parley_client.tool_host.delegation import DelegationKeys
from parley_client.tool_host.health import HostHealth
from parley_client.tool_host.servicer import ToolHostServicer

A = TypeVar("A", bound=BaseModel)

_log = logging.getLogger("parley_client.tool_host")
# What the last answers have to get to the wire.
_END_S = 0.5
_OPTIONS = (
    # A second host on the port is a mistake, and not to share its calls.
    ("grpc.so_reuseport", 0),
    # The user's context and a token, with room around them.
    ("grpc.max_metadata_size", 16_384),
    ("grpc.absolute_max_metadata_size", 32_768),
    # Beyond 1,000 calls that come at once the core would cancel some.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
)


class ToolHost:
    """The tools of a program, each added by `@host.tool(...)`, and the server that a Parley server calls them on."""

    def __init__(self) -> None:
        self._tools: dict[str, DefinedTool[BaseModel]] = {}

    def tool(
        self, *, effect: Effect, timeout_s: float = 30.0, name: str = "", **rules: Unpack[CallRules]
    ) -> Callable[[ToolFunction[A]], ToolFunction[A]]:
        """Add a tool: `async def f(context: ToolContext, arguments: SomeModel) -> SomeResult`.

        Both models are pydantic's, the arguments' a closed one; the docstring is what the model reads. `effect` says
        what a call does to the world: `read` nothing, `idempotent` the same however often it is made with its
        idempotency key, `write` something each time. `name` defaults to the function's own; the `rules` are told at
        `HostedTool` in the contract.

        Raises ToolDefinitionError, when the module is imported, for anything that does not fit.
        """

        def add(function: ToolFunction[A]) -> ToolFunction[A]:
            tool = define_tool(function, effect=effect, name=name, timeout_s=timeout_s, rules=rules)
            if self._tools.setdefault(tool.description.name, cast("DefinedTool[BaseModel]", tool)) is not tool:
                raise ValueError(f"two tools are named {tool.description.name}")
            return function

        return add

    def run(
        self,
        listen: str,
        *,
        token: str = "",
        tls: grpc.ServerCredentials | None = None,
        grace_s: float = 10.0,
        keys: DelegationKeys | None = None,
    ) -> None:
        """Serve until SIGTERM or SIGINT; calls under way then have `grace_s` to end. See `serving` for the rest."""
        asyncio.run(self._run(listen, token, tls, grace_s, keys))

    @asynccontextmanager
    async def serving(
        self,
        listen: str,
        *,
        token: str = "",
        tls: grpc.ServerCredentials | None = None,
        grace_s: float = 10.0,
        keys: DelegationKeys | None = None,
    ) -> AsyncIterator[str]:
        """Serve on `HOST:PORT` (port 0: any that is free) or `unix:PATH` while the block lasts; yield the address.

        Calls need the `token`; with `keys` each also has to prove for whom it is. Health says SERVING until the block
        ends.

        Raises:
            ValueError: others could reach it without a token, or read it without TLS.
            RuntimeError: nothing can be served at the address.
        """
        if not is_local(listen) and not (token and tls):
            raise ValueError(f"{listen} is not on this machine alone: it needs a token, and tls for it to travel on")
        server = grpc.aio.server(options=_OPTIONS)
        servicer = ToolHostServicer(self._tools, token, keys)
        pb_grpc.add_ToolHostServiceServicer_to_server(servicer, server)
        health = HostHealth()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        port = server.add_secure_port(listen, tls) if tls else server.add_insecure_port(listen)
        await server.start()
        try:
            yield listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
        finally:
            health.drain()
            with suppress(TimeoutError):
                await asyncio.wait_for(servicer.idle(), grace_s)
            health.close()
            await server.stop(min(grace_s, _END_S))

    async def _run(
        self,
        listen: str,
        token: str,
        tls: grpc.ServerCredentials | None,
        grace_s: float,
        keys: DelegationKeys | None,
    ) -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        async with self.serving(listen, token=token, tls=tls, grace_s=grace_s, keys=keys) as address:
            _log.info("tool host on %s", address)
            await stopped.wait()
