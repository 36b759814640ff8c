"""The standard health service, `grpc.health.v1`.

Of the usual package only the messages are used: its servicer holds a lock while it writes, so that one watcher who
does not read stops all others and the server's stop as well.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress

from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2 as pb  # type: ignore[import-untyped]  # its stubs lack List

from parley_server.domain.call_errors import ServerDrainingError
from parley_server.domain.errors import NotFoundError
from parley_server.rpc.drain import Drain

HEALTH_DESCRIPTOR: ServiceDescriptor = pb.DESCRIPTOR.services_by_name["Health"]
WHOLE_SERVER = ""


class HealthServicer:
    """Tells whether the server serves: not before it is ready, and no longer once it drains.

    Every watcher is told the latest state when it is ready to take it; no state is queued.
    """

    def __init__(self, services: Iterable[str], drain: Drain) -> None:
        self._names = frozenset(services) | {WHOLE_SERVER}
        self._drain = drain
        self._serving = False
        self._overloaded = False
        self._stores = True
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Say from now on that all services serve, or that none does."""
        self._serving = serving
        self._tell()

    def set_overloaded(self, overloaded: bool) -> None:
        """Say from now on that no service serves, or that they do again as `set_serving` said."""
        self._overloaded = overloaded
        self._tell()

    def set_storing(self, stores: bool) -> None:
        """Say from now on whether what callers say can be stored; no service serves where it cannot."""
        self._stores = stores
        self._tell()

    @property
    def is_serving(self) -> bool:
        """Tell whether the server as a whole serves; from any thread."""
        return self._serving and self._stores and not self._overloaded

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def check(self, request: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
        """Return the state of a service. Raises NotFoundError for a name that is none of ours."""
        if request.service not in self._names:
            raise NotFoundError("service")
        return self._response(request.service)

    async def watch(self, request: pb.HealthCheckRequest) -> AsyncGenerator[pb.HealthCheckResponse]:
        """Return the states of a service: the present one, and each new one until the server drains."""
        return self._states(request.service)

    async def list(self, request: pb.HealthListRequest) -> pb.HealthListResponse:  # noqa: ARG002  # it has no fields
        """Return the states of all services."""
        return pb.HealthListResponse(statuses={name: self._response(name) for name in self._names})

    async def _states(self, name: str) -> AsyncGenerator[pb.HealthCheckResponse]:
        told = None
        while True:
            changed = self._changed
            response = self._response(name)
            if response.status != told:
                told = response.status
                yield response
            elif self._drain.started:
                return
            else:
                with suppress(ServerDrainingError):
                    await self._drain.bound(changed.wait)

    def _response(self, name: str) -> pb.HealthCheckResponse:
        if name not in self._names:
            return pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
        state = pb.HealthCheckResponse.SERVING if self.is_serving else pb.HealthCheckResponse.NOT_SERVING
        return pb.HealthCheckResponse(status=state)
