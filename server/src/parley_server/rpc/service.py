"""Services: the rpcs a proto declares, matched with the methods of the object that serves them."""

import inspect
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from parley.v1 import access_policy_pb2 as pb
from parley.v1.access_policy_pb2 import access_policy

from parley_server.auth.policy import Rule
from parley_server.domain.principal import PrincipalKind
from parley_server.rpc.call import Call, Handler, Method, Response, present

T = TypeVar("T")

_KINDS: Mapping[int, PrincipalKind | None] = {
    pb.PRINCIPAL_KIND_UNSPECIFIED: None,
    pb.PRINCIPAL_KIND_USER: PrincipalKind.USER,
    pb.PRINCIPAL_KIND_SERVICE: PrincipalKind.SERVICE,
}
_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Service:
    """A proto service and its servicer.

    An rpc `GetRun` is served by `async def get_run(self, context, request)`, which returns the response, or for a
    streaming rpc the async generator of its responses. One with a stream of requests gets what reads the next of them,
    as bytes, and None at their end. A public service is served without credentials, and its methods get the request
    alone. `rule` is for whole services whose protos are not ours and state none.
    """

    descriptor: ServiceDescriptor
    servicer: object
    is_public: bool = False
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class UnaryRpc:
    """An rpc that answers with one message, its access rule if it has one, and its innermost handler."""

    method: Method
    rule: Rule | None
    handler: Handler[Response]


@dataclass(frozen=True, slots=True)
class StreamingRpc:
    """An rpc that answers with a stream, its access rule if it has one, and its innermost handler."""

    method: Method
    rule: Rule | None
    handler: Handler[AsyncGenerator[Response]]


def rpcs_of(service: Service) -> Iterator[UnaryRpc | StreamingRpc]:
    """Return all rpcs of a service. Raises TypeError when the servicer lacks one or serves it in another shape."""
    for descriptor in service.descriptor.methods:
        method = Method(
            name=f"/{service.descriptor.full_name}/{descriptor.name}",
            request_type=GetMessageClass(descriptor.input_type),
            response_type=GetMessageClass(descriptor.output_type),
            is_public=service.is_public,
            has_request_stream=descriptor.client_streaming,
        )
        behaviour = getattr(service.servicer, snake_case(descriptor.name), None)
        if _is_upload(descriptor) or not inspect.iscoroutinefunction(behaviour):
            raise TypeError(f"{type(service.servicer).__name__} must serve {method.name} by an async method")
        rpc_type = StreamingRpc if descriptor.server_streaming else UnaryRpc
        yield rpc_type(method, service.rule or rule_of(descriptor), _handler(behaviour, method))


def snake_case(name: str) -> str:
    """Return an rpc's name as a method's: `GetRun` is `get_run`."""
    return _WORD_START.sub("_", name).lower()


def _is_upload(descriptor: MethodDescriptor) -> bool:
    """Tell whether many requests get one answer, which no contract of ours has and nothing here serves."""
    return bool(descriptor.client_streaming) and not descriptor.server_streaming


def rule_of(descriptor: MethodDescriptor) -> Rule | None:
    """Return the access rule of an rpc's options; None where they let nobody in, or someone this server cannot name."""
    options = descriptor.GetOptions()
    if not options.HasExtension(access_policy):
        return None
    policy = options.Extensions[access_policy]
    if policy.principal_kind not in _KINDS:
        return None
    kind = _KINDS[policy.principal_kind]
    match policy.WhichOneof("rule"):
        case "scope" if policy.scope:
            return Rule(policy.scope, kind, audit=policy.audit)
        case "any_authenticated" if policy.any_authenticated:
            return Rule("", kind, audit=policy.audit)
        case _:
            return None


def _handler(behaviour: Callable[..., Awaitable[T]], method: Method) -> Handler[T]:
    async def handler(call: Call) -> T:
        return await behaviour(present(call.context), present(call.request))

    async def public_handler(call: Call) -> T:
        return await behaviour(present(call.request))

    async def duplex_handler(call: Call) -> T:
        return await behaviour(present(call.context), call.receive_next)

    if method.has_request_stream:
        return duplex_handler
    return public_handler if method.is_public else handler
