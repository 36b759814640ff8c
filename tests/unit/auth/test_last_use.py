"""When keys were last used: written for all of them at once, now and then, and at the end."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from parley_server.auth.last_use import LastUses
from parley_server.domain.errors import StorageUnavailableError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Record:
    """Keeps what is written; fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.writes: list[dict[str, datetime]] = []
        self.written = asyncio.Event()
        self._failures = failures

    async def __call__(self, uses: Mapping[str, datetime]) -> None:
        self._failures -= 1
        if self._failures >= 0:
            raise StorageUnavailableError
        self.writes.append(dict(uses))
        self.written.set()


async def test_many_uses_are_one_write_and_none_is_no_write() -> None:
    record = Record()
    async with LastUses(record) as uses:
        for second in range(100):
            uses.note("a", NOW + timedelta(seconds=second))
        uses.note("b", NOW)
        assert record.writes == []
    assert record.writes == [{"a": NOW + timedelta(seconds=99), "b": NOW}]
    async with LastUses(record, flush_s=0.001):
        await asyncio.sleep(0.01)
    assert len(record.writes) == 1


async def test_they_are_written_while_the_server_runs() -> None:
    record = Record()
    async with LastUses(record, flush_s=0.001) as uses:
        uses.note("a", NOW)
        await record.written.wait()
        assert record.writes == [{"a": NOW}]


async def test_what_could_not_be_written_is_written_with_the_next() -> None:
    record = Record(failures=2)
    async with LastUses(record, flush_s=0.001) as uses:
        uses.note("a", NOW)
        uses.note("b", NOW)
        await record.written.wait()
    assert record.writes[0] == {"a": NOW, "b": NOW}


async def test_a_store_that_is_gone_at_the_end_fails_nothing() -> None:
    record = Record(failures=1)
    async with LastUses(record) as uses:
        uses.note("a", NOW)
    assert record.writes == []
