"""The composition of accounts: what calls learn of them, and what an erasure reaches outside of the store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from parley_server.accounts.cache import AccountCache
from parley_server.accounts.eraser import AccountEraser, RunEnder
from parley_server.composition.admission import Access
from parley_server.composition.tooling import OpenTools, delete_credentials
from parley_server.settings import Settings
from parley_server.storage.sql.store import SqlStore


@dataclass(frozen=True, slots=True)
class AccountKeeping:
    """What is known of accounts, and what erases them."""

    cache: AccountCache
    eraser: AccountEraser


@asynccontextmanager
async def keep_accounts(
    settings: Settings, store: SqlStore, runs: RunEnder, access: Access, tools: OpenTools
) -> AsyncIterator[AccountKeeping]:
    """Keep accounts while the block lasts; what is being erased at its end is erased by the next one."""

    async def forget_keys(user_id: str) -> None:
        access.forget_user(user_id)

    cache = AccountCache(store.accounts)
    forget = (forget_keys, tools.forget, partial(delete_credentials, settings))
    eraser = AccountEraser(store.erasures, runs, cache, forget)
    try:
        yield AccountKeeping(cache, eraser)
    finally:
        await eraser.stop()
