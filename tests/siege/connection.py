"""A connection that keeps no rule: it sends what it is told and notes what comes back."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from siege.frames import (
    DATA,
    END_STREAM,
    FIRST_WINDOW,
    MAX_FRAME_BYTES,
    PREFACE,
    SETTINGS,
    SETTINGS_ACK,
    WINDOW_UPDATE,
    Pairs,
    call_frames,
    frame,
    message,
)

_HEADER_BYTES = 9
_READ_LIMIT = 1 << 16


@dataclass
class Answer:
    """What a stream was answered: its headers and trailers, and whether it was reset."""

    headers: dict[str, str] = field(default_factory=dict)
    reset: bool = False
    ended: bool = False

    @property
    def status(self) -> int | None:
        """The gRPC status; None where there is none."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None


class FrameConnection:
    """One connection: `async with FrameConnection(address) as connection`.

    It sends the preface and acknowledges the server's settings, unless `greets` is off. With `reads` off it takes
    nothing from the socket; with `grants` off it reads, and never grants the server more room than there is at first.
    """

    def __init__(
        self, address: str, *, greets: bool = True, reads: bool = True, grants: bool = True, settings: bytes = b""
    ) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._greets = greets
        self._reads = reads
        self._grants = grants
        self._settings = settings
        self._decoder = hpack.Decoder()
        self._reading: asyncio.Task[None] | None = None
        self._granted: Counter[int] = Counter()
        self._sent: Counter[int] = Counter()
        self._stream_window = FIRST_WINDOW
        self.frames: Counter[str] = Counter()
        self.answers: dict[int, Answer] = {}
        self._news = asyncio.Event()
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        # A reader whose buffer holds more than its limit has the socket left alone.
        limit = _READ_LIMIT if self._reads else 1
        self._reader, self._writer = await asyncio.open_connection(self._host, int(self._port), limit=limit)
        if self._greets:
            self._writer.write(PREFACE + frame(SETTINGS, 0, 0, self._settings))
        if self._reads:
            self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        self._writer.transport.abort()

    async def send(self, raw: bytes) -> bool:
        """Send bytes; tell whether the connection still took them."""
        try:
            if not self.closed.is_set():
                self._writer.write(raw)
                await self._writer.drain()
        except ConnectionError:
            self.closed.set()
        return not self.closed.is_set()

    async def call(self, stream: int, method: str, body: bytes, metadata: Pairs = ()) -> None:
        """Make a whole call, its message as the server grants room, until it is sent or the server wants no more."""
        await self.send(call_frames(stream, method, None, metadata))
        rest = message(body)
        while rest and not self.closed.is_set() and not self._answer(stream).ended:
            room = self.room(stream, min(len(rest), MAX_FRAME_BYTES))
            if room:
                await self.send_data(stream, rest[:room])
                rest = rest[room:]
            else:
                self._news.clear()
                await self._news.wait()
        await self.send(frame(DATA, END_STREAM, stream))

    async def send_data(self, stream: int, payload: bytes) -> bool:
        """Send a part of a message and count it; tell whether the connection still took it."""
        self._sent.update({0: len(payload), stream: len(payload)})
        return await self.send(frame(DATA, 0, stream, payload))

    def room(self, stream: int, most: int) -> int:
        """How many bytes of data the server lets a stream send now, at most so many."""
        on_connection = FIRST_WINDOW + self._granted[0] - self._sent[0]
        on_stream = self._stream_window + self._granted[stream] - self._sent[stream]
        return max(0, min(most, on_connection, on_stream))

    @property
    def sent_bytes(self) -> int:
        """How many bytes of data were sent and counted."""
        return self._sent[0]

    async def answered(self, streams: int, timeout_s: float) -> bool:
        """Wait until so many streams have ended or the connection has; tell whether that came in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.ended < streams and not self.closed.is_set():
                    self._news.clear()
                    await self._news.wait()
        return self.ended >= streams or self.closed.is_set()

    @property
    def ended(self) -> int:
        """How many streams have ended."""
        return sum(answer.ended for answer in self.answers.values())

    async def _read(self) -> None:
        try:
            while True:
                head, length = Frame.parse_frame_header(memoryview(await self._reader.readexactly(_HEADER_BYTES)))
                head.parse_body(memoryview(await self._reader.readexactly(length)))
                self._take(head)
                self._news.set()
        except (ConnectionError, asyncio.IncompleteReadError):
            # How a server ends a connection.
            return
        finally:
            self.closed.set()
            self._news.set()

    def _take(self, got: Frame) -> None:
        self.frames[type(got).__name__.removesuffix("Frame")] += 1
        if isinstance(got, SettingsFrame) and "ACK" not in got.flags:
            self._stream_window = got.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._stream_window)
            if self._greets:
                self._writer.write(SETTINGS_ACK)
        elif isinstance(got, DataFrame) and self._grants and got.flow_controlled_length:
            room = got.flow_controlled_length.to_bytes(4, "big")
            self._writer.write(frame(WINDOW_UPDATE, 0, 0, room) + frame(WINDOW_UPDATE, 0, got.stream_id, room))
        elif isinstance(got, WindowUpdateFrame):
            self._granted[got.stream_id] += got.window_increment
        elif isinstance(got, GoAwayFrame):
            self.frames["GoAway:" + bytes(got.additional_data).decode("ascii", "replace")] += 1
        if got.stream_id:
            self._take_of_stream(got, self._answer(got.stream_id))

    def _answer(self, stream: int) -> Answer:
        return self.answers.setdefault(stream, Answer())

    def _take_of_stream(self, got: Frame, answer: Answer) -> None:
        if isinstance(got, HeadersFrame):
            block = self._decoder.decode(bytes(got.data), raw=True)
            answer.headers |= {bytes(pair[0]).decode(): bytes(pair[1]).decode("latin-1") for pair in block}
        answer.reset = answer.reset or isinstance(got, RstStreamFrame)
        answer.ended = answer.ended or answer.reset or "END_STREAM" in got.flags
