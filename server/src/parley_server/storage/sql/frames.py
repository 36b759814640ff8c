"""Events on disk: each payload behind its length (4 bytes, big-endian), one after the other.

A length with its top bit set has no payload: it counts events that were there and are folded away.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from parley_server.domain.run_event import StoredEvent

_LENGTH = struct.Struct(">I")
_GAP = 1 << 31


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Page:
    """A blob that was read: its events, and the seq it reaches to, which may be that of an event folded away."""

    events: tuple[StoredEvent, ...]
    last_seq: int


@dataclass(frozen=True, slots=True)
class FoldedPage:
    """A blob without what was folded away; `folded_seq` is the seq of the last event that is, 0 if none is."""

    frames: bytes
    folded_seq: int


def pack(payloads: Iterable[bytes]) -> bytes:
    """Join payloads into one blob."""
    return b"".join(part for payload in payloads for part in (_LENGTH.pack(len(payload)), payload))


def unpack(first_seq: int, frames: bytes) -> tuple[StoredEvent, ...]:
    """Split a blob; its events are numbered from `first_seq` on. Raises ValueError on a cut blob."""
    return read_page(first_seq, frames).events


def read_page(first_seq: int, frames: bytes) -> Page:
    """Split a blob of which some events may be folded away. Raises ValueError on a cut blob."""
    events: list[StoredEvent] = []
    seq = first_seq
    for count, payload in _entries(frames):
        if payload is not None:
            events.append(StoredEvent(seq, payload))
        seq += count
    return Page(tuple(events), seq - 1)


def fold(first_seq: int, frames: bytes, is_folded: Callable[[bytes], bool]) -> FoldedPage:
    """Take the events out that `is_folded` names; the others keep their seqs. Raises ValueError on a cut blob."""
    parts: list[bytes] = []
    seq, gap, folded_seq = first_seq, 0, 0
    for count, payload in _entries(frames):
        seq += count
        if payload is None or is_folded(payload):
            gap += count
            folded_seq = seq - 1
            continue
        if gap:
            parts.append(_LENGTH.pack(_GAP | gap))
            gap = 0
        parts += (_LENGTH.pack(len(payload)), payload)
    if gap:
        parts.append(_LENGTH.pack(_GAP | gap))
    return FoldedPage(b"".join(parts), folded_seq)


def _entries(frames: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Yield how many events an entry stands for, and its payload if that is one that is still there."""
    offset = 0
    while offset < len(frames):
        if offset + _LENGTH.size > len(frames):
            raise ValueError("the blob ends inside a length")
        (length,) = _LENGTH.unpack_from(frames, offset)
        offset += _LENGTH.size
        if length & _GAP:
            yield length ^ _GAP, None
            continue
        if offset + length > len(frames):
            raise ValueError("the blob ends inside an event")
        yield 1, frames[offset : offset + length]
        offset += length
