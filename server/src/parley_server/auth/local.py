"""Provider `local`: whoever calls from this machine without a credential is the server's operating-system user."""

import getpass
import os
import re
import sys

from parley_server.auth.provider import NOT_MINE, AuthProvider, Credentials, NotMine
from parley_server.domain.principal import ALL_SCOPES, ALL_TOOLS_SCOPE, Principal, PrincipalKind, is_user_id

_NOT_IN_USER_IDS = re.compile(r"[^A-Za-z0-9._@+:-]")


class LocalProvider(AuthProvider):
    """Lets in calls without an `authorization` header over loopback TCP and unix sockets, with every scope there is.

    grpc.aio does not tell the peer's user id on a unix socket, so there too the caller counts as the server's
    own user; the listener makes its socket reachable for that user alone.
    """

    def __init__(self) -> None:
        self._principal = Principal(
            kind=PrincipalKind.USER,
            subject=operating_system_user(),
            scopes=ALL_SCOPES | {ALL_TOOLS_SCOPE},
            method="local",
        )

    async def authenticate(self, credentials: Credentials) -> Principal | NotMine:
        """Return the operating-system user; NOT_MINE from afar, or when a credential was sent."""
        return self._principal if credentials.authorization is None and credentials.is_local else NOT_MINE


def operating_system_user() -> str:
    """Return the name of the process's user, fitted to the grammar of user ids."""
    name = _NOT_IN_USER_IDS.sub("-", _login_name()).lstrip("._@+:-")[:128]
    return name if is_user_id(name) else "local"


def _login_name() -> str:
    if sys.platform == "win32":
        return getpass.getuser()
    import pwd  # noqa: PLC0415  # exists on POSIX alone

    try:
        # The user database, because the environment variables that getpass trusts may name somebody else.
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"
