"""Page tokens: opaque, bound to one caller and one list, of no use when changed."""

import base64
import binascii
import hashlib
import hmac

from parley_server.domain.errors import PageTokenInvalidError

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
