"""Verifying for whom a call is: the token that a Parley server sends along proves it to whoever has its public keys.

Needs `pip install "parley-client[tool-host,delegation]"`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

ISSUER = "parley"
# The clocks of two machines, which somebody keeps.
LEEWAY_S = 30.0


class DelegationError(Exception):
    """A token that is not good, or not for this call. The message says why, for the operator and not for the caller."""


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a token proves: for whom the call is, and who acts for him, the one at work first.

    `scopes` are what it opens at the Parley server until `expire_time`; none where it proves and no more.
    """

    user_id: str
    actors: tuple[str, ...]
    scopes: frozenset[str]
    run_id: str
    call_id: str
    expire_time: datetime


class DelegationKeys:
    """The public keys of a Parley server, as `parley-server keys public` prints them.

    `host_name` is what that server's configuration calls this host: tokens for other hosts are not taken.

    Raises:
        ValueError: the text is no JSON Web Key Set with an Ed25519 key.
        ImportError: the extra `delegation` is not installed.
    """

    def __init__(self, host_name: str, jwks_json: str) -> None:
        import jwt  # noqa: PLC0415  # an extra, for those who verify

        try:
            keys = jwt.PyJWKSet.from_json(jwks_json).keys
        except (jwt.PyJWTError, ValueError, AttributeError) as error:
            raise ValueError("the text is no key set") from error
        # One algorithm, whatever a key or a token says of itself.
        self._keys = {key.key_id: key for key in keys if key.algorithm_name == "EdDSA" and key.key_id}
        if not self._keys:
            raise ValueError("the key set has no Ed25519 key")
        self._audience = f"host:{host_name}"

    def verify(self, token: str) -> Delegation:
        """Return what a token proves. Raises DelegationError."""
        import jwt  # noqa: PLC0415

        try:
            key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                raise DelegationError("it is signed by a key that is not known")
            claims = _Claims.model_validate(
                jwt.decode(
                    token,
                    key,
                    algorithms=["EdDSA"],
                    audience=self._audience,
                    issuer=ISSUER,
                    leeway=LEEWAY_S,
                    options={"require": ["exp", "iat", "sub", "aud", "iss", "jti"]},
                )
            )
        except (jwt.PyJWTError, ValidationError) as error:
            raise DelegationError(f"it is not good: {type(error).__name__}") from error
        return Delegation(
            user_id=claims.sub,
            actors=claims.act.chain(),
            scopes=frozenset(claims.scope.split()),
            run_id=claims.run,
            call_id=claims.call,
            expire_time=datetime.fromtimestamp(claims.exp, UTC),
        )

    def verify_call(self, token: str, *, user_id: str, run_id: str, call_id: str) -> Delegation:
        """Return what a token proves of this very call. Raises DelegationError, also for another call's token."""
        delegation = self.verify(token)
        if (delegation.user_id, delegation.run_id, delegation.call_id) != (user_id, run_id, call_id):
            raise DelegationError("it is for another call")
        return delegation


class _Act(BaseModel):
    """Who acts, and who let him."""

    model_config = ConfigDict(frozen=True)

    sub: str
    act: "_Act | None" = None

    def chain(self) -> tuple[str, ...]:
        return (self.sub, *(self.act.chain() if self.act else ()))


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True)

    sub: str = Field(min_length=1)
    act: _Act
    scope: str = ""
    run: str = Field(min_length=1)
    call: str = Field(min_length=1)
    exp: int
