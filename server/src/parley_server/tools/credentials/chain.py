"""Several sources as one."""

from collections.abc import Iterable

from pydantic import SecretStr

from parley_server.tools.credentials.source import CredentialSource


class CredentialChain:
    """Implements `CredentialSource`: the first source that has a secret gives it.

    One that cannot tell ends the search: what comes behind it must not stand in for what it may have.
    """

    def __init__(self, sources: Iterable[CredentialSource]) -> None:
        self._sources = tuple(sources)

    async def find(self, user_id: str, slot: str) -> SecretStr | None:
        """Ask one after the other; see `CredentialSource.find`."""
        for source in self._sources:
            secret = await source.find(user_id, slot)
            if secret is not None:
                return secret
        return None
