"""What is known of accounts: fresh, bounded, read once, and not made up where it cannot be read."""

import asyncio

import pytest
from parley_server.accounts import cache as cache_module
from parley_server.accounts.cache import MAX_AGE_S, AccountCache
from parley_server.domain.access_errors import AccountErasingError
from parley_server.domain.account import AccountDefaults
from parley_server.domain.errors import StorageUnavailableError

NOTHING = AccountDefaults()
TOKYO = AccountDefaults("Asia/Tokyo", "ja")


class Directory:
    """Accounts that can be counted, held back and made unreadable."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.accounts: dict[str, AccountDefaults] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.is_broken = False

    async def defaults_of(self, user_id: str) -> AccountDefaults:
        self.reads.append(user_id)
        found = self.accounts.get(user_id, NOTHING)
        await self.open.wait()
        if self.is_broken:
            raise StorageUnavailableError
        return found


class World:
    """A cache with a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.directory = Directory()
        self.cache = AccountCache(self.directory, lambda: self.now)

    async def get(self, user_id: str = "ann") -> AccountDefaults:
        known = self.cache.recall(user_id)
        return await self.cache.find(user_id) if known is None else known


async def test_a_user_is_read_once_also_one_who_has_set_nothing() -> None:
    world = World()
    assert [await world.get() for _ in range(3)] == [NOTHING] * 3
    assert world.directory.reads == ["ann"]
    world.now += MAX_AGE_S
    world.directory.accounts["ann"] = TOKYO
    assert await world.get() == TOKYO
    assert world.directory.reads == ["ann", "ann"]


async def test_who_asks_at_the_same_time_waits_for_one_read_and_one_who_leaves_takes_it_from_nobody() -> None:
    world = World()
    world.directory.open.clear()
    waiting = [asyncio.create_task(world.get()) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    world.directory.open.set()
    assert await asyncio.gather(*waiting[1:]) == [NOTHING] * 4
    assert world.directory.reads == ["ann"]


async def test_what_is_read_while_it_changes_is_not_kept() -> None:
    world = World()
    world.directory.open.clear()
    before = asyncio.create_task(world.get())
    while not world.directory.reads:  # noqa: ASYNC110  # a turn of the loop or two
        await asyncio.sleep(0)
    world.directory.accounts["ann"] = TOKYO
    world.cache.forget("ann")
    after = asyncio.create_task(world.get())
    await asyncio.sleep(0)
    world.directory.open.set()
    assert [await before, await after] == [NOTHING, TOKYO]
    assert world.cache.recall("ann") == TOKYO


async def test_what_was_known_holds_while_the_store_cannot_answer_and_nothing_is_made_up() -> None:
    world = World()
    world.directory.accounts["ann"] = TOKYO
    await world.get()
    world.now += 2 * MAX_AGE_S
    world.directory.is_broken = True
    assert await world.get() == TOKYO
    with pytest.raises(StorageUnavailableError):
        await world.get("bob")
    world.directory.is_broken = False
    assert await world.get("bob") == NOTHING


async def test_it_knows_only_so_many_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MAX_USERS", 3)
    world = World()
    for user_id in ("a", "b", "c", "d"):
        await world.get(user_id)
    assert [world.cache.recall(user_id) is not None for user_id in ("a", "b", "c", "d")] == [False, True, True, True]


async def test_a_user_who_is_erased_is_let_in_again_as_one_of_whom_nothing_is_known() -> None:
    world = World()
    await world.get()
    world.cache.close("ann")
    with pytest.raises(AccountErasingError):
        world.cache.require_open("ann")
    world.cache.require_open("bob")
    world.cache.reopen("ann")
    world.cache.require_open("ann")
    assert world.cache.recall("ann") is None
