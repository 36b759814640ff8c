"""Delegations: who acts for a user, with what, where and until when; and the claims that say so in a token.

The claims are those of RFC 7519 and RFC 8693: `sub` is the user, `act` who acts for him, nested to who let that one.
`cid` is the key it all rests on, `run` and `call` the tool call it is for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parley_server.domain.principal import MAX_ACTORS, Actor, UserId

ISSUER: Literal["parley"] = "parley"
# A token that has this server among its audiences opens it; any other only proves something to somebody else.
THIS_SERVER = "parley"

# Until the year 9999, which is as far as times go.
_Seconds = Annotated[int, Field(ge=0, lt=253_402_300_800)]


@dataclass(frozen=True, slots=True)
class Delegation:
    """What one token says. Times are UTC, in whole seconds; `actors` are as in `RequestContext.actors`.

    `credential_id` names the API key whose end ends this too; empty where it rests on none.
    """

    user_id: str
    actors: tuple[str, ...]
    audiences: tuple[str, ...]
    scopes: frozenset[str]
    issue_time: datetime
    expire_time: datetime
    token_id: str
    credential_id: str = ""
    run_id: str = ""
    call_id: str = ""

    @property
    def opens_this_server(self) -> bool:
        """Tell whether it is for calling this server, and not for others to verify alone."""
        return THIS_SERVER in self.audiences

    def to_claims(self) -> str:
        """Write the claims as JSON."""
        return _Claims(
            iss=ISSUER,
            sub=self.user_id,
            act=_nested(self.actors),
            aud=self.audiences,
            scope=" ".join(sorted(self.scopes)),
            iat=int(self.issue_time.timestamp()),
            exp=int(self.expire_time.timestamp()),
            jti=self.token_id,
            cid=self.credential_id,
            run=self.run_id,
            call=self.call_id,
        ).model_dump_json(exclude_defaults=True)

    @classmethod
    def from_claims(cls, text: str | bytes) -> "Delegation | None":
        """Read claims; None for any that `to_claims` would not write. One that is not known may narrow the token."""
        try:
            claims = _Claims.model_validate_json(text)
        except ValidationError:
            return None
        actors = tuple(claims.act.chain())
        if len(actors) > MAX_ACTORS:
            return None
        return cls(
            user_id=claims.sub,
            actors=actors,
            audiences=claims.aud,
            scopes=frozenset(claims.scope.split()),
            issue_time=_moment(claims.iat),
            expire_time=_moment(claims.exp),
            token_id=claims.jti,
            credential_id=claims.cid,
            run_id=claims.run,
            call_id=claims.call,
        )


class _Act(BaseModel):
    """Who acts, and who let him."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, regex_engine="python-re")

    sub: Actor
    act: "_Act | None" = None

    def chain(self) -> Iterator[str]:
        yield self.sub
        if self.act is not None:
            yield from self.act.chain()


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, regex_engine="python-re")

    iss: Literal["parley"]
    sub: UserId
    act: _Act
    aud: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    scope: str
    iat: _Seconds
    exp: _Seconds
    jti: str
    cid: str = ""
    run: str = ""
    call: str = ""


def _nested(actors: tuple[str, ...]) -> _Act:
    act: _Act | None = None
    for actor in reversed(actors):
        act = _Act(sub=actor, act=act)
    if act is None:
        raise ValueError("a delegation is to somebody")
    return act


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
