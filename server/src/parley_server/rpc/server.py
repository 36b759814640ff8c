"""The gRPC server: services behind the chain of interceptors, on one listener."""

import asyncio
import os
from collections.abc import Sequence
from typing import TypeVar

import grpc
from google.rpc import error_details_pb2

from parley_server.auth.policy import AccessPolicy, Rule
from parley_server.rpc.call import Handler, Method
from parley_server.rpc.call_checks import CallChecks
from parley_server.rpc.call_observer import CallObserver
from parley_server.rpc.core_server import core_server
from parley_server.rpc.drain import Drain
from parley_server.rpc.health import HEALTH_DESCRIPTOR, HealthServicer
from parley_server.rpc.interceptors.account import AccountBinder
from parley_server.rpc.interceptors.audit import AuditGate, AuditTrail
from parley_server.rpc.interceptors.authentication import Authentication, Authenticator
from parley_server.rpc.interceptors.exchange import GuardLimits
from parley_server.rpc.interceptors.guard import Guard, RpcHandler
from parley_server.rpc.interceptors.interceptor import Interceptor
from parley_server.rpc.interceptors.policy import PolicyEnforcement
from parley_server.rpc.interceptors.quota import RequestQuota
from parley_server.rpc.interceptors.recheck import Recheck
from parley_server.rpc.interceptors.request_context import ClaimReader, ContextBinder
from parley_server.rpc.interceptors.validation import Validation
from parley_server.rpc.listener import Listener, ListenError, ServerSettings
from parley_server.rpc.message_rules import warm
from parley_server.rpc.overload import Overload
from parley_server.rpc.reflection import ReflectionServicer, reflection_descriptors
from parley_server.rpc.server_options import SERVER_OPTIONS
from parley_server.rpc.service import Service, StreamingRpc, UnaryRpc, rpcs_of

T = TypeVar("T")


def _admission(authenticator: Authenticator, policy: AccessPolicy, checks: CallChecks) -> tuple[Interceptor, ...]:
    """Return what stands between the guard and the message, outermost first."""
    return (
        # Outside of all that may refuse a call.
        AuditTrail(policy, checks.auditor),
        # By the metadata alone, before anything is spent on finding out who calls.
        ClaimReader(),
        # Before everything that depends on who calls.
        Authentication(authenticator),
        # The claim means something only beside the caller who makes it.
        ContextBinder(),
        # Nobody may learn by the errors below about methods that are not for him.
        PolicyEnforcement(policy),
        # What nobody may ask costs nobody anything; and no message is read for whoever asks too often.
        *(() if checks.quotas is None else (RequestQuota(checks.quotas),)),
        # The first that may read the store for a call, so behind all that refuses calls.
        *(() if checks.accounts is None else (AccountBinder(checks.accounts),)),
    )


def _chain(method: Method, admission: Sequence[Interceptor], gate: AuditGate) -> tuple[Interceptor, ...]:
    """Return what stands between the guard and a method's servicer, outermost first."""
    return (
        # Whoever asks for health has no credentials and needs none.
        *(() if method.is_public else admission),
        # So late because it reads the message: whoever may not ask does not get the server to do that.
        *(() if method.has_request_stream else (Validation(),)),
        # Last, because its entry says that the call is served, and to what.
        *(() if method.is_public else (gate,)),
    )


class RpcServer:
    """Serves `services`, and health beside them, and reflection where it is wanted. Build it inside the running loop.

    `health` is NOT_SERVING until its owner says otherwise. `options` set up the gRPC core. `checks` are what
    calls are held to besides their credentials and the access policy.

    Raises:
        TypeError: a servicer lacks an rpc of its service.
        MethodWithoutRuleError: an rpc has no access rule.
        UnsuitableGrpcError: the installed grpcio is not one that can be protected.
    """

    def __init__(  # noqa: PLR0913  # what has a default is for a few
        self,
        services: Sequence[Service],
        authenticator: Authenticator,
        drain: Drain,
        limits: GuardLimits = GuardLimits(),  # noqa: B008  # frozen
        *,
        reflection: bool = False,
        options: Sequence[tuple[str, int]] = SERVER_OPTIONS,
        observer: CallObserver | None = None,
        checks: CallChecks = CallChecks(),  # noqa: B008  # frozen
    ) -> None:
        if reflection:
            services = (*services, *_reflection(services, drain))
        self.health = HealthServicer((service.descriptor.full_name for service in services), drain)
        self._drain = drain
        health = Service(HEALTH_DESCRIPTOR, self.health, is_public=True)
        rpcs = [rpc for service in (*services, health) for rpc in rpcs_of(service)]
        warm(rpc.method.request_type for rpc in rpcs)
        self._observer = observer or CallObserver()
        self._overload = Overload(self._observer.recorder, self.health)
        guard = Guard(drain, self._overload, limits, self._observer, Recheck(authenticator, checks.recheck_s))
        policy = AccessPolicy({rpc.method.name: rpc.rule for rpc in rpcs if rpc.rule is not None})
        admission, gate = _admission(authenticator, policy, checks), AuditGate(policy, checks.auditor)
        self._server = core_server(options, _handlers(rpcs, admission, gate, guard))

    def bind(self, settings: ServerSettings, credentials: grpc.ServerCredentials | None = None) -> str:
        """Take the address, over TLS with `credentials`, and return it, the port filled in; callers wait for `serve`.

        Raises:
            ListenError: the address is none, in use, or one that must not be served in the clear.
        """
        listener = Listener.parse(settings.listen)
        listener.check(has_tls=credentials is not None, allow_insecure=settings.allow_insecure_listen)
        return listener.with_port(self._bind(listener, credentials))

    async def serve(self, overload_lag_s: float) -> None:
        """Let in whoever calls; see `[server] overload_lag_s`."""
        await self._server.start()
        self._overload.start(overload_lag_s)

    async def start(self, settings: ServerSettings, credentials: grpc.ServerCredentials | None = None) -> str:
        """Do as `bind` and `serve` do."""
        address = self.bind(settings, credentials)
        await self.serve(settings.overload_lag_s)
        return address

    async def stop(self, grace_s: float, delay_s: float = 0.0) -> None:
        """Stop: refuse new calls, end streams at an event boundary, let other calls go on for at most `grace_s`.

        For `delay_s` before that only health says so, and whoever asks it can send his calls elsewhere.
        """
        self.health.set_serving(False)
        await asyncio.sleep(delay_s)
        self._drain.start(grace_s)
        await self._server.stop(grace_s)
        self._overload.stop()
        self._observer.settle()

    @property
    def is_ready(self) -> bool:
        """Tell whether new calls are welcome; from any thread."""
        return self.health.is_serving and not self._overload.active

    def _bind(self, listener: Listener, credentials: grpc.ServerCredentials | None) -> int:
        """Bind the listener and return its port; a unix socket is made for this user alone."""
        address = listener.with_port(listener.port)
        former_umask = os.umask(0o177) if listener.path else None
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            port = 0
        finally:
            if former_umask is not None:
                os.umask(former_umask)
        if port == 0:
            raise ListenError(f"[server] listen: {address} is in use or not ours to bind; choose another with --listen")
        return port


def _reflection(services: Sequence[Service], drain: Drain) -> list[Service]:
    """Return the services that tell of `services`, of health and of themselves, to every authenticated caller."""
    own = reflection_descriptors()
    # What an error's details are is told, too; no service's proto imports it.
    servicer = ReflectionServicer(
        (*(service.descriptor for service in services), HEALTH_DESCRIPTOR, *own), drain, [error_details_pb2.DESCRIPTOR]
    )
    return [Service(descriptor, servicer, rule=Rule()) for descriptor in own]


def _handlers(
    rpcs: Sequence[UnaryRpc | StreamingRpc], admission: Sequence[Interceptor], gate: AuditGate, guard: Guard
) -> dict[str, RpcHandler]:
    """Build the chain around every rpc, once."""
    handlers = {}
    for rpc in rpcs:
        interceptors = _chain(rpc.method, admission, gate)
        if isinstance(rpc, UnaryRpc):
            handlers[rpc.method.name] = guard.unary(rpc.method, _wrapped(rpc.method, rpc.handler, interceptors))
        else:
            handlers[rpc.method.name] = guard.streaming(rpc.method, _wrapped(rpc.method, rpc.handler, interceptors))
    return handlers


def _wrapped(method: Method, handler: Handler[T], interceptors: Sequence[Interceptor]) -> Handler[T]:
    for interceptor in reversed(interceptors):
        handler = interceptor.wrap(method, handler)
    return handler
