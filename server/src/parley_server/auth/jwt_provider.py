"""Provider `jwt`: proves callers by tokens that the operator's issuers have signed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError

from parley_server.auth.jwt_claims import Issuer
from parley_server.auth.jwt_key_cache import KeyCache
from parley_server.auth.jwt_key_sources import FileKeySource, WebKeySource
from parley_server.auth.jwt_keys import KeySet, KeySetError
from parley_server.auth.jwt_settings import IssuerSettings
from parley_server.auth.jwt_token import Token, TokenRefusedError, looks_like_token
from parley_server.auth.provider import NOT_MINE, Credentials, NotMine
from parley_server.auth.remembered import Remembered, Verified
from parley_server.auth.remembering import RememberingProvider
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.domain.errors import StartError
from parley_server.domain.principal import Principal

REMEMBERED_S = 60.0

_jws = PyJWS()
_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Trusted:
    """An issuer and its keys."""

    issuer: Issuer
    keys: KeyCache


class JwtProvider(RememberingProvider):
    """Accepts `Authorization: Bearer <JWT>` of `issuers`, each by the operator's name for it.

    A token that was verified is remembered by its keyed hash for REMEMBERED_S, never beyond its end and never beyond a
    change of its issuer's keys. `now` gives seconds since 1970, `clock` monotonic ones.

    Raises:
        StartError: an issuer's file holds no keys.
    """

    def __init__(
        self,
        issuers: Mapping[str, IssuerSettings],
        hash_key: bytes,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(Remembered(hash_key, clock))
        self._now = now
        self._clock = clock
        self._changes = 0
        self._trusted = {each.issuer: self._trust(name, each) for name, each in issuers.items()}

    async def authenticate(self, credentials: Credentials) -> Principal | NotMine:
        """Check the token; NOT_MINE without one, and for one of an issuer that nobody named.

        Raises:
            CredentialsInvalidError: it is not good, in any way.
            AuthUnavailableError: the issuer's keys cannot be had.
        """
        text = self._token_of(credentials)
        if text is None:
            return NOT_MINE
        name = ""
        try:
            token = Token.parse(text)
            trusted = self._trusted.get(token.issuer or "")
            if trusted is None:
                _log.debug("token_of_another_issuer")
                return NOT_MINE
            name = trusted.issuer.name
            return await self._verify(token, trusted)
        except TokenRefusedError as error:
            self._remembered.drop(text)
            _log.info("token_refused", issuer=name, problem=str(error))
            raise CredentialsInvalidError from error

    def forget_all(self) -> None:
        """Look at every token again at its next use, with the issuers' keys fetched anew."""
        self._changes += 1
        self._remembered.expire()
        for trusted in self._trusted.values():
            trusted.keys.expire()

    def begin(self) -> None:
        """Fetch the issuers' keys."""
        for trusted in self._trusted.values():
            trusted.keys.begin()

    async def close(self) -> None:
        """End the fetches that are under way."""
        for trusted in self._trusted.values():
            await trusted.keys.close()

    def _token_of(self, credentials: Credentials) -> str | None:
        text = credentials.bearer
        return text if text is not None and looks_like_token(text) else None

    async def _verify(self, token: Token, trusted: _Trusted) -> Principal:
        # What costs nothing comes first, so that no bad token makes anybody fetch keys.
        algorithm = token.algorithm(trusted.issuer.settings.algorithms)
        principal = trusted.issuer.principal_of(token, self._now())
        changes = self._changes
        key = await trusted.keys.find(token.key_id, algorithm)
        if key is None:
            raise TokenRefusedError("the issuer has no such key for its alg")
        _check_signature(token, key, algorithm)
        if principal.expires_at is not None and changes == self._changes:
            left_s = principal.expires_at.timestamp() - trusted.issuer.settings.leeway_s - self._now()
            self._remembered.put(token.text, Verified(principal, self._clock() + min(REMEMBERED_S, left_s)))
        return principal

    def _trust(self, name: str, settings: IssuerSettings) -> _Trusted:
        keys = KeyCache(name, _source_of(name, settings), settings.algorithms, self._remembered.expire, self._clock)
        return _Trusted(Issuer(name, settings), keys)


def _source_of(name: str, settings: IssuerSettings) -> WebKeySource | FileKeySource:
    """Return where the keys are; a file is looked at now, while the operator is there to read what is wrong with it."""
    if settings.jwks_file is None:
        return WebKeySource(settings.jwks_uri)
    source = FileKeySource(settings.jwks_file)
    try:
        if len(KeySet.read(source.read(), settings.algorithms)):
            return source
        problem = f"{settings.jwks_file} holds no public key for {', '.join(settings.algorithms)}"
    except KeySetError as error:
        problem = str(error)
    raise StartError(f"[issuers.{name}] jwks_file: {problem}")


def _check_signature(token: Token, key: PyJWK, algorithm: str) -> None:
    try:
        _jws.decode_complete(
            token.text, key, [algorithm], {"verify_signature": True, "enforce_minimum_key_length": True}
        )
    except PyJWTError as error:
        raise TokenRefusedError("its signature is not the key's") from error
