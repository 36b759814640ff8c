"""A connection as its frames, for tests of what happens to connections and not to calls.

The library `h2` is no help here: after a server's first GOAWAY it takes nothing more.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, SettingsFrame
from rpc.raw_http2 import call_headers, framed

FrameT = TypeVar("FrameT", bound=Frame)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9


class RawConnection:
    """Reads on its own what the server sends; `answers_pings` is what a frozen peer does not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers_pings: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._answers_pings = answers_pings
        self._frames: list[Frame] = []
        self._arrival = asyncio.Condition()
        self.closed = asyncio.Event()

    async def begin(self) -> None:
        """Send the preface and the settings, as every client does at once."""
        self._writer.write(PREFACE)
        await self._send(SettingsFrame(0))

    async def call(self, method: str, message: bytes) -> None:
        """Make the connection's one call."""
        headers = Encoder().encode(call_headers(method))
        await self._send(HeadersFrame(1, headers, flags=["END_HEADERS"]))
        await self._send(DataFrame(1, framed(message), flags=["END_STREAM"]))

    async def ping(self) -> None:
        await self._send(PingFrame(0, b"12345678"))

    async def frame(self, kind: type[FrameT], timeout_s: float = 10) -> FrameT:
        """Wait for the first frame of a kind that is there or comes."""
        async with asyncio.timeout(timeout_s), self._arrival:
            while True:
                for frame in self._frames:
                    if isinstance(frame, kind):
                        return frame
                await self._arrival.wait()

    async def closes(self, timeout_s: float = 10) -> bool:
        """Tell whether the server closes the connection within that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.closed.wait()
        return self.closed.is_set()

    async def read(self) -> None:
        """Take in what comes until the server closes the connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                frame, length = Frame.parse_frame_header(memoryview(await self._reader.readexactly(HEADER_BYTES)))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
                await self._answer(frame)
                async with self._arrival:
                    self._frames.append(frame)
                    self._arrival.notify_all()
        self.closed.set()

    async def _answer(self, frame: Frame) -> None:
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            await self._send(SettingsFrame(0, flags=["ACK"]))
        if isinstance(frame, PingFrame) and "ACK" not in frame.flags and self._answers_pings:
            await self._send(PingFrame(0, frame.opaque_data, flags=["ACK"]))

    async def _send(self, frame: Frame) -> None:
        self._writer.write(frame.serialize())
        await self._writer.drain()


@asynccontextmanager
async def connected(address: str, *, begin: bool = True, answers_pings: bool = True) -> AsyncIterator[RawConnection]:
    """Connect for a block; without `begin` nothing is sent."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = RawConnection(reader, writer, answers_pings=answers_pings)
    reading = asyncio.ensure_future(connection.read())
    try:
        if begin:
            await connection.begin()
        yield connection
    finally:
        reading.cancel()
        writer.close()
