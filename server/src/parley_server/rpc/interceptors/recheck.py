"""Credentials that end under way: a stream is looked at again now and then, and goes no further than its credential."""

import time

from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.rpc.call import Call
from parley_server.rpc.interceptors.authentication import Authenticator

RECHECK_S = 45.0


class Recheck:
    """Looks at the credentials of streams every `every_s`, and at the next event: with heartbeats, every minute."""

    def __init__(self, authenticator: Authenticator, every_s: float) -> None:
        self._authenticator = authenticator
        self._every_s = every_s

    def of(self, call: Call) -> "StreamCredential":
        """Return what watches over one stream, which has been let in just now."""
        return StreamCredential(call, self._authenticator, self._every_s)


class StreamCredential:
    """The credential of one stream. Asking whether it is `due` is all that most events cost."""

    __slots__ = ("_authenticator", "_call", "_every_s", "_next")

    def __init__(self, call: Call, authenticator: Authenticator, every_s: float) -> None:
        self._call = call
        self._authenticator = authenticator
        self._every_s = every_s
        self._next = time.monotonic() + every_s

    @property
    def is_due(self) -> bool:
        """Tell whether to look before the next event."""
        return time.monotonic() >= self._next

    async def check(self) -> None:
        """Let the stream go on.

        Raises:
            CredentialsInvalidError: the credential has ended, or is somebody else's by now.
            AuthUnavailableError: nobody can tell; the caller may come back.
        """
        if self._call.credentials is not None and self._call.principal is not None:
            principal = await self._authenticator.check_again(self._call.credentials)
            if principal.name != self._call.principal.name:
                raise CredentialsInvalidError
        self._next = time.monotonic() + self._every_s
