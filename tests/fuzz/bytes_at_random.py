"""Bytes with something wrong in them."""

from collections.abc import Callable, Sequence
from random import Random

_TELLING = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\r\n", b"\t", b"\x01", b",", b"\xc3\xa9", b"\xe9", b"=", b"%")


def mutated(random: Random, raw: bytes, times: int = 3) -> bytes:
    """Return the bytes with one to `times` things done to them."""
    for _ in range(random.randint(1, times)):
        raw = random.choice(_MUTATIONS)(random, raw)
    return raw


def _place(random: Random, raw: bytes) -> int:
    return random.randint(0, len(raw))


def _flip(random: Random, raw: bytes) -> bytes:
    if not raw:
        return b"\x01"
    at = random.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << random.randrange(8)]) + raw[at + 1 :]


def _cut(random: Random, raw: bytes) -> bytes:
    return raw[: _place(random, raw)]


def _drop(random: Random, raw: bytes) -> bytes:
    at = _place(random, raw)
    return raw[:at] + raw[at + random.randint(1, 4) :]


def _insert(random: Random, raw: bytes) -> bytes:
    at = _place(random, raw)
    return raw[:at] + random.choice(_TELLING) * random.choice((1, 1, 2, 30)) + raw[at:]


def _repeat(random: Random, raw: bytes) -> bytes:
    start, end = sorted((_place(random, raw), _place(random, raw)))
    return raw[:end] + raw[start:end] + raw[end:]


def _overwrite(random: Random, raw: bytes) -> bytes:
    at = _place(random, raw)
    noise = random.randbytes(random.randint(1, 8))
    return raw[:at] + noise + raw[at + len(noise) :]


_MUTATIONS: Sequence[Callable[[Random, bytes], bytes]] = (_flip, _flip, _cut, _drop, _insert, _repeat, _overwrite)
