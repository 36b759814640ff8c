"""Builds the chain of providers the settings ask for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, SecretStr

from parley_server.auth.api_key_provider import ApiKeyProvider, KeyStore
from parley_server.auth.local import LocalProvider
from parley_server.auth.provider import AuthProvider, Credentials, NotMine
from parley_server.domain.errors import AuthUnavailableError, CredentialsInvalidError
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


_BUILDERS: Mapping[ProviderType, Callable[[ProviderParts], AuthProvider]] = {
    "api_key": lambda parts: ApiKeyProvider(parts.keys, parts.hash_key),
    "local": lambda _: LocalProvider(),
}


class AuthChain:
    """Asks its providers in order until one knows the kind of credential."""

    def __init__(self, providers: Sequence[AuthProvider]) -> None:
        self._providers = tuple(providers)

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the caller.

        Raises:
            CredentialsInvalidError: no provider takes the credential, or one refuses it.
            AuthUnavailableError: a provider could not decide, or took too long.
        """
        try:
            return await self._ask(credentials)
        except (CredentialsInvalidError, AuthUnavailableError):
            raise
        except Exception as error:
            # A store that fails or takes too long, or a fault: the provider has not decided, so nobody is let in.
            _log.warning("authentication_undecided", error=type(error).__qualname__)
            raise AuthUnavailableError("the credential cannot be checked now; try again", retry_after_s=1.0) from error

    async def _ask(self, credentials: Credentials) -> Principal:
        for provider in self._providers:
            verdict = await provider.authenticate(credentials)
            if not isinstance(verdict, NotMine):
                return verdict
        raise CredentialsInvalidError

    def forget(self, credential_id: str) -> None:
        """Drop what the providers remember of a credential that was revoked."""
        for provider in self._providers:
            provider.forget(credential_id)


def build_auth_chain(types: Sequence[ProviderType], parts: ProviderParts) -> AuthChain:
    """Build the providers of these types, asked in this order."""
    return AuthChain([_BUILDERS[provider_type](parts) for provider_type in types])
