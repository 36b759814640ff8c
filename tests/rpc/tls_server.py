"""A server on loopback with a certificate, and clients that trust what a test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from certificates import Pair
from parley.v1 import agent_service_pb2 as pb
from parley_server.auth.factory import AuthChain, ProviderParts, build_auth_chain
from parley_server.auth.provider import AuthProvider
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import ServerSettings
from parley_server.rpc.server import RpcServer
from parley_server.rpc.service import Service
from parley_server.rpc.tls import CertificateReloader
from parley_server.rpc.tls_settings import CertificateFiles
from rpc.chassis import AGENT_SERVICE, GET_RUN, HASH_KEY, Keys, Metadata, Runs

POLL_S = 0.05


@dataclass(frozen=True)
class TlsServer:
    """A running server; its files are looked at every POLL_S."""

    port: int
    files: CertificateFiles
    certificates: CertificateReloader

    def channel(self, roots: bytes | None, client: Pair | None = None) -> grpc.aio.Channel:
        """Open a channel over TLS, or without it where there are no roots to trust."""
        target, options = f"localhost:{self.port}", [("grpc.use_local_subchannel_pool", 1)]
        if roots is None:
            return grpc.aio.insecure_channel(target, options)
        shown = (None, None) if client is None else (client.key_pem, client.certificate_pem)
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots, *shown), options)

    async def outcome(self, roots: bytes | None, client: Pair | None = None) -> str:
        """Call once over a connection of its own; return OK or the status."""
        async with self.channel(roots, client) as channel:
            try:
                await get_run(channel)
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"


async def get_run(channel: grpc.aio.Channel, metadata: Metadata = ()) -> pb.GetRunResponse:
    method: grpc.aio.UnaryUnaryMultiCallable[pb.GetRunRequest, pb.GetRunResponse] = channel.unary_unary(
        GET_RUN, pb.GetRunRequest.SerializeToString, pb.GetRunResponse.FromString
    )
    return await method(pb.GetRunRequest(run_id="run"), metadata=grpc.aio.Metadata(*metadata), timeout=10)


@asynccontextmanager
async def serving_tls(
    folder: Path, certificate: Pair, client_ca: Pair | None = None, providers: Sequence[AuthProvider] = ()
) -> AsyncIterator[TlsServer]:
    """Serve for a block; callers without a credential are the local user, where there are no other `providers`."""
    files = certificate.write(folder, client_ca)
    certificates = CertificateReloader(files, poll_s=POLL_S, remind_s=POLL_S)
    chain = build_auth_chain(("api_key", "local"), ProviderParts(Keys(), HASH_KEY))
    if providers:
        chain = AuthChain(providers, max_failures_per_minute=1_000_000)
    server = RpcServer([Service(AGENT_SERVICE, Runs())], chain, Drain())
    address = await server.start(ServerSettings(listen="127.0.0.1:0"), certificates.credentials())
    watching = asyncio.create_task(certificates.watch())
    try:
        yield TlsServer(int(address.rpartition(":")[2]), files, certificates)
    finally:
        watching.cancel()
        await server.stop(0)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; the test's own timeout is the bound."""
    while not await condition():  # noqa: ASYNC110  # what is waited for is in another process, or in a log
        await asyncio.sleep(POLL_S)
