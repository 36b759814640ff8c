"""Writing the files anew for all who wait, and never for most of the time."""

import asyncio
from collections.abc import Awaitable

import pytest
from parley_server.accounts.scrubbing import REST, SharedScrub
from parley_server.domain.errors import StorageUnavailableError

TOOK_S = 2.0


class Files:
    """Implements `Erasures` as far as it is asked: each scrub takes TOOK_S of `now`, once `gate` lets it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.begun: list[float] = []
        self.started, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.fails = False

    async def scrub_some(self) -> int:
        return 0

    async def scrub(self) -> None:
        self.begun.append(self.now)
        self.started.set()
        await self.gate.wait()
        self.now += TOOK_S
        if self.fails:
            raise StorageUnavailableError

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def pending(self) -> tuple[str, ...]:
        return ()

    async def begin(self, user_id: str) -> None:
        raise AssertionError(user_id)

    async def live_runs(self, user_id: str) -> tuple[str, ...]:
        raise AssertionError(user_id)

    async def erase_some(self, user_id: str) -> int:
        raise AssertionError(user_id)

    async def finish(self, user_id: str) -> bool:
        raise AssertionError(user_id)


def scrubbing(files: Files) -> SharedScrub:
    return SharedScrub(files, lambda: files.now, files.sleep)


async def test_after_each_there_is_a_rest_however_often_it_is_asked_for() -> None:
    files = Files()
    scrubs = scrubbing(files)
    for _ in range(3):
        await scrubs.wait()
    assert files.begun == [100 + number * TOOK_S * (1 + REST) for number in range(3)]


async def test_those_who_wait_share_the_next_and_none_the_one_under_way() -> None:
    files = Files()
    files.gate.clear()
    scrubs = scrubbing(files)
    first = asyncio.ensure_future(scrubs.wait())
    await files.started.wait()
    others: list[Awaitable[None]] = [asyncio.ensure_future(scrubs.wait()) for _ in range(50)]
    files.gate.set()
    await asyncio.gather(first, *others)
    assert len(files.begun) == 2


async def test_what_fails_fails_for_all_who_wait_and_the_next_is_another() -> None:
    files = Files()
    files.fails = True
    scrubs = scrubbing(files)
    told = await asyncio.gather(scrubs.wait(), scrubs.wait(), return_exceptions=True)
    assert [type(each) for each in told] == [StorageUnavailableError] * 2
    files.fails = False
    await scrubs.wait()
    assert len(files.begun) == 2


async def test_nothing_goes_on_behind_its_stop() -> None:
    files = Files()
    files.gate.clear()
    scrubs = scrubbing(files)
    waiting = asyncio.ensure_future(scrubs.wait())
    await files.started.wait()
    await scrubs.stop()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert files.now == 100.0
