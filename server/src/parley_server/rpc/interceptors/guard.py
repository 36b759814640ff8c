"""The outermost interceptor: bytes and statuses on its one side, calls and errors on the other.

grpc.aio by itself leaves a call without a message, with a cut message or with a cancelled inner task unanswered for
ever, and tells clients the text of exceptions. So every method is registered as one that reads and writes raw bytes,
and all that can happen to a call is turned into a status here.
"""

import asyncio
import traceback
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TypeAlias, TypeVar

import grpc
import structlog

from parley_server.domain.access_errors import AuthUnavailableError, CredentialsInvalidError
from parley_server.domain.call_errors import (
    MetadataTooLargeError,
    ServerDrainingError,
    ServerOverloadedError,
    SlowConsumerError,
)
from parley_server.domain.errors import ParleyError
from parley_server.metrics.recorder import CallType, MethodRecorder
from parley_server.rpc.call import Call, Handler, Method, Response
from parley_server.rpc.call_metadata import read_metadata
from parley_server.rpc.call_observer import CallObserver
from parley_server.rpc.drain import Drain
from parley_server.rpc.interceptors.exchange import Bounds, Exchange, GuardLimits, Rpc, peer_gone
from parley_server.rpc.interceptors.recheck import Recheck
from parley_server.rpc.outcome import LATE, OK, Tally, outcome_of
from parley_server.rpc.overload import Overload

T = TypeVar("T")
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

_log = structlog.get_logger(__name__)


class Guard:
    """Turns handlers into what grpc.aio serves."""

    def __init__(
        self, drain: Drain, overload: Overload, limits: GuardLimits, observer: CallObserver, recheck: Recheck
    ) -> None:
        self._drain = drain
        self._overload = overload
        self._limits = limits
        self._bounds = Bounds(limits)
        self._observer = observer
        self._recheck = recheck

    def unary(self, method: Method, handler: Handler[Response]) -> RpcHandler:
        """Serve a method that answers with one message."""
        recorder = self._observer.method(method.name, CallType.UNARY)

        async def behaviour(_: object, rpc: Rpc) -> bytes:
            call, exchange = self._open(method, rpc, recorder, answer_s=self._limits.unary_s)
            return await self._observed(call, exchange, self._serve_unary(handler, call, exchange))

        return grpc.stream_unary_rpc_method_handler(behaviour)

    def streaming(self, method: Method, handler: Handler[AsyncGenerator[Response]]) -> RpcHandler:
        """Serve a method that answers with a stream."""
        call_type = CallType.BIDI_STREAMING if method.has_request_stream else CallType.SERVER_STREAMING
        recorder = self._observer.method(method.name, call_type)

        async def behaviour(_: object, rpc: Rpc) -> None:
            call, exchange = self._open(method, rpc, recorder, answer_s=None)
            await self._observed(call, exchange, self._serve_stream(handler, call, exchange))

        return grpc.stream_stream_rpc_method_handler(behaviour)

    def _open(
        self, method: Method, rpc: Rpc, recorder: MethodRecorder, *, answer_s: float | None
    ) -> tuple[Call, Exchange]:
        metadata = read_metadata(rpc.invocation_metadata() or ())
        exchange = Exchange(rpc, metadata.request_id, self._bounds, Tally(recorder), answer_s=answer_s)
        call = Call(method, metadata, rpc.peer, exchange.certificate, exchange.receive, exchange.receive_next)
        return call, exchange

    async def _observed(self, call: Call, exchange: Exchange, work: Awaitable[T]) -> T:
        """Do the work, and note the call's one outcome."""
        try:
            response = await _answered(call, exchange, work)
        except grpc.aio.AbortError:
            self._observer.ended(call, exchange.tally, exchange.outcome)
            raise
        except asyncio.CancelledError:
            self._note_cancel(call, exchange)
            raise
        self._observer.ended(call, exchange.tally, OK)
        return response

    def _note_cancel(self, call: Call, exchange: Exchange) -> None:
        """Find out who ended a call that has been cancelled: its deadline, this server, or its caller."""
        if exchange.missed_deadline():
            self._observer.ended(call, exchange.tally, LATE)
        elif self._drain.is_over:
            self._observer.ended(call, exchange.tally, outcome_of(ServerDrainingError()))
        else:
            self._observer.left(call, exchange.tally)

    async def _serve_unary(self, handler: Handler[Response], call: Call, exchange: Exchange) -> bytes:
        self._admit(call)
        response = _serialize(await exchange.timed(handler(call)))
        await exchange.send_headers()
        exchange.tally.sent()
        return response

    async def _serve_stream(self, handler: Handler[AsyncGenerator[Response]], call: Call, exchange: Exchange) -> None:
        self._admit(call)
        # Closed here and now: left to itself, a generator of a call that ended is closed later, in another task.
        async with aclosing(await exchange.timed(handler(call))) as responses:
            credential = self._recheck.of(call)
            async for response in responses:
                try:
                    if credential.is_due:
                        await credential.check()
                    await exchange.write(_serialize(response))
                except (SlowConsumerError, CredentialsInvalidError, AuthUnavailableError) as error:
                    # Whoever makes the stream may care why it ends: the reader is there, and only slow or not let in.
                    await responses.athrow(error)
        await exchange.send_headers()

    def _admit(self, call: Call) -> None:
        limit = self._limits.max_metadata_bytes
        if call.metadata.size_bytes > limit:
            raise MetadataTooLargeError(
                f"the call's metadata is over {limit} bytes", metadata={"max_bytes": str(limit)}
            )
        if call.method.is_public:
            return
        if self._drain.started:
            raise ServerDrainingError
        if self._overload.active:
            raise ServerOverloadedError


async def _answered(call: Call, exchange: Exchange, work: Awaitable[T]) -> T:
    """Do the work, and end the call with a status whatever becomes of it."""
    try:
        return await work
    except ParleyError as error:
        failure = error
    except grpc.aio.BaseError:
        raise peer_gone() from None
    except asyncio.CancelledError as error:
        if _is_cancelled():
            raise
        failure = _unexpected(call, error)
    except Exception as error:  # noqa: BLE001  # the last line: nobody further out would tell the client anything
        failure = _unexpected(call, error)
    if _is_cancelled():
        raise peer_gone()
    try:
        ending = exchange.ending(failure)
    except (TypeError, ValueError, OverflowError) as error:
        ending = exchange.ending(_unexpected(call, error))
    return await exchange.end(ending)


def _serialize(response: Response) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


def _is_cancelled() -> bool:
    """Tell whether the call's own task is being cancelled, and not merely something it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _unexpected(call: Call, error: BaseException) -> ParleyError:
    """Log a fault of ours and return what the client is told of it. Its text may hold anything, so neither has it."""
    request_id = call.metadata.request_id
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    _log.error(
        "internal_error", method=call.method.name, request_id=request_id, error=type(error).__qualname__, frames=frames
    )
    return ParleyError(f"internal error (id={request_id})")
