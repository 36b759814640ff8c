"""The real server with its real interceptors, on a socket, over a servicer that does what each test wants of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from parley.v1 import agent_service_pb2 as pb
from parley.v1 import run_pb2
from parley_server.auth.api_key import PresentedKey
from parley_server.auth.api_key_provider import KeyStore
from parley_server.auth.factory import AuthChain, ProviderParts, build_auth_chain
from parley_server.auth.provider import AuthProvider
from parley_server.domain.api_key import ApiKey, StoredKey
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import ALL_SCOPES, PrincipalKind
from parley_server.rpc.call_checks import CallChecks
from parley_server.rpc.call_observer import CallObserver
from parley_server.rpc.drain import Drain
from parley_server.rpc.interceptors.exchange import GuardLimits
from parley_server.rpc.interceptors.recheck import RECHECK_S
from parley_server.rpc.listener import ServerSettings
from parley_server.rpc.server import RpcServer
from parley_server.rpc.server_options import SERVER_OPTIONS
from parley_server.rpc.service import Service

AGENT_SERVICE = pb.DESCRIPTOR.services_by_name["AgentService"]
GET_RUN = "/parley.v1.AgentService/GetRun"
WATCH_RUN = "/parley.v1.AgentService/WatchRun"
HASH_KEY = b"k" * 32
QUICK = GuardLimits(first_message_s=0.4, unary_s=0.4, write_s=0.4, tick_s=0.05)

Metadata = tuple[tuple[str, str | bytes], ...]
Answer = Callable[[RequestContext, pb.GetRunRequest], Awaitable[pb.GetRunResponse | bytes]]
Stream = Callable[[RequestContext, pb.WatchRunRequest], AsyncGenerator[pb.WatchRunResponse | bytes]]


async def say_who(context: RequestContext, request: pb.GetRunRequest) -> pb.GetRunResponse:
    """Answer with the effective user, the caller and the request's id."""
    return pb.GetRunResponse(
        run=run_pb2.Run(run_id=request.run_id, agent_id=context.user_id, conversation_id=context.principal.subject)
    )


async def three_events(context: RequestContext, request: pb.WatchRunRequest) -> AsyncGenerator[pb.WatchRunResponse]:
    for seq in range(1, 4):
        response = pb.WatchRunResponse()
        response.event.seq = seq
        response.event.run_id = request.run_id
        response.event.conversation_id = context.user_id
        yield response


class Runs:
    """Serves AgentService; GetRun and WatchRun as a test sets them, the others not at all."""

    def __init__(self) -> None:
        self.answer: Answer = say_who
        self.stream: Stream = three_events

    async def get_run(self, context: RequestContext, request: pb.GetRunRequest) -> pb.GetRunResponse | bytes:
        return await self.answer(context, request)

    async def watch_run(
        self, context: RequestContext, request: pb.WatchRunRequest
    ) -> AsyncGenerator[pb.WatchRunResponse | bytes]:
        return self.stream(context, request)

    async def _unwanted(self, _context: RequestContext, _request: Message) -> Message:
        raise AssertionError("no test calls this")

    list_agents = get_agent = start_run = run_agent = list_runs = cancel_run = steer_run = _unwanted


class Keys:
    """A store of keys in memory; `fault` is raised by the next look-ups."""

    def __init__(self) -> None:
        self.stored: dict[str, StoredKey] = {}
        self.lookups: list[str] = []
        self.fault: Exception | None = None
        self.delay_s = 0.0

    async def find(self, key_id: str) -> StoredKey | None:
        self.lookups.append(key_id)
        await asyncio.sleep(self.delay_s)
        if self.fault is not None:
            raise self.fault
        return self.stored.get(key_id)

    def issue(
        self,
        subject: str,
        kind: PrincipalKind = PrincipalKind.USER,
        *,
        scopes: frozenset[str] = ALL_SCOPES,
        act_as: Sequence[str] = (),
        expire_time: datetime | None = None,
    ) -> str:
        presented = PresentedKey.mint()
        key = ApiKey(presented.key_id, kind, subject, scopes, tuple(act_as), datetime.now(UTC), expire_time=expire_time)
        self.stored[key.key_id] = StoredKey(key, presented.hash(HASH_KEY))
        return presented.text


@dataclass
class Chassis:
    """A running server and a channel to it."""

    address: str
    server: RpcServer
    drain: Drain
    auth: AuthChain
    keys: Keys
    runs: Runs
    channel: grpc.aio.Channel
    calls: list[str] = field(default_factory=list)

    def get_run(
        self, request: pb.GetRunRequest | bytes = b"\n\x03run", metadata: Metadata = (), timeout: float | None = 10
    ) -> "grpc.aio.UnaryUnaryCall[pb.GetRunRequest | bytes, pb.GetRunResponse]":
        method: grpc.aio.UnaryUnaryMultiCallable[pb.GetRunRequest | bytes, pb.GetRunResponse] = (
            self.channel.unary_unary(GET_RUN, _serialized, pb.GetRunResponse.FromString)
        )
        return method(request, metadata=grpc.aio.Metadata(*metadata), timeout=timeout)

    def watch_run(
        self, metadata: Metadata = (), timeout: float | None = 10
    ) -> "grpc.aio.UnaryStreamCall[pb.WatchRunRequest, pb.WatchRunResponse]":
        method: grpc.aio.UnaryStreamMultiCallable[pb.WatchRunRequest, pb.WatchRunResponse] = self.channel.unary_stream(
            WATCH_RUN, _serialized, pb.WatchRunResponse.FromString
        )
        return method(pb.WatchRunRequest(run_id="run"), metadata=grpc.aio.Metadata(*metadata), timeout=timeout)


# A machine that others use, and a process of many tests, hold the server up, which is no answer to what a test asks.
NEVER_BEHIND_S = 60.0


@asynccontextmanager
async def running(
    *,
    types: Sequence[str] = ("api_key", "local"),
    limits: GuardLimits = GuardLimits(),  # noqa: B008  # frozen
    listen: str = "127.0.0.1:0",
    channel_options: Sequence[tuple[str, int]] = (),
    options: Mapping[str, int] = MappingProxyType({}),
    reflection: bool = False,
    serving: bool = True,
    overload_lag_s: float = NEVER_BEHIND_S,
    max_failures_per_minute: int = 20,
    observer: CallObserver | None = None,
    providers: Sequence[AuthProvider] = (),
    recheck_s: float = RECHECK_S,
) -> AsyncIterator[Chassis]:
    """Serve for a block; `options` are put in the place of the shipped ones of their names.

    Where there are `providers`, they are the chain, and there is no limit of bad credentials.
    """
    keys, runs, drain = Keys(), Runs(), Drain()
    store: KeyStore = keys
    server_options = tuple((dict(SERVER_OPTIONS) | dict(options)).items())
    auth = build_auth_chain(types, ProviderParts(store, HASH_KEY, max_failures_per_minute=max_failures_per_minute))
    if providers:
        auth = AuthChain(providers, max_failures_per_minute=1_000_000)
    server = RpcServer(
        [Service(AGENT_SERVICE, runs)],
        auth,
        drain,
        limits,
        reflection=reflection,
        options=server_options,
        observer=observer,
        checks=CallChecks(recheck_s=recheck_s),
    )
    address = await server.start(ServerSettings(listen=listen, overload_lag_s=overload_lag_s))
    server.health.set_serving(serving)
    own_options = [("grpc.use_local_subchannel_pool", 1), *channel_options]
    async with grpc.aio.insecure_channel(address, options=own_options) as channel:
        yield Chassis(address, server, drain, auth, keys, runs, channel)
    await server.stop(0)


@dataclass(frozen=True)
class Failure:
    """What a client is told of a failed call."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]
    details: dict[str, Message]
    trailers: dict[str, str | bytes]


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Read an error, and hold it to what the contract promises of every error."""
    trailers = dict(error.trailing_metadata())
    raw = trailers["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    return read_failure(error.code(), error.details() or "", raw, trailers)


def read_failure(code: grpc.StatusCode, message: str, raw: bytes, trailers: dict[str, str | bytes]) -> Failure:
    assert len(raw) <= 4096
    status = status_pb2.Status.FromString(raw)
    assert (status.code, status.message) == (code.value[0], message)
    details: dict[str, Message] = {}
    for packed in status.details:
        name = packed.TypeName().removeprefix("google.rpc.")
        assert name not in details, f"two of {name}"
        details[name] = getattr(error_details_pb2, name)()
        packed.Unpack(details[name])
    info = details["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.domain == "parley.v1"
    request = details["RequestInfo"]
    assert isinstance(request, error_details_pb2.RequestInfo)
    assert request.request_id == trailers["x-request-id"]
    return Failure(code, str(info.reason), message, dict(info.metadata), details, trailers)


async def failed(call: Awaitable[object]) -> Failure:
    """Await a call that must fail."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return failure_of(error)
    raise AssertionError("the call succeeded")


def bearer(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


def _serialized(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
