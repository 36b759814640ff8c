"""Whether the credential that work was begun with still holds, for work that outlives the call."""

from datetime import UTC, datetime

import structlog

from parley_server.auth.api_key_provider import API_KEY
from parley_server.auth.delegation import DELEGATION
from parley_server.auth.key_standing import KeyStanding
from parley_server.domain.access_errors import AuthUnavailableError, CredentialsInvalidError
from parley_server.domain.principal import Principal

_log = structlog.get_logger(__name__)


class CredentialCheck:
    """Judges by what is known of a principal: its credential itself was in the call, and is nowhere kept.

    A key is asked for in the store, where its end may have been moved since. All others end at their `expires_at`.
    """

    def __init__(self, keys: KeyStanding) -> None:
        self._keys = keys

    async def require(self, principal: Principal) -> None:
        """Let go on what was begun with this principal's credential.

        Raises:
            CredentialsInvalidError: it is revoked, or over.
            AuthUnavailableError: that cannot be told at the moment.
        """
        is_key = principal.method == API_KEY
        if not is_key and principal.expires_at is not None and datetime.now(UTC) >= principal.expires_at:
            raise CredentialsInvalidError
        if (is_key or (principal.method == DELEGATION and principal.credential_id)) and not await self._stands(
            principal.credential_id
        ):
            raise CredentialsInvalidError

    def forget_all(self) -> None:
        """Ask for every key again at its next use."""
        self._keys.forget_all()

    async def _stands(self, key_id: str) -> bool:
        try:
            return await self._keys.is_good(key_id)
        except Exception as error:
            _log.warning("credential_unverified", credential_id=key_id, error=type(error).__qualname__)
            raise AuthUnavailableError("the credential cannot be checked now; try again", retry_after_s=1.0) from error
