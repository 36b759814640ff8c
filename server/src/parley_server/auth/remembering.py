"""What the providers of bearer tokens have in common: whom one proved lately is not looked at again for every call."""

from abc import abstractmethod

from parley_server.auth.provider import AuthProvider, Credentials
from parley_server.auth.remembered import Remembered, Verified
from parley_server.domain.principal import Principal


class RememberingProvider(AuthProvider):
    """A provider that puts the tokens it has verified into `remembered`."""

    def __init__(self, remembered: Remembered) -> None:
        self._remembered = remembered

    @abstractmethod
    def _token_of(self, credentials: Credentials) -> str | None:
        """Return the bearer where it is of this provider's kind."""

    def recall(self, credentials: Credentials) -> Principal | None:
        """Return the owner of a token that was verified lately and has not changed since; see `AuthProvider.recall`."""
        verified = self._verified(credentials)
        return verified.principal if verified is not None and self._remembered.is_good(verified) else None

    def knows(self, credentials: Credentials) -> bool:
        """Tell whether the token was good when it was looked at last: that it is over by now makes it no guess."""
        return self._verified(credentials) is not None

    def forget_user(self, user_id: str) -> None:
        """Look at the user's tokens again at their next use; see `AuthProvider.forget_user`."""
        self._remembered.expire_user(user_id)

    def _verified(self, credentials: Credentials) -> Verified | None:
        token = self._token_of(credentials)
        return None if token is None else self._remembered.find(token)
