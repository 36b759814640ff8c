"""Tokens (JWT) taken apart, more strictly than libraries do: what could be read in two ways is not read at all."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Never

MAX_CHARS = 8192
# What the text of a JSON object begins with in base64: `{"`, `{ `.
_BEGINS = "ey"
# They say where the key is, or change what is signed or how it is read; keys come from the operator's settings alone.
_REFUSED_IN_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})


class TokenRefusedError(Exception):
    """A token is no good; the text says why in words of ours, for the operator's log and for nobody else."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it says of itself: nothing in it is proved before its signature is."""

    text: str
    header: Mapping[str, object]
    claims: Mapping[str, object]

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Read a token. Raises TokenRefusedError for one that is too long, or not written as there is one way to."""
        if len(text) > MAX_CHARS:
            raise TokenRefusedError(f"it is longer than {MAX_CHARS} characters")
        header, claims, signature = text.split(".")
        _decoded(signature)
        return cls(text, _object_in(header), _object_in(claims))

    @property
    def issuer(self) -> str | None:
        """Who it says has issued it."""
        issuer = self.claims.get("iss")
        return issuer if isinstance(issuer, str) else None

    def algorithm(self, allowed: Sequence[str]) -> str:
        """Return how it is signed. Raises TokenRefusedError unless that is allowed, and nothing else is asked for."""
        if not _REFUSED_IN_HEADERS.isdisjoint(self.header):
            raise TokenRefusedError("its header brings or names a key, or is to be read in a way of its own")
        algorithm = self.header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in allowed:
            raise TokenRefusedError("its alg is none of the issuer's algorithms")
        return algorithm

    @property
    def key_id(self) -> str | None:
        """Which of the issuer's keys has signed it, None when it does not say. Raises TokenRefusedError."""
        key_id = self.header.get("kid")
        if key_id is not None and not isinstance(key_id, str):
            raise TokenRefusedError("its kid is no text")
        return key_id


def looks_like_token(text: str) -> bool:
    """Tell whether a bearer is a signed token, if a bad one, and no other kind of credential."""
    return text.startswith(_BEGINS) and text.count(".") == 2


def _object_in(segment: str) -> dict[str, object]:
    return read_object(_decoded(segment))


def read_object(raw: bytes) -> dict[str, object]:
    """Read a JSON object without doubled names and without numbers that are none. Raises TokenRefusedError."""
    try:
        value: object = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TokenRefusedError("there is no JSON object where one has to be")
    return value


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise TokenRefusedError("a name is there twice")
    return value


def _no_number(_: str) -> Never:
    raise TokenRefusedError("a number is none")


def _decoded(segment: str) -> bytes:
    """Decode base64url that is written in its one way: else another text would be the same token."""
    try:
        raw = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    if not raw or base64.urlsafe_b64encode(raw).rstrip(b"=") != segment.encode():
        raise TokenRefusedError("it is not written in base64url without padding")
    return raw
