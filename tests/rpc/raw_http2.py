"""A client that speaks HTTP/2 by hand, to send what no gRPC library would."""

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

# Bytes for what is no text; nothing is made lower case or stripped on the way.
Header = tuple[str | bytes, str | bytes]
Headers = Sequence[Header]


def framed(message: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message with its prefix; `length` is what the prefix says, true or not."""
    return struct.pack(">BI", flag, len(message) if length is None else length) + message


def call_headers(method: str) -> list[Header]:
    """What every gRPC call sends."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "test"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


@dataclass
class RawAnswer:
    """What came back on a stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: bool = False

    @property
    def status(self) -> int:
        return int(self.headers["grpc-status"])


class RawClient:
    """One connection: `async with RawClient(address) as client`."""

    def __init__(self, address: str, *, window: int | None = None, settle: bool = True) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._window = window
        self._settle = settle
        config = h2.config.H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._connection = h2.connection.H2Connection(config)

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, int(self._port))
        if self._window is not None:
            self._connection.local_settings[h2.settings.SettingCodes.INITIAL_WINDOW_SIZE] = self._window
        self._connection.initiate_connection()
        await self._flush()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def call(
        self,
        method: str,
        body: Sequence[bytes] = (),
        *,
        end: bool = True,
        metadata: Headers | None = None,
    ) -> int:
        """Start a call: headers, then each piece of the body; `end` closes our side. Returns the stream."""
        return await self.request([*call_headers(method), *(metadata or ())], body, end=end)

    async def request(self, headers: Headers, body: Sequence[bytes] = (), *, end: bool = True) -> int:
        """Do as `call` does, with these headers and no others."""
        stream = self._connection.get_next_available_stream_id()
        self._connection.send_headers(stream, headers, end_stream=end and not body)
        for number, piece in enumerate(body):
            self._connection.send_data(stream, piece, end_stream=end and number == len(body) - 1)
        await self._flush()
        return stream

    async def reset(self, stream: int) -> None:
        """Give a call up."""
        self._connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        await self._flush()

    async def answer(self, stream: int, timeout_s: float = 5.0) -> RawAnswer:
        """Read until the stream ends."""
        answer = RawAnswer()
        async with asyncio.timeout(timeout_s):
            while True:
                data = await self._reader.read(65536)
                if not data:
                    raise ConnectionError("the server closed the connection")
                for event in self._connection.receive_data(data):
                    if self._take(event, stream, answer):
                        return answer
                await self._flush()

    def _take(self, event: h2.events.Event, stream: int, answer: RawAnswer) -> bool:
        """Note an event; tell whether it is the stream's last."""
        if getattr(event, "stream_id", None) != stream:
            return False
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            answer.headers |= {str(name): str(value) for name, value in event.headers}
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = True
            return True
        return isinstance(event, h2.events.StreamEnded)

    async def _flush(self) -> None:
        self._writer.write(self._connection.data_to_send())
        await self._writer.drain()
