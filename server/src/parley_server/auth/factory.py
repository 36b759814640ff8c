"""Builds the chain of providers the settings ask for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from parley_server.auth.api_key_provider import ApiKeyProvider, KeyStore
from parley_server.auth.failure_limiter import MAX_FAILURES, FailureLimiter
from parley_server.auth.local import LocalProvider
from parley_server.auth.peer import origin_of
from parley_server.auth.provider import AuthProvider, Credentials, NotMine
from parley_server.domain.access_errors import AuthRateLimitedError, AuthUnavailableError, CredentialsInvalidError
from parley_server.domain.principal import Principal

ProviderType = Literal["api_key", "local"]

_log = structlog.get_logger(__name__)


class AuthSettings(BaseModel):
    """`[auth]`: who is let in, and what keeps the stored hashes of keys useless to a thief."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hash_key: SecretStr | None = None
    """The key of the keyed hashes, 32 characters or more. Without one it is made in the data directory."""

    hash_key_file: Path | None = None
    """A file that holds `hash_key`; used where that is not set."""

    local: bool = True
    """Whether a process on this machine needs no credential and acts as the server's own user. Holds for loopback and
    unix sockets alone."""

    max_failures_per_minute: int = Field(default=MAX_FAILURES, ge=1, le=1000)
    """How many bad credentials an address may send in a minute. The next get RESOURCE_EXHAUSTED, and with them every
    credential from there that was not good lately. Counted by the IPv4 address, by the /64 network of an IPv6 address,
    and ten times as many for all callers on this machine together."""

    def provider_types(self, *, listens_locally: bool) -> tuple[ProviderType, ...]:
        """Say which providers a listener has, in the order they are asked.

        `local` is for loopback and unix-socket listeners alone: behind any other, a proxy on this machine would
        turn every caller into the server's user.
        """
        return ("api_key", "local") if self.local and listens_locally else ("api_key",)


@dataclass(frozen=True, slots=True)
class ProviderParts:
    """What providers are built from."""

    keys: KeyStore
    hash_key: bytes
    on_key_use: Callable[[str, datetime], None] = lambda _, __: None
    max_failures_per_minute: int = MAX_FAILURES


_BUILDERS: Mapping[ProviderType, Callable[[ProviderParts], AuthProvider]] = {
    "api_key": lambda parts: ApiKeyProvider(parts.keys, parts.hash_key, on_use=parts.on_key_use),
    "local": lambda _: LocalProvider(),
}


class AuthChain:
    """Asks its providers in order until one knows the kind of credential, and counts the bad ones by their origin.

    Once an origin has sent too many, only credentials from there that were good before are looked at. A call without
    any is no guess, costs no look-up and is not counted.
    """

    def __init__(self, providers: Sequence[AuthProvider], max_failures_per_minute: int = MAX_FAILURES) -> None:
        self._providers = tuple(providers)
        self._failures = FailureLimiter(max_failures_per_minute)

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the caller.

        Raises:
            CredentialsInvalidError: no provider takes the credential, or one refuses it.
            AuthRateLimitedError: too many bad ones came from there.
            AuthUnavailableError: a provider could not decide, or took too long.
        """
        try:
            for provider in self._providers:
                if (principal := provider.recall(credentials)) is not None:
                    return principal
            return await self._look_at(credentials)
        except (CredentialsInvalidError, AuthRateLimitedError, AuthUnavailableError):
            raise
        except Exception as error:
            # A store that fails or takes too long, or a fault: the provider has not decided, so nobody is let in.
            _log.warning("authentication_undecided", error=type(error).__qualname__)
            raise AuthUnavailableError("the credential cannot be checked now; try again", retry_after_s=1.0) from error

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

    def forget_all(self) -> None:
        """Drop what the providers remember of every credential."""
        for provider in self._providers:
            provider.forget_all()


def build_auth_chain(types: Sequence[ProviderType], parts: ProviderParts) -> AuthChain:
    """Build the providers of these types, asked in this order."""
    return AuthChain([_BUILDERS[provider_type](parts) for provider_type in types], parts.max_failures_per_minute)
