"""Provider `delegation`: proves those who act for a user by a token that this installation has signed."""

import time
from datetime import UTC, datetime

from parley_server.auth.api_key_provider import CACHE_S, KeyStore
from parley_server.auth.delegated import Delegation
from parley_server.auth.delegation_signer import DelegationSigner
from parley_server.auth.key_standing import KeyStanding
from parley_server.auth.provider import NOT_MINE, Credentials, NotMine
from parley_server.auth.remembered import Remembered, Verified
from parley_server.auth.remembering import RememberingProvider
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.domain.principal import Principal, owner_of

DELEGATION = "delegation"


class DelegationProvider(RememberingProvider):
    """Accepts `Authorization: Bearer` with a token for this server: the caller is the user it names, and no more.

    A token ends by its time, and with the API key it rests on. One that was verified is remembered for CACHE_S.
    """

    def __init__(self, keys: KeyStore, hash_key: bytes) -> None:
        super().__init__(Remembered(hash_key))
        self._signer = DelegationSigner(hash_key)
        self._keys = KeyStanding(keys)
        self._changes = 0

    async def authenticate(self, credentials: Credentials) -> Principal | NotMine:
        """Verify the token and return its user; NOT_MINE without a bearer that begins as our tokens do.

        Raises:
            CredentialsInvalidError: we have not signed it so, it is not for this server, or it is over.
            TimeoutError: the store did not answer within the budget.
        """
        token = self._token_of(credentials)
        if token is None:
            return NOT_MINE
        looked, changes = time.monotonic(), self._changes
        delegation = self._signer.read(token)
        if delegation is None or not delegation.opens_this_server:
            raise CredentialsInvalidError
        left_s = (delegation.expire_time - datetime.now(UTC)).total_seconds()
        if left_s <= 0 or not await self._rests_on_something(delegation):
            raise CredentialsInvalidError
        verified = Verified(_principal_of(delegation), looked + min(CACHE_S, left_s))
        if changes == self._changes:
            self._remembered.put(token, verified)
        return verified.principal

    def forget(self, credential_id: str) -> None:
        """Look again at the tokens that rest on a key, also at those that are being looked at just now."""
        self._changes += 1
        self._keys.forget(credential_id)
        self._remembered.expire(credential_id)

    def forget_user(self, user_id: str) -> None:
        """Look again at the tokens that are for a user: the key they rest on may be gone."""
        self._changes += 1
        # Whose keys they are is not known here; to look again costs one read each.
        self._keys.forget_all()
        super().forget_user(user_id)

    def forget_all(self) -> None:
        """Look again at every token."""
        self._changes += 1
        self._keys.forget_all()
        self._remembered.expire()

    async def _rests_on_something(self, delegation: Delegation) -> bool:
        return not delegation.credential_id or await self._keys.is_good(delegation.credential_id)

    def _token_of(self, credentials: Credentials) -> str | None:
        token = credentials.bearer
        return token if token is not None and self._signer.is_ours(token) else None


def _principal_of(delegation: Delegation) -> Principal:
    kind, subject = owner_of(delegation.user_id)
    return Principal(
        kind=kind,
        subject=subject,
        scopes=delegation.scopes,
        method=DELEGATION,
        credential_id=delegation.credential_id,
        actors=delegation.actors,
        expires_at=delegation.expire_time,
    )
