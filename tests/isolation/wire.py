"""One call as its caller sees it: every byte of its answer, its end, and what may be held against another call's."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2
from rpc.chassis import Metadata

CALL_TIMEOUT_S = 30.0
# A stream that has nothing to say yet says nothing: its reader goes on to other things.
QUIET_S = 0.15

Seen = Callable[[bytes], None]


@dataclass
class Answer:
    """What has come of a call. `code` is None while its stream is open."""

    code: grpc.StatusCode | None = None
    words: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    messages: list[bytes] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        """Tell whether the call was let in: it has answered, or goes on."""
        return self.code in {None, grpc.StatusCode.OK}

    @property
    def reason(self) -> str:
        """The reason of an error of ours; empty for others."""
        info = error_details_pb2.ErrorInfo()
        for key, value in self.trailers:
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                for detail in status_pb2.Status.FromString(value).details:
                    detail.Unpack(info)
        reason: str = info.reason
        return reason

    @property
    def end(self) -> bytes:
        """All that the call's end says, to be looked through."""
        return repr((self.words, self.trailers)).encode() + b"".join(
            value for _, value in self.trailers if isinstance(value, bytes)
        )


class Wire:
    """Makes calls; streams go on being read behind the caller's back until `hang_up`."""

    def __init__(self) -> None:
        self._reading: set[asyncio.Task[None]] = set()

    async def ask(
        self,
        channel: grpc.aio.Channel,
        method: MethodDescriptor,
        raw: bytes,
        metadata: Metadata,
        *,
        seen: Seen,
        patient: bool,
    ) -> Answer:
        """Make a call; `seen` is told every message, also those that come later.

        Of a stream this returns with its end, or with its first message, or, unless `patient`, when it is quiet.
        """
        path = f"/{method.containing_service.full_name}/{method.name}"
        if method.server_streaming:
            streaming: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
            stream = streaming(raw, metadata=grpc.aio.Metadata(*metadata), timeout=CALL_TIMEOUT_S)
            return await self._follow(stream, seen, patient=patient)
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        call = unary(raw, metadata=grpc.aio.Metadata(*metadata), timeout=CALL_TIMEOUT_S)
        try:
            message = await call
        except grpc.aio.AioRpcError as error:
            return _ended(error)
        seen(message)
        return Answer(grpc.StatusCode.OK, messages=[message])

    async def hang_up(self) -> None:
        """Leave all streams that are still read."""
        for task in self._reading:
            task.cancel()
        if self._reading:
            await asyncio.wait(self._reading)

    async def _follow(self, stream: "grpc.aio.UnaryStreamCall[bytes, bytes]", seen: Seen, *, patient: bool) -> Answer:
        answer, told = Answer(), asyncio.Event()

        async def read() -> None:
            try:
                async for message in stream:
                    seen(message)
                    answer.messages.append(message)
                    told.set()
                answer.code = grpc.StatusCode.OK
            except grpc.aio.AioRpcError as error:
                failed = _ended(error)
                answer.code, answer.words, answer.trailers = failed.code, failed.words, failed.trailers
            finally:
                told.set()
                stream.cancel()

        task = asyncio.create_task(read())
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S if patient else QUIET_S):
                await told.wait()
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            task.cancel()
            raise
        return answer


def _ended(error: grpc.aio.AioRpcError) -> Answer:
    trailers = tuple((str(key), value) for key, value in error.trailing_metadata() or ())
    return Answer(error.code(), error.details() or "", trailers)
