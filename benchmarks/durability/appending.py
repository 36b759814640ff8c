"""Appending to run logs in this process: how many events become durable in a second, and how long each takes."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import aclosing
from itertools import cycle
from pathlib import Path

import asyncpg
from durability.stores import accepted, context_of
from parley_server.domain.run_event import TextDelta
from parley_server.storage.run_log import RunAppender
from parley_server.storage.sql.store import SqlStore

# What an event with a few words of text takes in the journal.
PAYLOAD = b"x" * 160
TEXT = "some twenty letters "
TICK_S = 0.002
_INSERT = "INSERT INTO run_journal (run_id, first_seq, frames) VALUES ({})"


async def logged_per_s(store: SqlStore, runs: int, seconds: float) -> float:
    """Let every run append an event, wait until it is durable, and append the next; return events per second."""
    pens = [(await accepted(store, context_of(f"user-{number}")))[1] for number in range(runs)]
    end = time.perf_counter() + seconds

    async def write(pen: RunAppender) -> int:
        made = 0
        while time.perf_counter() < end:
            made += 1
            await pen.append(TextDelta(TEXT), "item_a")
            await pen.flush()
        return made

    return sum(await asyncio.gather(*map(write, pens))) / seconds


def sqlite_per_s(path: Path, seconds: float) -> float:
    """Do the same by sqlite3 alone, one transaction per event."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    end, made = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        made += 1
        connection.execute(_INSERT.format("?, ?, ?"), ("run_none", made, PAYLOAD))
    connection.close()
    return made / seconds


async def postgres_per_s(url: str, seconds: float, connections: int) -> float:
    """Do the same by asyncpg alone, one transaction per event, on so many connections at a time."""
    end = time.perf_counter() + seconds

    async def write() -> int:
        connection = await asyncpg.connect(url)
        insert = await connection.prepare(_INSERT.format("$1, $2, $3"))
        made = 0
        while time.perf_counter() < end:
            made += 1
            await insert.fetch("run_none", made, PAYLOAD)
        await connection.close()
        return made

    return sum(await asyncio.gather(*(write() for _ in range(connections)))) / seconds


async def waits_ms(store: SqlStore, runs: int, rate: float, seconds: float) -> Sequence[float]:
    """Append so many events per second, spread over the runs; return how long each took to reach its watcher."""
    logs = [await _watched(store, number) for number in range(runs)]
    watchers = [asyncio.create_task(log.watch(store)) for log in logs]
    began = time.perf_counter()
    turn = cycle(logs)
    appended = 0
    while appended < rate * seconds:
        # What is late is appended at once, and waits from then on.
        due = int(min(time.perf_counter() - began, seconds) * rate)
        for _ in range(due - appended):
            await next(turn).append()
        appended = due
        await asyncio.sleep(TICK_S)
    for log in logs:
        await log.pen.flush()
    await asyncio.sleep(0.1)
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    return [wait for log in logs for wait in log.waits_ms]


class _Log:
    """One run with one watcher, in this process."""

    def __init__(self, run_id: str, user_id: str, pen: RunAppender) -> None:
        self.run_id, self.user_id, self.pen = run_id, user_id, pen
        self.moments: list[float] = []
        self.waits_ms: list[float] = []

    async def append(self) -> None:
        """Append one event; two items take turns, so that none melts into the one before."""
        self.moments.append(time.perf_counter())
        await self.pen.append(TextDelta(TEXT), f"item_{len(self.moments) % 2}")

    async def watch(self, store: SqlStore) -> None:
        """Note when each event comes; the first after `run_accepted` is number 2."""
        async with aclosing(store.for_user(context_of(self.user_id)).runs.watch(self.run_id, 1)) as batches:
            async for batch in batches:
                now = time.perf_counter()
                self.waits_ms += [(now - self.moments[event.seq - 2]) * 1000 for event in batch]


async def _watched(store: SqlStore, number: int) -> _Log:
    user_id = f"user-{number}"
    run, pen = await accepted(store, context_of(user_id))
    return _Log(run.run_id, user_id, pen)
