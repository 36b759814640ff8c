"""Where the secrets of users come from that tools work with: one interface, whatever keeps them."""

import re
from typing import Protocol

from pydantic import SecretStr

from parley_server.tools.errors import ToolError

SLOT_PATTERN = r"[a-z0-9][a-z0-9_-]{0,63}"
_slot = re.compile(SLOT_PATTERN)


def is_slot(name: str) -> bool:
    """Tell whether this can name a credential."""
    return _slot.fullmatch(name) is not None


class CredentialSource(Protocol):
    """Keeps secrets of users, by slot: the name under which tools ask for them, such as `github`."""

    async def find(self, user_id: str, slot: str) -> SecretStr | None:
        """Return the user's secret as it is at this moment; None where there is none.

        Asked for every call anew; whoever caches sees to it that a secret that was changed or withdrawn is soon gone.

        Raises:
            CredentialsUnavailableError: it cannot tell at the moment.
        """
        ...


class CredentialsUnavailableError(Exception):
    """A source cannot tell whether it has a secret. Its text is for the server's log and holds no secret."""


class NoCredentials:
    """Implements `CredentialSource` where nothing keeps any."""

    async def find(self, user_id: str, slot: str) -> SecretStr | None:  # noqa: ARG002  # the interface's
        """Return None."""
        return None


class CredentialMissingError(ToolError):
    """The user has no secret that the tool cannot do without."""

    def __init__(self, user_id: str, slot: str) -> None:
        message = f"The user has stored no credential {slot!r}, which this tool needs."
        command = f"parley-server credentials set --user {user_id} --slot {slot}"
        hint = f"Tell the user that it has to be stored first; whoever runs the server does it with `{command}`."
        super().__init__("credential_missing", message, hint=hint)


class CredentialUnavailableError(ToolError):
    """Nobody can tell at the moment whether the user has the secret."""

    def __init__(self, slot: str) -> None:
        super().__init__("credential_unavailable", f"The credential {slot!r} cannot be looked up now.", retryable=True)
