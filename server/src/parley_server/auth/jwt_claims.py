"""What a token says of its bearer, judged by what the operator says of its issuer."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from parley_server.auth.credential_ids import credential_id
from parley_server.auth.grants import scopes_of
from parley_server.auth.jwt_settings import NO_TYPE, IssuerSettings
from parley_server.auth.jwt_token import Token, TokenRefusedError
from parley_server.domain.principal import MAX_ACTORS, Principal, PrincipalKind

# The year 9999, the last that a datetime holds.
_LAST_S = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer, and the name by which the operator calls it."""

    name: str
    settings: IssuerSettings

    def principal_of(self, token: Token, now_s: float) -> Principal:
        """Return whom a token names at `now_s`, seconds since 1970; its signature is somebody else's to check.

        Raises:
            TokenRefusedError: it is not good now, not for this server, for longer than allowed, or names nobody.
        """
        self._check_type(token)
        self._check_audience(token.claims)
        expires_s = self._expiry(token.claims, now_s)
        if not isinstance(token.claims.get("sub"), str):
            raise TokenRefusedError("its sub is no text")
        subject = self._named(token.claims.get(self.settings.subject_claim), self.settings.kind)
        return Principal(
            kind=self.settings.kind,
            subject=subject,
            scopes=self._scopes(token.claims),
            act_as=self.settings.act_as,
            method="jwt",
            credential_id=credential_id("jwt", subject),
            actors=self._actors(token.claims),
            expires_at=datetime.fromtimestamp(expires_s + self.settings.leeway_s, UTC),
        )

    def _check_type(self, token: Token) -> None:
        typ = token.header.get("typ", NO_TYPE)
        allowed = {name.lower() for name in self.settings.typ}
        if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in allowed:
            raise TokenRefusedError("its typ is none of the issuer's")

    def _check_audience(self, claims: Mapping[str, object]) -> None:
        said = claims.get("aud")
        audiences = said if isinstance(said, list) else [said]
        if self.settings.audience not in audiences:
            raise TokenRefusedError("its aud is not the audience")
        if not all(each in (self.settings.audience, *self.settings.other_audiences) for each in audiences):
            raise TokenRefusedError("its aud names others, too")

    def _expiry(self, claims: Mapping[str, object], now_s: float) -> int:
        """Return `exp`; refuse a token that has ended, has not begun, or is good for too long."""
        expires_s, issued_s = _time(claims, "exp"), _time(claims, "iat")
        begins_s = _time(claims, "nbf") if "nbf" in claims else issued_s
        leeway_s = self.settings.leeway_s
        if now_s >= expires_s + leeway_s:
            raise TokenRefusedError("it has expired")
        if max(begins_s, issued_s) > now_s + leeway_s:
            raise TokenRefusedError("it is not valid yet")
        if not 0 < expires_s - issued_s <= self.settings.max_lifetime_s:
            raise TokenRefusedError("it is good for longer than max_lifetime_s, or for no time")
        return expires_s

    def _actors(self, claims: Mapping[str, object]) -> tuple[str, ...]:
        """Return who acts for the subject by this token (RFC 8693), the present one first."""
        actors: list[str] = []
        if "act" in claims and self.settings.kind is PrincipalKind.SERVICE:
            raise TokenRefusedError("nobody acts for a service")
        while "act" in claims:
            actor = claims["act"]
            if not isinstance(actor, dict) or len(actors) == MAX_ACTORS:
                raise TokenRefusedError("its act is no actor, or there are too many")
            if actor.get("iss", self.settings.issuer) != self.settings.issuer:
                raise TokenRefusedError("an actor of it is another issuer's")
            actors.append(f"{PrincipalKind.SERVICE}:{self._named(actor.get('sub'), PrincipalKind.SERVICE)}")
            claims = actor
        return tuple(actors)

    def _named(self, said: object, kind: PrincipalKind) -> str:
        """Return the name of somebody here, whom the issuer calls so."""
        subject = f"{self.settings.prefix_of(self.name)}{said}"
        # By itself and as a whole: a prefix is no cure for what is no user id.
        if not isinstance(said, str) or not kind.is_name(said) or not kind.is_name(subject):
            raise TokenRefusedError("its subject is no user id")
        return subject

    def _scopes(self, claims: Mapping[str, object]) -> frozenset[str]:
        allowed = scopes_of(self.settings.scopes, self.settings.kind)
        if not self.settings.scope_claim:
            return allowed
        said = claims.get(self.settings.scope_claim, ())
        words = said.split(" ") if isinstance(said, str) else said
        if not isinstance(words, list | tuple):
            raise TokenRefusedError("its scopes are neither a text nor a list")
        return frozenset(scope for scope in allowed if scope in words)


def _time(claims: Mapping[str, object], name: str) -> int:
    """Return a time in whole seconds since 1970. Raises TokenRefusedError for all else: a float may be 9e99."""
    said = claims.get(name)
    if type(said) is not int or not 0 < said <= _LAST_S:
        raise TokenRefusedError(f"its {name} is no time")
    return said
