"""Appending to run logs in this process: how many events become durable in a second, and how long each takes."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import aclosing, closing
from itertools import cycle
from pathlib import Path

import asyncpg
from durability.stores import Place, accepted, context_of
from parley_server.domain.run_event import HistoryTruncated, TextDelta
from parley_server.storage.run_log import RunAppender
from parley_server.storage.sql.store import SqlStore
from postgres_server import SUPERUSER

# What an event with a few words of text takes in the journal.
PAYLOAD = b"x" * 160
TEXT = "some twenty letters "
TICK_S = 0.002
_INSERT = "INSERT INTO run_journal (run_id, first_seq, frames) VALUES ({})"


async def logged_per_s(store: SqlStore, runs: int, at_once: int, seconds: float) -> float:
    """Let every run append so many events, wait until they are durable, and go on; return events per second."""
    pens = [(await accepted(store, context_of(f"user-{number}")))[1] for number in range(runs)]
    end = time.perf_counter() + seconds

    async def write(pen: RunAppender) -> int:
        made = 0
        while time.perf_counter() < end:
            for number in range(at_once):
                await pen.append(TextDelta(TEXT), f"item_{number % 2}")
            await pen.flush()
            made += at_once
        return made

    return sum(await asyncio.gather(*map(write, pens))) / seconds


async def unlogged_per_s(place: Place, seconds: float, connections: int = 1) -> float:
    """Do the same by the engine's driver alone, one transaction per event, on so many connections at a time."""
    work = (unlogged_waits_ms(place, seconds) for _ in range(connections))
    return sum(map(len, await asyncio.gather(*work))) / seconds


async def unlogged_waits_ms(place: Place, seconds: float) -> Sequence[float]:
    """Insert one event after the other by the engine's driver alone; return how long each took to be durable."""
    return await _on_postgres(place.url, seconds) if place.url else _on_sqlite(place.path, seconds)


def _on_sqlite(path: Path, seconds: float) -> list[float]:
    waits: list[float] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            connection.execute(_INSERT.format("?, ?, ?"), ("run_none", 1, PAYLOAD))
            waits.append((time.perf_counter() - began) * 1000)
    return waits


async def _on_postgres(url: str, seconds: float) -> list[float]:
    waits: list[float] = []
    connection = await asyncpg.connect(url, user=SUPERUSER)  # behind no wall
    try:
        insert = await connection.prepare(_INSERT.format("$1, $2, $3"))
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            await insert.fetch("run_none", 1, PAYLOAD)
            waits.append((time.perf_counter() - began) * 1000)
    finally:
        await connection.close()
    return waits


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
                assert not isinstance(batch, HistoryTruncated), "the run has not ended"
                self.waits_ms += [(now - self.moments[event.seq - 2]) * 1000 for event in batch]


async def _watched(store: SqlStore, number: int) -> _Log:
    user_id = f"user-{number}"
    run, pen = await accepted(store, context_of(user_id))
    return _Log(run.run_id, user_id, pen)
