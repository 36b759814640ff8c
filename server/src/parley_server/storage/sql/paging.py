"""Pages: how much fits one, and tokens: opaque, bound to one caller and one list, of no use when changed."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Collection, Sequence

from parley_server.domain.errors import PageTokenInvalidError
from parley_server.storage.sql.database import Row
from parley_server.storage.sql.rows import string

# Half of what a message may have, for what the columns become on the wire.
MAX_PAGE_BYTES = 2 * 1024 * 1024
_MAC_BYTES = 16


class PageTokens:
    """Makes and reads tokens with a secret key of this installation."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(b"parley page token", key=key[:64], digest_size=32).digest()

    def issue(self, listing: tuple[str, ...], position: str) -> str:
        """Make the token of the page after `position`; `listing` names the caller, the list and its filter."""
        return base64.urlsafe_b64encode(self._mac(listing, position) + position.encode()).decode().rstrip("=")

    def read(self, listing: tuple[str, ...], token: str) -> str:
        """Return a token's position, empty for an empty token. Raises PageTokenInvalidError."""
        if not token:
            return ""
        try:
            position = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[_MAC_BYTES:].decode()
        except (binascii.Error, ValueError):
            raise PageTokenInvalidError from None
        # The whole token and not its bytes: base64 reads more than one text as the same bytes.
        if not hmac.compare_digest(token.encode(), self.issue(listing, position).encode()):
            raise PageTokenInvalidError
        return position

    def _mac(self, listing: tuple[str, ...], position: str) -> bytes:
        # Each part behind its length, so that no two listings read alike.
        parts = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in (*listing, position))
        return hashlib.blake2b(parts, key=self._key, digest_size=_MAC_BYTES).digest()


def fitting(rows: Sequence[Row], size: int, columns: Collection[str]) -> int:
    """Count the rows a page takes: at most `size`, and no more than MAX_PAGE_BYTES in the columns that can be large."""
    taken = size_bytes = 0
    for row in rows[:size]:
        size_bytes += sum(len(string(row, name).encode()) for name in columns)
        if taken and size_bytes > MAX_PAGE_BYTES:
            break
        taken += 1
    return taken
