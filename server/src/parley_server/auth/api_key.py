"""API keys as text: `parley_<12 id>_<43 secret>_<6 crc>` in base62, and the keyed hash that is kept of one."""

import hashlib
import secrets
import time
import zlib
from dataclasses import dataclass

PREFIX = "parley_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TIME_WIDTH, _ID_WIDTH, _SECRET_WIDTH, _CRC_WIDTH = 7, 12, 43, 6
_WIDTHS = [_ID_WIDTH, _SECRET_WIDTH, _CRC_WIDTH]


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A well-formed key: who it says it is, and its secret, which is never logged or stored."""

    key_id: str
    secret: str

    @classmethod
    def parse(cls, text: str) -> "PresentedKey | None":
        """Read a key's text; None unless its widths, letters and checksum are right."""
        parts = text.removeprefix(PREFIX).split("_")
        if not (text.startswith(PREFIX) and text.isascii()) or [len(part) for part in parts] != _WIDTHS:
            return None
        key_id, secret, crc = parts
        is_whole = key_id.isalnum() and secret.isalnum() and crc == _checksum(key_id, secret)
        return cls(key_id, secret) if is_whole else None

    @classmethod
    def mint(cls) -> "PresentedKey":
        """Make a key with 256 random bits. Ids sort by creation and are no secret."""
        key_id = _base62(time.time_ns() // 1_000_000, _TIME_WIDTH) + _random(_ID_WIDTH - _TIME_WIDTH)
        return cls.with_new_secret(key_id)

    @classmethod
    def with_new_secret(cls, key_id: str) -> "PresentedKey":
        """Make another secret of 256 random bits for a key."""
        return cls(key_id, _random(_SECRET_WIDTH))

    @property
    def text(self) -> str:
        """The key as its holder sends it."""
        return f"{PREFIX}{self.key_id}_{self.secret}_{_checksum(self.key_id, self.secret)}"

    def hash(self, hash_key: bytes) -> bytes:
        """Return the 32 bytes to store or to compare. The id is hashed too, so no row can stand in for another."""
        content = f"{self.key_id}_{self.secret}".encode()
        return hashlib.blake2b(content, key=hash_key, digest_size=32, person=b"parley-api-key").digest()

    def __repr__(self) -> str:
        """Leave the secret out of logs and tracebacks."""
        return f"PresentedKey({self.key_id!r})"


def _checksum(key_id: str, secret: str) -> str:
    """Return the CRC32 of all before it: scanners tell a leaked key from noise, and typos never reach the store."""
    return _base62(zlib.crc32(f"{PREFIX}{key_id}_{secret}".encode()), _CRC_WIDTH)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _random(width: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(width))
