"""What an operator says of an issuer of tokens; apart from what reads tokens, which takes memory where there is one."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from parley_server.auth.grants import ActAs, Scopes, act_as_problems, scope_problems
from parley_server.domain.name_list import Names, listed
from parley_server.domain.optional_path import OptionalPath
from parley_server.domain.principal import SERVICE_PREFIX, PrincipalKind

# Public keys alone: with a shared secret whoever checks tokens could make them.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

NO_TYPE = "absent"
_PREFIX = r"^([A-Za-z0-9][A-Za-z0-9._@+:-]{0,63})?$"
_CLAIM = r"^[!-~]{1,128}$"
_Name = Annotated[str, Field(min_length=1, max_length=512)]


class IssuerSettings(BaseModel):
    """`[issuers.NAME]`: whose tokens (JWT) let callers in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: _Name
    """The issuer as its tokens name it in `iss`, to the letter: `https://login.example.org/realms/staff`."""

    audience: _Name
    """What tokens for this server have in `aud`."""

    other_audiences: Annotated[tuple[_Name, ...], BeforeValidator(listed), Field(max_length=16)] = ()
    """What else may stand in a token's `aud` beside the audience. A token for anybody else too is refused: whoever else
    gets it could use it here."""

    jwks_uri: str = ""
    """Where the issuer's public keys are (JWKS): `https://...`, or `http://` on this machine."""

    jwks_file: OptionalPath = None
    """A file with the issuer's public keys (JWKS), in the place of `jwks_uri`."""

    algorithms: Annotated[tuple[Algorithm, ...], BeforeValidator(listed), Field(min_length=1)] = ("RS256",)
    """How its tokens may be signed: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `ES512`,
    `EdDSA`. No other is looked at, whatever a token or a key says."""

    typ: Annotated[Names, Field(min_length=1, max_length=8)] = ("at+jwt", "JWT")
    """What a token's header may give as `typ`; `absent` allows tokens without."""

    kind: PrincipalKind = PrincipalKind.USER
    """Whom its tokens name: each a `user`, who speaks for himself, or a `service`."""

    prefix: Annotated[str | None, Field(pattern=_PREFIX)] = None
    """What stands before the token's subject in the caller's name, so that the subjects of two issuers never meet. Not
    set: NAME and `:`. Empty: nothing, and then there is only this one issuer; its `ann` is the user `ann` of a key."""

    subject_claim: Annotated[str, Field(pattern=_CLAIM)] = "sub"
    """The claim that names the caller, for an issuer whose `sub` is no user id here. It has to be one that the issuer
    never gives to another and that nobody can choose for himself."""

    scope_claim: Annotated[str, Field(pattern=r"^([!-~]{1,128})?$")] = "scope"
    """The claim with the caller's scopes, a list or words with blanks between them. Empty: every caller has all of
    `scopes`."""

    scopes: Scopes = ()
    """The scopes that its tokens can give, whatever else they name. Empty: what a key gets that names none."""

    act_as: ActAs = ()
    """The users for whom its services may speak: ids, or beginnings of ids and `*`."""

    max_lifetime_s: Annotated[int, Field(ge=1, le=31 * 86_400)] = 86_400
    """How long a token may be good for, in seconds from `iat` to `exp`; one for longer is refused."""

    leeway_s: Annotated[int, Field(ge=0, le=300)] = 30
    """How far, in seconds, the issuer's clock may be off."""

    def prefix_of(self, name: str) -> str:
        """Return what is before the subjects of the issuer that the operator calls `name`."""
        return f"{name}:" if self.prefix is None else self.prefix

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the keys together: each with the key, and what to do."""
        if bool(self.jwks_uri) == (self.jwks_file is not None):
            yield "jwks_uri: set either jwks_uri or jwks_file"
        elif self.jwks_uri and not _is_fetchable(self.jwks_uri):
            yield "jwks_uri: write https://HOST/..., without a user; http:// is for this machine alone"
        yield from scope_problems(self.scopes)
        yield from act_as_problems(self.act_as, is_service=self.kind is PrincipalKind.SERVICE)


def prefix_problems(issuers: Mapping[str, IssuerSettings]) -> Iterator[tuple[str, str]]:
    """Yield which issuers cannot be told apart, each with its name: by what they call themselves, or by subjects."""
    seen: dict[str, IssuerSettings] = {}
    for name, issuer in issuers.items():
        if issuer.prefix_of(name).startswith(SERVICE_PREFIX):
            yield name, f"prefix: {SERVICE_PREFIX} is before the names of services alone; write another"
        for other, earlier in seen.items():
            if issuer.issuer == earlier.issuer:
                yield name, f"issuer: is that of [issuers.{other}]; keep one"
            shorter, longer = sorted((issuer.prefix_of(name), earlier.prefix_of(other)), key=len)
            if longer.startswith(shorter):
                yield name, f"prefix: subjects could be those of [issuers.{other}]; let neither prefix begin the other"
        seen[name] = issuer


def _is_fetchable(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        usable = parts.port != 0 and parts.hostname is not None
    except ValueError:
        return False
    if not usable or "@" in parts.netloc or parts.fragment or re.search(r"[^!-~]", uri):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_on_this_machine(parts))


def _is_on_this_machine(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
