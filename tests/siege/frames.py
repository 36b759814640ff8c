"""HTTP/2 frames and gRPC messages by hand, right or wrong."""

import struct
from collections.abc import Sequence

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
SETTINGS_ACK = b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"
MAX_FRAME_BYTES = 16_384
FIRST_WINDOW = 65_535

Pairs = Sequence[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """One frame; `length` is what its header says, true or not."""
    size = len(payload) if length is None else length
    return struct.pack(">HBBBI", (size >> 8) & 0xFFFF, size & 0xFF, kind, flags, stream) + payload


def message(body: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message with its prefix; `length` is what the prefix says, true or not."""
    return struct.pack(">BI", flag, len(body) if length is None else length) + body


def header_block(method: str, metadata: Pairs = ()) -> bytes:
    """The headers of a call, coded without reference to any block before."""
    pairs: list[tuple[bytes, bytes]] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method.encode()),
        (b":authority", b"siege"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *metadata,
    ]
    return b"".join(_literal(name, value) for name, value in pairs)


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    return bytes(hpack.hpack.encode_integer(len(text), 7)) + text


def call_frames(stream: int, method: str, body: bytes | None, metadata: Pairs = ()) -> bytes:
    """A whole call with one message; with None its headers alone, left open."""
    opening = frame(HEADERS, END_HEADERS, stream, header_block(method, metadata))
    return opening if body is None else opening + frame(DATA, END_STREAM, stream, message(body))
