"""Who calls: a provider turns what a call brings into the principal it proves."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from parley_server.auth.peer import is_local
from parley_server.domain.principal import Principal


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a call brings to prove its caller.

    `authorization` is the header as sent, None without one. `peer` gives the transport's word for the other end:
    `ipv4:127.0.0.1:40000`, `ipv6:%5B::1%5D:40000` or `unix:...`. `certificate` gives the PEM of the certificate that
    the other end proved to be its own in the TLS handshake, None where it showed none. `is_forwarded` says that the
    other end calls for somebody else, as a proxy does.
    """

    authorization: str | None
    peer: Callable[[], str]
    certificate: Callable[[], bytes | None] = lambda: None
    is_forwarded: bool = False

    @property
    def bearer(self) -> str | None:
        """What is sent as `Bearer ...`; None without a header or with one of another scheme."""
        scheme, _, text = (self.authorization or "").partition(" ")
        return text if text and scheme.lower() == "bearer" else None

    @property
    def is_local(self) -> bool:
        """Tell whether the call came over a unix socket, or over TCP from this machine, and began here, too."""
        return not self.is_forwarded and is_local(self.peer())


class NotMine(Enum):
    """A provider's answer to a credential that is not of its kind."""

    NOT_MINE = "not mine"


NOT_MINE: Final = NotMine.NOT_MINE
BUDGET_S: Final = 2.0


class AuthProvider(ABC):
    """Proves callers by one kind of credential, waiting at most BUDGET_S for whatever it has to ask.

    A package brings one of its own by an entry point in the group `parley.auth_providers`: a function without
    arguments that makes it, named in `[auth] providers`. It has to answer NOT_MINE, and not refuse, whatever is not of
    its kind, so that those after it are asked.
    """

    @abstractmethod
    async def authenticate(self, credentials: Credentials) -> Principal | NotMine:
        """Return the caller these credentials prove, or NOT_MINE when they are of another kind.

        Raises:
            CredentialsInvalidError: they are of this provider's kind and bad. No other provider is asked.
            AuthUnavailableError, TimeoutError: whether they are good cannot be told now.
        """

    def recall(self, credentials: Credentials) -> Principal | None:  # noqa: ARG002  # for those that remember
        """Return the caller whom these credentials proved so lately that they need not be looked at again.

        Only whom they proved to this very provider: all are asked this before any refuses.
        """
        return None

    def knows(self, credentials: Credentials) -> bool:  # noqa: ARG002  # for those that remember
        """Tell whether these very credentials were good when they were looked at last: they are no guess."""
        return False

    def takes_certificate(self, credentials: Credentials) -> bool:  # noqa: ARG002  # for those that look at it
        """Tell whether the certificate of the connection is a credential to this provider, beside any header.

        A call that brings it and an `authorization` header proves two callers, and is refused.
        """
        return False

    def forget(self, credential_id: str) -> None:  # noqa: B027  # only providers that remember override it
        """Drop what is remembered of a credential that was revoked; a provider that remembers nothing ignores it."""

    def forget_user(self, user_id: str) -> None:  # noqa: B027  # only providers that remember override it
        """Drop what is remembered of the credentials of a user who was erased, and of nobody else's."""

    def forget_all(self) -> None:  # noqa: B027  # only providers that remember override it
        """Drop what is remembered of every credential."""

    def begin(self) -> None:  # noqa: B027  # only providers that fetch something override it
        """Begin to fetch what callers will need, without waiting for it: the server is about to serve."""

    async def close(self) -> None:  # noqa: B027  # only providers that hold something open override it
        """Let go of what is held open; nobody is asked after that."""
