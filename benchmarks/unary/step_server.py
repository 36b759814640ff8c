"""GetRun with a constant answer, behind as many of the server's steps as it is told.

python -m unary.step_server <step> <bytes of the answer>        prints its port and an API key, and serves until ended
"""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import grpc
import uvloop
from parley.v1 import agent_service_pb2 as pb
from parley_server.auth.api_key import PresentedKey
from parley_server.auth.factory import ProviderParts, build_auth_chain
from parley_server.auth.policy import AccessPolicy, Rule
from parley_server.domain.api_key import ApiKey, StoredKey
from parley_server.domain.principal import USER_SCOPES, PrincipalKind
from parley_server.metrics.recorder import SILENT
from parley_server.rpc.call import Call, Handler, Method
from parley_server.rpc.call_observer import CallObserver
from parley_server.rpc.core_server import core_server
from parley_server.rpc.drain import Drain
from parley_server.rpc.health import HealthServicer
from parley_server.rpc.interceptors.authentication import Authentication
from parley_server.rpc.interceptors.exchange import GuardLimits
from parley_server.rpc.interceptors.guard import Guard, RpcHandler
from parley_server.rpc.interceptors.interceptor import Interceptor
from parley_server.rpc.interceptors.policy import PolicyEnforcement
from parley_server.rpc.interceptors.recheck import RECHECK_S, Recheck
from parley_server.rpc.interceptors.request_context import ClaimReader, ContextBinder
from parley_server.rpc.interceptors.validation import Validation
from parley_server.rpc.overload import Overload
from parley_server.rpc.server_options import SERVER_OPTIONS
from unary.load import METHOD

Rpc: TypeAlias = "grpc.aio.ServicerContext[pb.GetRunRequest, bytes]"

BareHandler: TypeAlias = "grpc.RpcMethodHandler[pb.GetRunRequest, bytes]"

_HASH_KEY = bytes(32)


class OneKey:
    """A store of one key."""

    def __init__(self) -> None:
        presented = PresentedKey.mint()
        key = ApiKey(presented.key_id, PrincipalKind.USER, "benchmark", USER_SCOPES, (), datetime.now(UTC))
        self.text = presented.text
        self._stored = StoredKey(key, presented.hash(_HASH_KEY))

    async def find(self, _key_id: str) -> StoredKey:
        """Return the key, whatever is asked for."""
        return self._stored


def bare(answer: bytes) -> BareHandler:
    """Nothing but grpc.aio."""

    async def behaviour(_request: pb.GetRunRequest, _rpc: object) -> bytes:
        return answer

    return grpc.unary_unary_rpc_method_handler(behaviour, pb.GetRunRequest.FromString)


def with_id_in_headers(answer: bytes) -> BareHandler:
    """The request's id sent back as initial metadata, which is an operation of its own."""

    async def behaviour(_request: pb.GetRunRequest, rpc: Rpc) -> bytes:
        await rpc.send_initial_metadata((("x-request-id", _request_id(rpc)),))
        return answer

    return grpc.unary_unary_rpc_method_handler(behaviour, pb.GetRunRequest.FromString)


def with_id_in_trailers(answer: bytes) -> BareHandler:
    """The request's id sent back as trailing metadata, which goes with the answer."""

    async def behaviour(_request: pb.GetRunRequest, rpc: Rpc) -> bytes:
        rpc.set_trailing_metadata((("x-request-id", _request_id(rpc)),))
        return answer

    return grpc.unary_unary_rpc_method_handler(behaviour, pb.GetRunRequest.FromString)


def _request_id(rpc: Rpc) -> str:
    return next(str(value) for key, value in rpc.invocation_metadata() or () if key == "x-request-id")


def guarded(answer: bytes, interceptors: Sequence[Interceptor]) -> RpcHandler:
    """The guard, and these interceptors inside it."""
    method = Method(METHOD, pb.GetRunRequest, pb.GetRunResponse, is_public=False)

    async def innermost(call: Call) -> bytes:
        if call.request is None:
            pb.GetRunRequest.FromString(await call.receive())
        return answer

    handler: Handler[bytes] = innermost
    for interceptor in reversed(interceptors):
        handler = interceptor.wrap(method, handler)
    drain = Drain()
    overload = Overload(SILENT, HealthServicer((), drain))
    recheck = Recheck(build_auth_chain((), ProviderParts(OneKey(), _HASH_KEY)), RECHECK_S)
    return Guard(drain, overload, GuardLimits(), CallObserver(), recheck).unary(method, handler)


BARE: dict[str, Callable[[bytes], BareHandler]] = {
    "bare": bare,
    "trailers": with_id_in_trailers,
    "headers": with_id_in_headers,
}


def interceptors_of(step: str, key: OneKey) -> tuple[Interceptor, ...]:
    """Return what is behind the guard in a step, with all that the ones before it have."""
    authentication = Authentication(build_auth_chain(["api_key"], ProviderParts(key, _HASH_KEY)))
    policy = PolicyEnforcement(AccessPolicy({METHOD: Rule("runs:read")}))
    context = (ClaimReader(), authentication, ContextBinder())
    return {
        "guard": (),
        "key": (authentication,),
        "context": context,
        "validation": (*context, policy, Validation()),
    }[step]


def build(step: str, answer: bytes, key: OneKey) -> grpc.aio.Server:
    """Build the server of a step."""
    if step not in BARE:
        return core_server(SERVER_OPTIONS, {METHOD: guarded(answer, interceptors_of(step, key))})
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([OneMethod(BARE[step](answer))])
    return server


class OneMethod(grpc.GenericRpcHandler):
    """Finds the one handler there is."""

    def __init__(self, handler: BareHandler) -> None:
        self._handler = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "BareHandler | None":
        """Return it for its method."""
        return self._handler if handler_call_details.method == METHOD else None


async def main() -> None:
    """Serve until the process is ended."""
    step, size = sys.argv[1:]
    key = OneKey()
    server = build(step, bytes(int(size)), key)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, key.text, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
