"""The server of grpc.aio, made to outlive calls whose method's name is no text.

Its accepting loop reads the name of every call for a method that is not registered, as UTF-8. A name that is none ends
the loop, and with it the server: anyone who can connect could stop it with one packet. So all methods are registered,
and every other call is accepted in the name of one that nobody can know.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import NoReturn

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # its stubs lack it, and it is the only way to the accepting loop

from parley_server.domain.errors import StartError
from parley_server.rpc.connections import connected_peers
from parley_server.rpc.interceptors.exchange import peer_gone
from parley_server.rpc.interceptors.guard import RpcHandler

_UNKNOWN_METHOD = f"/unknown/{secrets.token_hex(16)}"
# Of a grpcio that has none, `core_server` says so.
_CoreServer = getattr(cygrpc, "AioServer", object)


class UnsuitableGrpcError(StartError):
    """The installed grpcio is built in another way than what is used of its inner parts."""

    def __init__(self) -> None:
        super().__init__(
            f"grpcio {grpc.__version__} is none that parley-server can protect; install the version it depends on: "
            "pip install --upgrade parley-server"
        )


class _AioServer(_CoreServer):  # type: ignore[misc, valid-type]  # it comes without types
    """Accepts calls by what they were registered as, and never by the name they bring."""

    async def _request_call(self) -> object:
        """Return no call, ever: the loop would read its name."""
        return await asyncio.get_running_loop().create_future()

    async def _request_registered_call(self, method: bytes) -> object:
        """Return the next call for a method; for the unknown one, the next call that is for none."""
        if method == _UNKNOWN_METHOD.encode():
            return await super()._request_call()
        return await super()._request_registered_call(method)


def core_server(options: Sequence[tuple[str, int]], handlers: Mapping[str, RpcHandler]) -> grpc.aio.Server:
    """Return a server of `handlers`, by the methods' full names; any other call is UNIMPLEMENTED.

    Call it inside the running loop. Raises UnsuitableGrpcError.
    """
    _require_inner_parts()
    # Whoever builds it names the class in this place, and what he hands to it differs between versions.
    cygrpc.AioServer = _AioServer
    try:
        server = grpc.aio.server(options=options)
    finally:
        cygrpc.AioServer = _CoreServer
    if not isinstance(getattr(server, "_server", None), _AioServer):
        raise UnsuitableGrpcError
    for name, handler in {**handlers, _UNKNOWN_METHOD: grpc.stream_stream_rpc_method_handler(_refuse)}.items():
        service, _, method = name.removeprefix("/").rpartition("/")
        server.add_registered_method_handlers(service, {method: handler})
    return server


def _require_inner_parts() -> None:
    """See at the start, and not by the first packet, that what is used of grpcio is there."""
    if not (hasattr(_CoreServer, "_request_call") and hasattr(_CoreServer, "_request_registered_call")):
        raise UnsuitableGrpcError
    try:
        connected_peers()
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnsuitableGrpcError from error


async def _refuse(_: object, rpc: "grpc.aio.ServicerContext[bytes, bytes]") -> NoReturn:
    """Say of a method that is not there what the core says of one."""
    try:
        await rpc.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    except grpc.aio.InternalError:
        raise peer_gone() from None
