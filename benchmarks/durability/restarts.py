"""A server that starts over many runs its predecessor left unfinished."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from durability.stores import Place, context_of, opened
from parley_server.domain.content import TextPart
from parley_server.domain.run import ModelOptions, RunSpec
from parley_server.domain.run_event import MessageCompleted, RunStarted, TextDelta
from parley_server.storage.sql.lock_file import read_holder
from parley_server.storage.sql.store import SqlStore
from streaming.script import Script
from streaming.systems import START_TIMEOUT_S

EVENTS = 50
_GOING_ON = "SELECT count(*) FROM runs WHERE attempt > 1 OR finish_time IS NOT NULL"
_HOLD = Script(1, hold_ms=600_000).model


@dataclass(frozen=True)
class Restart:
    """Seconds from the command: until the server serves, and until every run has its next attempt or its end."""

    serving_s: float
    going_on_s: float


async def leave_runs(place: Place, runs: int) -> None:
    """Leave so many runs as a crash leaves them: under way, each with a log of EVENTS and an item that is cut."""
    async with opened(place.database()) as store:
        for number in range(0, runs, 100):
            await asyncio.gather(*(_leave(store, each) for each in range(number, min(number + 100, runs))))


async def _leave(store: SqlStore, number: int) -> None:
    spec = RunSpec(
        agent_id="assistant", conversation_id="", input=(TextPart("hello"),), model_options=ModelOptions(model=_HOLD)
    )
    run = (await store.for_user(context_of(f"user-{number % 50}")).runs.accept(spec, None)).run
    pen = store.worker.appender(run.run_id)
    await pen.begin(RunStarted(_HOLD))
    for place in range(EVENTS // 2):
        await pen.append(TextDelta(f"word {place} "), "item_a")
        await pen.flush()
    await pen.append(MessageCompleted("".join(f"word {place} " for place in range(EVENTS // 2))), "item_a")
    for place in range(EVENTS // 2 - 3):
        await pen.append(TextDelta(f"word {place} "), "item_b")
        await pen.flush()


async def restart(place: Place, runs: int, upstream: str) -> Restart:
    """Start a server on what was left, wait until nothing is left of it, and end it."""
    environment = {"PARLEY_MODEL__BASE_URL": upstream, "PARLEY_MODEL__NAME": "fake"}
    if place.url:
        environment["PARLEY_STORAGE__URL"] = place.url
    began = time.perf_counter()
    with _started(place.data_dir, environment) as server:
        while (holder := read_holder(place.data_dir / "server.lock")) is None or not holder.address:
            if server.poll() is not None or time.perf_counter() - began > START_TIMEOUT_S:
                raise RuntimeError("the server did not start")
            await asyncio.sleep(0.005)
        serving_s = time.perf_counter() - began
        while await _going_on(place) < runs:
            if time.perf_counter() - began > START_TIMEOUT_S:
                raise RuntimeError("the runs did not go on")
            await asyncio.sleep(0.02)
        return Restart(serving_s, time.perf_counter() - began)


@contextmanager
def _started(data_dir: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PARLEY_"))}
    server = subprocess.Popen(
        [sys.executable, "-m", "parley_server", "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)],
        env=inherited | {"PARLEY_LOG__LEVEL": "error"} | environment,
    )
    try:
        yield server
    finally:
        server.kill()
        server.wait()
        (data_dir / "server.lock").unlink(missing_ok=True)


async def _going_on(place: Place) -> int:
    if place.url:
        session = await asyncpg.connect(place.url)
        try:
            return int(await session.fetchval(_GOING_ON))
        finally:
            await session.close()
    with closing(sqlite3.connect(f"file:{place.path}?mode=ro", uri=True)) as connection:
        return int(connection.execute(_GOING_ON).fetchone()[0])
