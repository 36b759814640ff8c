"""Delegation tokens as text: JWTs that this installation signs with Ed25519, and knows again.

The key comes of `[auth] hash_key`, so that replicas agree on it and nothing is stored. All tokens have one header, and
a text with any other is none of ours: no header is ever read, so none can choose an algorithm, a key or an address.
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import cached_property
from typing import TYPE_CHECKING

from parley_server.auth.delegated import Delegation

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_TOKEN_CHARS = 4096


class DelegationSigner:
    """Signs and reads tokens. What that takes is loaded when the first one comes: 5 MiB, for those who use any."""

    def __init__(self, hash_key: bytes) -> None:
        # The key has other uses, and what it makes for one must say nothing to another.
        self._seed = hashlib.blake2b(key=hash_key, digest_size=32, person=b"parley-delegate").digest()
        self.key_id = hashlib.blake2b(key=self._seed, digest_size=8, person=b"parley-key-id").hexdigest()
        header = f'{{"alg":"EdDSA","kid":"{self.key_id}","typ":"parley-delegation+jwt"}}'
        self._beginning = f"{_text(header.encode())}."

    def is_ours(self, text: str) -> bool:
        """Tell whether a text begins as our tokens do, and is no longer than they are."""
        return text.startswith(self._beginning) and len(text) <= MAX_TOKEN_CHARS and text.isascii()

    def sign(self, delegation: Delegation) -> str:
        """Return the token that says so."""
        signed = self._beginning + _text(delegation.to_claims().encode())
        return f"{signed}.{_text(self._private_key.sign(signed.encode()))}"

    def read(self, text: str) -> Delegation | None:
        """Return what a token says, be it over or not; None unless every character is as it was signed."""
        signed, _, signature_text = text.rpartition(".")
        if not self.is_ours(text):
            return None
        signature = _bytes(signature_text)
        if signature is None or not self._is_signature(signature, signed.encode()):
            return None
        claims = _bytes(signed.removeprefix(self._beginning))
        return None if claims is None else Delegation.from_claims(claims)

    @property
    def public_key(self) -> bytes:
        """The 32 bytes by which anybody can verify a token."""
        return self._public_key.public_bytes_raw()

    def jwk_json(self) -> str:
        """Return the public key as a JSON Web Key (RFC 7517, RFC 8037)."""
        x = _text(self.public_key)
        return f'{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"{self.key_id}","x":"{x}"}}'

    def _is_signature(self, signature: bytes, signed: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # for those who use it

        try:
            self._public_key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    @cached_property
    def _private_key(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        return Ed25519PrivateKey.from_private_bytes(self._seed)

    @cached_property
    def _public_key(self) -> "Ed25519PublicKey":
        return self._private_key.public_key()


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes | None:
    """Undo `_text`; None for a text that it does not make: base64 has others that stand for the same bytes."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return raw if _text(raw) == text else None
