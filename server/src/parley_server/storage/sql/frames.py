"""Events on disk: each payload behind its length (4 bytes, big-endian), one after the other."""

import struct
from collections.abc import Iterable

from parley_server.domain.run_event import StoredEvent

_LENGTH = struct.Struct(">I")


def pack(payloads: Iterable[bytes]) -> bytes:
    """Join payloads into one blob."""
    return b"".join(part for payload in payloads for part in (_LENGTH.pack(len(payload)), payload))


def unpack(first_seq: int, frames: bytes) -> list[StoredEvent]:
    """Split a blob; its events are numbered from `first_seq` on. Raises ValueError on a cut blob."""
    events: list[StoredEvent] = []
    offset = 0
    while offset < len(frames):
        (length,) = _LENGTH.unpack_from(frames, offset)
        offset += _LENGTH.size
        if offset + length > len(frames):
            raise ValueError("the blob ends inside an event")
        events.append(StoredEvent(first_seq + len(events), frames[offset : offset + length]))
        offset += length
    return events
