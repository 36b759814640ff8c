"""Requests as bytes, written by the descriptors: mostly right, sometimes wrong in one place, sometimes anywhere."""

import struct
from collections.abc import Mapping, Sequence
from random import Random

from fuzz.bytes_at_random import mutated
from google.protobuf.descriptor import Descriptor, FieldDescriptor

# What strings of a certain field may well be, by the field's name.
Known = Mapping[str, Sequence[bytes]]

_VARINT, _FIXED64, _LENGTH_DELIMITED, _GROUP_START, _GROUP_END, _FIXED32 = range(6)
_WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
    FieldDescriptor.TYPE_SFIXED32: _FIXED32,
    FieldDescriptor.TYPE_STRING: _LENGTH_DELIMITED,
    FieldDescriptor.TYPE_BYTES: _LENGTH_DELIMITED,
    FieldDescriptor.TYPE_MESSAGE: _LENGTH_DELIMITED,
}
_NUMBERS = (0, 1, 1, 2, 3, 5, 10, 100, 999_999_999, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
_DOUBLES = (0.0, 0.5, 1.0, -1.0, 1e308, float("inf"), float("nan"), 5e-324)
_TEXTS = (
    b"", b"x", b"What is 17 * 23?", b" ", b"\x00", b"a\x00b", b"{}", b"[1]", b'{"a": {"b": "\\u0000"}}', b"*", b"ann",
    b"telegram:*", "\u00fc\U0001f99c\u202e".encode(), b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"../etc", b"%s%n",
    b"' OR 1=1 --", b"Asia/Tokyo", b"admin", b"runs:read", b"-1", b"2026-01-01", b"x" * 64, b"x" * 65, b"x" * 129,
    b"x" * 5000,
)  # fmt: skip
_DEEPEST = 6


def request(random: Random, descriptor: Descriptor, known: Known) -> bytes:
    """Return a request: of three, one as it should be, one with wrong parts, and one with wrong bytes."""
    wildness = random.choice((0.0, 0.05, 0.05))
    raw = _message(random, descriptor, known, wildness)
    return mutated(random, raw) if random.random() < 0.3 else raw


def _message(random: Random, descriptor: Descriptor, known: Known, wildness: float, depth: int = 0) -> bytes:
    parts = []
    for field in descriptor.fields:
        if depth < _DEEPEST and random.random() < (0.9 if field.name in known else 0.4):
            count = random.choice((1, 1, 2, 3, 40)) if field.is_repeated else 1
            parts += [_field(random, field, known, wildness, depth) for _ in range(count)]
    if random.random() < wildness:
        parts.append(_oddity(random))
        random.shuffle(parts)
    return b"".join(parts)


def _field(random: Random, field: FieldDescriptor, known: Known, wildness: float, depth: int) -> bytes:
    wire_type = _WIRE_TYPES.get(field.type, _VARINT)
    if random.random() < wildness:
        wire_type = random.randrange(6)
    tag = varint(field.number << 3 | wire_type)
    match wire_type:
        case 0:
            return tag + varint(_number(random, field, wildness))
        case 1:
            return tag + struct.pack("<d", random.choice(_DOUBLES))
        case 5:
            return tag + random.randbytes(4)
        case 2:
            content = _content(random, field, known, wildness, depth)
            return tag + varint(len(content)) + content
        case _:
            return tag


def _number(random: Random, field: FieldDescriptor, wildness: float) -> int:
    if field.enum_type is not None and random.random() >= wildness:
        return int(random.choice(field.enum_type.values).number)
    # Small ones pass more often, and what passes goes deeper.
    return random.choice(_NUMBERS[:5] if random.random() < 0.7 else _NUMBERS)


def _content(random: Random, field: FieldDescriptor, known: Known, wildness: float, depth: int) -> bytes:
    if field.message_type is not None and random.random() >= wildness:
        return _message(random, field.message_type, known, wildness, depth + 1)
    if field.name in known and random.random() < 0.7:
        return random.choice(known[field.name])
    text = random.choice(_TEXTS)
    # Now and then as long as the largest that may pass, or longer.
    return text * 20_000 if random.random() < 0.01 else text


def _oddity(random: Random) -> bytes:
    """Return what no message should hold."""
    return random.choice(
        (
            b"\xff" * 10,  # a varint too long
            b"\x0b" * 150,  # groups that are opened and never closed
            b"\x0a" * 150,  # a length that promises more than there is
            _nested(200),
            varint(536_870_911 << 3) + b"\x00",  # the largest field number
            b"\x00\x00",  # the field number 0
            random.randbytes(random.randrange(1, 30)),
            b"\x0a\xff\xff\xff\xff\x0f",  # a length of four gigabytes
        )
    )


def _nested(depth: int) -> bytes:
    """Return the first field, in itself, so many times."""
    raw = b""
    for _ in range(depth):
        raw = b"\x0a" + varint(len(raw)) + raw
    return raw


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
