"""The gRPC server: services behind the chain of interceptors, on one listener."""

import os
from collections.abc import Mapping, Sequence
from typing import TypeVar

import grpc

from parley_server.auth.policy import AccessPolicy
from parley_server.rpc.call import Handler, Method
from parley_server.rpc.drain import Drain
from parley_server.rpc.health import HEALTH_DESCRIPTOR, HealthServicer
from parley_server.rpc.interceptors.authentication import Authentication, Authenticator
from parley_server.rpc.interceptors.exchange import GuardLimits
from parley_server.rpc.interceptors.guard import Guard, RpcHandler
from parley_server.rpc.interceptors.interceptor import Interceptor
from parley_server.rpc.interceptors.policy import PolicyEnforcement
from parley_server.rpc.interceptors.request_context import ClaimReader, ContextBinder
from parley_server.rpc.interceptors.validation import Validation
from parley_server.rpc.listener import Listener, ListenError, ServerSettings
from parley_server.rpc.message_rules import warm
from parley_server.rpc.server_options import SERVER_OPTIONS
from parley_server.rpc.service import Service, StreamingRpc, UnaryRpc, rpcs_of

T = TypeVar("T")


def _chain(authenticator: Authenticator, policy: AccessPolicy) -> tuple[Interceptor, ...]:
    """Return what stands between the guard and the servicers, outermost first."""
    return (
        # By the metadata alone, before anything is spent on finding out who calls.
        ClaimReader(),
        # Before everything that depends on who calls.
        Authentication(authenticator),
        # The claim means something only beside the caller who makes it.
        ContextBinder(),
        # Nobody may learn by the errors below about methods that are not for him.
        PolicyEnforcement(policy),
        # Last, because it reads the message: whoever may not ask does not get the server to do that.
        Validation(),
    )


# Whoever asks for health has no credentials and needs none.
_PUBLIC_CHAIN: tuple[Interceptor, ...] = (Validation(),)


class RpcServer:
    """Serves `services`, and health beside them. Build it inside the running loop.

    `health` is NOT_SERVING until its owner says otherwise.

    Raises:
        TypeError: a servicer lacks an rpc of its service.
        MethodWithoutRuleError: an rpc has no access rule.
    """

    def __init__(
        self,
        services: Sequence[Service],
        authenticator: Authenticator,
        drain: Drain,
        limits: GuardLimits = GuardLimits(),  # noqa: B008  # frozen
    ) -> None:
        self.health = HealthServicer((service.descriptor.full_name for service in services), drain)
        self._drain = drain
        health = Service(HEALTH_DESCRIPTOR, self.health, is_public=True)
        rpcs = [rpc for service in (*services, health) for rpc in rpcs_of(service)]
        warm(rpc.method.request_type for rpc in rpcs)
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers([_MethodTable(_handlers(rpcs, authenticator, Guard(drain, limits)))])

    async def start(self, settings: ServerSettings) -> str:
        """Listen and serve; return the address that was bound, the port filled in. Raises ListenError."""
        listener = Listener.parse(settings.listen)
        listener.check(allow_insecure=settings.allow_insecure_listen)
        port = self._bind(listener)
        await self._server.start()
        return listener.with_port(port)

    async def stop(self, grace_s: float) -> None:
        """Stop: refuse new calls, end streams at an event boundary, let other calls go on for at most `grace_s`."""
        self.health.set_serving(False)
        self._drain.start()
        await self._server.stop(grace_s)

    def _bind(self, listener: Listener) -> int:
        """Bind the listener and return its port; a unix socket is made for this user alone."""
        former_umask = os.umask(0o177) if listener.path else None
        try:
            port = self._server.add_insecure_port(listener.with_port(listener.port))
        except RuntimeError:
            port = 0
        finally:
            if former_umask is not None:
                os.umask(former_umask)
        if port == 0:
            address = listener.with_port(listener.port)
            raise ListenError(f"[server] listen: {address} is in use or not ours to bind; choose another with --listen")
        return port


class _MethodTable(grpc.GenericRpcHandler):
    """Finds handlers by the method's name; faster than the core's own registration, which waits on every method."""

    def __init__(self, handlers: Mapping[str, RpcHandler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "RpcHandler | None":
        """Return the handler; None leaves the answer, UNIMPLEMENTED, to the core."""
        return self._handlers.get(handler_call_details.method)


def _handlers(
    rpcs: Sequence[UnaryRpc | StreamingRpc], authenticator: Authenticator, guard: Guard
) -> dict[str, RpcHandler]:
    """Build the chain around every rpc, once."""
    policy = AccessPolicy({rpc.method.name: rpc.rule for rpc in rpcs if rpc.rule is not None})
    chain = _chain(authenticator, policy)
    handlers = {}
    for rpc in rpcs:
        interceptors = _PUBLIC_CHAIN if rpc.method.is_public else chain
        if isinstance(rpc, UnaryRpc):
            handlers[rpc.method.name] = guard.unary(rpc.method, _wrapped(rpc.method, rpc.handler, interceptors))
        else:
            handlers[rpc.method.name] = guard.streaming(rpc.method, _wrapped(rpc.method, rpc.handler, interceptors))
    return handlers


def _wrapped(method: Method, handler: Handler[T], interceptors: Sequence[Interceptor]) -> Handler[T]:
    for interceptor in reversed(interceptors):
        handler = interceptor.wrap(method, handler)
    return handler
