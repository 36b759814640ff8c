"""Changes a stream at random, in the ways that find faults in readers of streams."""

from collections.abc import Callable, Sequence
from random import Random

MAX_BYTES = 65536

# What readers give a meaning to.
WORDS = (
    *(
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\xef\xbb\xbf",
        b"\x00",
        b"\xff",
        b"\xe2\x80",
        b": ",
        b"data: ",
        b"data:",
        b"event: error\n",
    ),
    *(
        b"error: x\n",
        b"data: [DONE]\n\n",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b"\\ud83d",
        b"\\ude42",
        b"\\u0000",
        b",",
        b"{}",
    ),
    *(
        b"null",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 30,
        b"-1",
        b"0",
        b"true",
        b'""',
        b'"index":',
        b'"id":',
        b'"name":',
    ),
    *(b'"arguments":', b'"finish_reason":"stop"', b'"finish_reason":"abort"', b'"error":', b'"usage":', b'"choices":'),
)

Mutation = Callable[[Random, bytes, bytes], bytes]


def mutated(random: Random, streams: Sequence[bytes]) -> bytes:
    """Take one of the streams, and change it in one to four places."""
    stream, other = random.choice(streams), random.choice(streams)
    for _ in range(random.randint(1, 4)):
        stream = random.choice(MUTATIONS)(random, stream, other)[:MAX_BYTES]
    return stream


def _flip(random: Random, stream: bytes, _: bytes) -> bytes:
    changed = bytearray(stream or b"x")
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _insert(random: Random, stream: bytes, _: bytes) -> bytes:
    place = random.randint(0, len(stream))
    return stream[:place] + random.choice(WORDS) * random.choice((1, 1, 1, 50)) + stream[place:]


def _replace(random: Random, stream: bytes, _: bytes) -> bytes:
    start, end = _part(random, stream)
    return stream[:start] + random.choice(WORDS) + stream[end:]


def _delete(random: Random, stream: bytes, _: bytes) -> bytes:
    start, end = _part(random, stream)
    return stream[:start] + stream[end:]


def _repeat(random: Random, stream: bytes, _: bytes) -> bytes:
    start, end = _part(random, stream)
    return stream[:end] + stream[start:end] * random.choice((1, 2, 20)) + stream[end:]


def _splice(random: Random, stream: bytes, other: bytes) -> bytes:
    return stream[: _part(random, stream)[0]] + other[_part(random, other)[0] :]


def _shuffle(random: Random, stream: bytes, _: bytes) -> bytes:
    """Put the events in another order."""
    events = stream.split(b"\n\n")
    random.shuffle(events)
    return b"\n\n".join(events)


def _cut(random: Random, stream: bytes, _: bytes) -> bytes:
    return stream[: random.randint(0, len(stream))]


MUTATIONS: Sequence[Mutation] = (_flip, _insert, _insert, _replace, _replace, _delete, _repeat, _splice, _shuffle, _cut)


def _part(random: Random, stream: bytes) -> tuple[int, int]:
    start = random.randint(0, len(stream))
    return start, min(start + random.choice((1, 2, 8, 64, 512)), len(stream))
