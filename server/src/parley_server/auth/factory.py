"""Builds the chain of providers the settings ask for."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from parley_server.auth.api_key_provider import ApiKeyProvider, KeyStore
from parley_server.auth.delegation import DelegationProvider
from parley_server.auth.failure_limiter import MAX_FAILURES, FailureLimiter
from parley_server.auth.installed import installed_provider
from parley_server.auth.jwt_settings import IssuerSettings
from parley_server.auth.local import LocalProvider
from parley_server.auth.mtls_settings import MtlsServiceSettings
from parley_server.auth.peer import origin_of
from parley_server.auth.provider import AuthProvider, Credentials, NotMine
from parley_server.domain.access_errors import AuthRateLimitedError, AuthUnavailableError, CredentialsInvalidError
from parley_server.domain.principal import Principal

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderParts:
    """What providers are built from. `issuers` and `services` are by the operator's names for them."""

    keys: KeyStore
    hash_key: bytes
    on_key_use: Callable[[str, datetime], None] = lambda _, __: None
    max_failures_per_minute: int = MAX_FAILURES
    issuers: Mapping[str, IssuerSettings] = field(default_factory=dict)
    services: Mapping[str, MtlsServiceSettings] = field(default_factory=dict)


def _jwt(parts: ProviderParts) -> AuthProvider:
    from parley_server.auth.jwt_provider import JwtProvider  # noqa: PLC0415  # takes memory, which is for issuers alone

    return JwtProvider(parts.issuers, parts.hash_key)


def _mtls(parts: ProviderParts) -> AuthProvider:
    from parley_server.auth.mtls import MtlsProvider  # noqa: PLC0415  # takes memory, which is for certificates alone

    return MtlsProvider(parts.services)


_BUILDERS: Mapping[str, Callable[[ProviderParts], AuthProvider]] = {
    "mtls": _mtls,
    "api_key": lambda parts: ApiKeyProvider(parts.keys, parts.hash_key, on_use=parts.on_key_use),
    "jwt": _jwt,
    "delegation": lambda parts: DelegationProvider(parts.keys, parts.hash_key),
    "local": lambda _: LocalProvider(),
}


class AuthChain:
    """Asks its providers in order until one knows the kind of credential, and counts the bad ones by their origin.

    Once an origin has sent too many, only credentials from there that were good before are looked at. A call without
    any is no guess, costs no look-up and is not counted. A call with two proves two callers, and so nobody.
    """

    def __init__(self, providers: Sequence[AuthProvider], max_failures_per_minute: int = MAX_FAILURES) -> None:
        self._providers = tuple(providers)
        self._certificate_readers = tuple(
            each for each in self._providers if type(each).takes_certificate is not AuthProvider.takes_certificate
        )
        self._failures = FailureLimiter(max_failures_per_minute)

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the caller.

        Raises:
            CredentialsInvalidError: no provider takes the credential, or one refuses it, or there are two.
            AuthRateLimitedError: too many bad ones came from there.
            AuthUnavailableError: a provider could not decide, or took too long.
        """
        return await self._decided(credentials, self._look_at)

    async def check_again(self, credentials: Credentials) -> Principal:
        """Do as `authenticate` does with what has let its caller in before, which is no guess and never counted as one.

        Raises:
            CredentialsInvalidError: it has been revoked since, or is over.
            AuthUnavailableError: a provider could not decide, or took too long.
        """
        return await self._decided(credentials, self._ask)

    async def _decided(self, credentials: Credentials, ask: Callable[[Credentials], Awaitable[Principal]]) -> Principal:
        try:
            self._refuse_two(credentials)
            for provider in self._providers:
                if (principal := provider.recall(credentials)) is not None:
                    return principal
            return await ask(credentials)
        except (CredentialsInvalidError, AuthRateLimitedError, AuthUnavailableError):
            raise
        except Exception as error:
            # A store that fails or takes too long, or a fault: the provider has not decided, so nobody is let in.
            _log.warning("authentication_undecided", error=type(error).__qualname__)
            raise AuthUnavailableError("the credential cannot be checked now; try again", retry_after_s=1.0) from error

    def _refuse_two(self, credentials: Credentials) -> None:
        if credentials.authorization is not None and any(
            provider.takes_certificate(credentials) for provider in self._certificate_readers
        ):
            raise CredentialsInvalidError

    async def _look_at(self, credentials: Credentials) -> Principal:
        if credentials.authorization is None or any(provider.knows(credentials) for provider in self._providers):
            return await self._ask(credentials)
        origin = origin_of(credentials.peer())
        self._failures.check(origin)
        try:
            return await self._ask(credentials)
        except CredentialsInvalidError:
            self._failures.count(origin)
            raise

    async def _ask(self, credentials: Credentials) -> Principal:
        for provider in self._providers:
            match await provider.authenticate(credentials):
                case Principal() as principal:
                    return principal
                case NotMine.NOT_MINE:
                    continue
                case verdict:
                    raise TypeError(f"{type(provider).__name__} answered {type(verdict).__name__}")
        raise CredentialsInvalidError

    def forget(self, credential_id: str) -> None:
        """Drop what the providers remember of a credential that was changed or revoked."""
        for provider in self._providers:
            provider.forget(credential_id)

    def forget_user(self, user_id: str) -> None:
        """Drop what the providers remember of the credentials of a user who was erased."""
        for provider in self._providers:
            provider.forget_user(user_id)

    def forget_all(self) -> None:
        """Drop what the providers remember of every credential."""
        for provider in self._providers:
            provider.forget_all()

    def begin(self) -> None:
        """Let the providers fetch what callers will need; so an operator soon reads what cannot be fetched."""
        for provider in self._providers:
            provider.begin()

    async def close(self) -> None:
        """Let go of what the providers hold open."""
        for provider in self._providers:
            await provider.close()


def build_auth_chain(types: Sequence[str], parts: ProviderParts) -> AuthChain:
    """Build the providers of these types, asked in this order.

    Raises:
        StartError: one cannot be made, and says why.
    """
    return AuthChain([_built(provider_type, parts) for provider_type in types], parts.max_failures_per_minute)


def _built(provider_type: str, parts: ProviderParts) -> AuthProvider:
    builder = _BUILDERS.get(provider_type)
    return installed_provider(provider_type) if builder is None else builder(parts)
