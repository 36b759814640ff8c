"""Delegation tokens, read as anybody may who has the public keys: by a JWT library, not by the server's own code."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import jwt
from parley.v1.delegation_service_pb2 import DelegationKey
from pydantic import BaseModel, ConfigDict, ValidationError

# The audience of what opens the server.
SERVER = "parley"


class _Act(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sub: str
    act: "_Act | None" = None

    def chain(self) -> Iterator[str]:
        yield self.sub
        if self.act is not None:
            yield from self.act.chain()


class TokenClaims(BaseModel):
    """What a token says. Times are in seconds since 1970."""

    model_config = ConfigDict(extra="forbid")

    iss: str
    sub: str
    act: _Act
    aud: tuple[str, ...]
    scope: str = ""
    iat: int
    exp: int
    jti: str
    cid: str = ""
    run: str = ""
    call: str = ""

    @property
    def actors(self) -> tuple[str, ...]:
        """Who acts for the user, the one at work first."""
        return tuple(self.act.chain())

    @property
    def scopes(self) -> frozenset[str]:
        """What it opens."""
        return frozenset(self.scope.split())


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say: all of it to the letter, but for its end, which is `latest_end` at most."""

    user_id: str
    actors: tuple[str, ...]
    audiences: frozenset[str]
    scopes: frozenset[str]
    key_id: str
    latest_end: float
    run_id: str = ""
    call_id: str = ""

    def denied_by(self, claims: TokenClaims) -> Iterator[str]:
        """Yield what a token says otherwise."""
        pairs: dict[str, tuple[object, object]] = {
            "user": (claims.sub, self.user_id),
            "actors": (claims.actors, self.actors),
            "audiences": (frozenset(claims.aud), self.audiences),
            "scopes": (claims.scopes, self.scopes),
            "key": (claims.cid, self.key_id),
            "run": (claims.run, self.run_id),
            "call": (claims.call, self.call_id),
        }
        yield from (f"{what} {said} in the place of {due}" for what, (said, due) in pairs.items() if said != due)
        if claims.exp > self.latest_end:
            yield f"an end {claims.exp - self.latest_end:.0f} s too late"


class TokenReader:
    """Reads tokens by the keys that the server tells everybody."""

    def __init__(self, keys: Iterable[DelegationKey]) -> None:
        self._keys = {key.key_id: jwt.PyJWK(json.loads(key.jwk_json), algorithm="EdDSA") for key in keys}

    def read(self, token: str) -> TokenClaims | None:
        """Return what a token says, be it over or not; None for one that the server has not signed so."""
        try:
            key = self._keys[str(jwt.get_unverified_header(token).get("kid"))]
            unchecked = {"verify_aud": False, "verify_exp": False}
            return TokenClaims.model_validate(
                jwt.decode(token, key, algorithms=["EdDSA"], issuer="parley", options=unchecked)  # type: ignore[arg-type]  # a subset of the options
            )
        except (jwt.PyJWTError, ValidationError, KeyError):
            return None
