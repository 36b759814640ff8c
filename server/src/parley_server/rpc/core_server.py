"""The server of grpc.aio, made to outlive calls whose method's name is no text, and to accept calls at a constant cost.

Its accepting loop reads the name of every call for a method that is not registered, as UTF-8. A name that is none ends
the loop, and with it the server: anyone who can connect could stop it with one packet. So all methods are registered,
and every other call is accepted in the name of one that nobody can know.

For each call that loop waits anew for all registered methods, 33 us of a processor with 48 of them. Here each method
waits for its own calls, and the loop for the end of all that.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
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


def _missing(*_: object) -> NoReturn:
    raise UnsuitableGrpcError


_METHODS = ("_request_call", "_request_registered_call", "_make_request_call_future", "is_running")
_find_handler: Callable[[list[object], dict[str, RpcHandler]], object] = getattr(cygrpc, "_MethodResolver", _missing)
_handle: Callable[..., object] = getattr(cygrpc, "_handle_rpc", _missing)
_schedule: Callable[..., Coroutine[object, object, None]] = getattr(cygrpc, "_schedule_rpc_coro", _missing)
# What a core that has stopped says to those who ask it for calls.
_Stopped: type[Exception] = getattr(cygrpc, "_RequestCallError", UnsuitableGrpcError)


class _AioServer(_CoreServer):  # type: ignore[misc, valid-type]  # it comes without types
    """Accepts calls by what they were registered as, and never by the name they bring."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *rest: object) -> None:
        self._handlers: dict[str, RpcHandler] = {}
        self._own_loop = loop
        self._accepting: asyncio.Future[None] = loop.create_future()
        # The loop itself holds on to none.
        self._tasks: set[asyncio.Task[None]] = set()
        super().__init__(loop, *rest)

    def add_registered_method_handlers(self, handlers: dict[str, RpcHandler]) -> None:
        """Register methods by their full names."""
        super().add_registered_method_handlers(handlers)
        self._handlers.update(handlers)

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[None]:
        """Have a method's calls accepted from now on; None, calls of no method, never: the loop would read their names.

        What is returned, to be waited for by the accepting loop, is done when nothing is accepted any more.
        """
        if method is not None:
            self._begin(self._accept(method), self._note_end)
        return self._accepting

    async def _accept(self, method: bytes) -> None:
        """Serve all calls for a method, those for the unknown one are for none, until the server is told to stop."""
        name = method.decode()
        next_call: Callable[[], Awaitable[object]] = partial(self._request_registered_call, method)
        if name == _UNKNOWN_METHOD:
            next_call = self._request_call
        handlers = _find_handler([], self._handlers)
        while self.is_running():
            try:
                call = await next_call()
            except _Stopped:
                continue
            served = _handle(name, handlers, (), call, self._own_loop, False)
            self._begin(_schedule(served, call, self._own_loop, name))

    def _begin(
        self, coroutine: Coroutine[object, object, None], *on_end: Callable[[asyncio.Task[None]], object]
    ) -> None:
        task = self._own_loop.create_task(coroutine)
        self._tasks.add(task)
        for note in (self._tasks.discard, *on_end):
            task.add_done_callback(note)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """Let the accepting loop hear that one method is at its end: it ends as well, or fails with it."""
        if not self._accepting.done():
            failure = None if task.cancelled() else task.exception()
            self._accepting.set_exception(failure or _Stopped())


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
    is_missing = _missing in {_find_handler, _handle, _schedule} or _Stopped is UnsuitableGrpcError
    if is_missing or not all(hasattr(_CoreServer, name) for name in _METHODS):
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
