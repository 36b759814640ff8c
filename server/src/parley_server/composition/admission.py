"""Who is let in, composed of the settings: the chain of providers, and the keys it looks up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from parley_server.auth.credential_check import CredentialCheck
from parley_server.auth.delegation import DELEGATION
from parley_server.auth.delegation_signer import DelegationSigner
from parley_server.auth.delegations import Delegations
from parley_server.auth.factory import AuthChain, ProviderParts, build_auth_chain
from parley_server.auth.key_administration import KeyAdministration
from parley_server.auth.key_standing import KeyStanding
from parley_server.auth.last_use import LastUses
from parley_server.composition.auditing import OperatorKeys
from parley_server.composition.installation import hash_key_of, make_data_dir, open_installed_store
from parley_server.domain.api_key import ApiKey
from parley_server.settings import Settings
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.sql.store import SqlStore

Keys = KeyAdministration[PageRequest, Page[ApiKey]]


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in, the keys that let him, who may act for him, and whether what let him in still holds."""

    chain: AuthChain
    keys: Keys
    signer: DelegationSigner
    delegations: Delegations
    credentials: CredentialCheck

    def forget_user(self, user_id: str) -> None:
        """Look again at whatever lets an erased user in; nobody else's issuers and keys are asked for his sake."""
        self.chain.forget_user(user_id)
        self.credentials.forget_all()

    def forget_all(self) -> None:
        """Look again at everything that lets anybody in."""
        self.chain.forget_all()
        self.credentials.forget_all()


@asynccontextmanager
async def open_access(
    settings: Settings, store: SqlStore, hash_key: bytes, last_uses: LastUses
) -> AsyncIterator[Access]:
    """Build the chain that the settings ask for, and the administration of its keys.

    Raises:
        StartError: a provider cannot be made, and says why.
    """
    parts = ProviderParts(
        store.api_keys,
        hash_key,
        last_uses.note,
        settings.auth.max_failures_per_minute,
        issuers=settings.issuers,
        services=settings.mtls,
    )
    types = settings.admission.provider_types
    chain = build_auth_chain(types, parts)
    standing = KeyStanding(store.api_keys)
    signer = DelegationSigner(hash_key)

    def forget(key_id: str) -> None:
        chain.forget(key_id)
        standing.forget(key_id)

    keys = KeyAdministration(store.api_keys, hash_key, on_change=forget)
    chain.begin()
    try:
        yield Access(chain, keys, signer, Delegations(signer, is_taker=DELEGATION in types), CredentialCheck(standing))
    finally:
        await chain.close()


@asynccontextmanager
async def key_administration(settings: Settings) -> AsyncIterator[Keys]:
    """Open the keys of an installation, beside a running server or without one.

    Raises:
        StartError: the database cannot be reached, or is of another version and may not be upgraded from here.
    """
    make_data_dir(settings)
    hash_key = hash_key_of(settings)
    async with open_installed_store(settings, hash_key, serves=False) as store:
        yield KeyAdministration(OperatorKeys(store), hash_key)
