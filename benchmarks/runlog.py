"""The run log: how much becomes durable, how soon, what a restart takes, what watchers cost, what a history costs.

    python benchmarks/runlog.py [--rounds 3] [--runs 1000] [--watchers 1000] [--conversations 20000] [--only NAME ...]

About six minutes; Linux, two cores. With `--conversations 1000000` the database with a history has 10 million events,
6 GB, and takes ten minutes more to make; it is made beside the virtual environments and removed in the end. Appending
and history are measured in this process, restart and watchers on a real server; on SQLite with synchronous=FULL, and
on a PostgreSQL of its own with its defaults, which are as durable. What is compared takes turns in one run; compare
nothing else: the time of a flush differs between machines, and between the hours of a busy one.
"""

import argparse
import platform
import statistics
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import astuple
from datetime import UTC, datetime
from importlib.metadata import version

import uvloop
from durability import appending, fan_out, history, restarts
from durability.stores import PostgresServer, folder, opened, places, running_postgres
from parley_server.storage.sql.sqlite import SqliteDatabase
from streaming.measurements import percentile
from streaming.script import Script
from streaming.systems import parley, start_upstream, url

SECONDS = 2.0
# Runs, and events that each appends before it waits.
APPENDERS = ((1, 1), (50, 1), (200, 1), (200, 10))
POSTGRES_CONNECTIONS = 10
RATE, RATE_RUNS = 5_000, (50, 500)

Rows = dict[tuple[str, ...], list[Sequence[float]]]
Part = Callable[[argparse.Namespace, PostgresServer, Rows], Coroutine[None, None, None]]


async def append(words: argparse.Namespace, postgres: PostgresServer, rows: Rows) -> None:
    """Measure durable events per second, and the same by the drivers alone."""
    for _ in range(words.rounds):
        async with places(postgres) as both:
            for place in both:
                alone = await appending.unlogged_per_s(place, SECONDS)
                rows.setdefault((place.engine, "one transaction each, 1 connection"), []).append((alone, 1))
                if place.url:
                    many = await appending.unlogged_per_s(place, SECONDS, POSTGRES_CONNECTIONS)
                    label = f"one transaction each, {POSTGRES_CONNECTIONS} connections"
                    rows.setdefault((place.engine, label), []).append((many, many / alone))
                async with opened(place.database()) as store:
                    for runs, at_once in APPENDERS:
                        rate = await appending.logged_per_s(store, runs, at_once, SECONDS)
                        label = f"run log, {runs} runs, {at_once} events at a time"
                        rows.setdefault((place.engine, label), []).append((rate, rate / alone))


async def latency(words: argparse.Namespace, postgres: PostgresServer, rows: Rows) -> None:
    """Measure how long an event takes to its watcher at a steady rate, and one transaction of the driver beside it."""
    for _ in range(words.rounds):
        async with places(postgres) as both:
            for place in both:
                for runs in RATE_RUNS:
                    async with opened(place.database()) as store:
                        waits = await appending.waits_ms(store, runs, RATE, SECONDS)
                    row = (percentile(waits, 0.5), percentile(waits, 0.99))
                    rows.setdefault((place.engine, f"{RATE:,} events/s, {runs} runs"), []).append(row)
                alone = await appending.unlogged_waits_ms(place, SECONDS)
                row = (percentile(alone, 0.5), percentile(alone, 0.99))
                rows.setdefault((place.engine, "one transaction of the driver alone"), []).append(row)


async def restart(words: argparse.Namespace, postgres: PostgresServer, rows: Rows) -> None:
    """Measure a start over unfinished runs, and one over none."""
    with start_upstream() as upstream:
        for _ in range(words.rounds):
            async with places(postgres) as both:
                for place in both:
                    for runs in (0, words.runs):
                        await restarts.leave_runs(place, runs)
                        measured = await restarts.restart(place, runs, url(upstream))
                        rows.setdefault((place.engine, f"{runs:,} unfinished runs"), []).append(astuple(measured))


async def watch(words: argparse.Namespace, postgres: PostgresServer, rows: Rows) -> None:  # noqa: ARG001  # as all are
    """Measure many watchers of a server on SQLite."""
    loads = {
        "one": (f"{words.watchers:,} on one run", Script(100, gap_ms=20)),
        "each": (f"{words.watchers:,} runs, one each", Script(20, gap_ms=1000)),
    }
    with start_upstream() as upstream:
        for kind, (label, script) in loads.items():
            with parley(url(upstream)) as system:
                held = fan_out.held_kib(system, kind, words.watchers)
            for _ in range(words.rounds):
                with parley(url(upstream)) as system:
                    measured = fan_out.fan_out(system, kind, script, words.watchers)
                rows.setdefault((label,), []).append((held, measured.events_per_s, measured.cpu_us))


async def remember(words: argparse.Namespace, postgres: PostgresServer, rows: Rows) -> None:  # noqa: ARG001  # as all are
    """Measure turns on a database with a history beside one with a single user's."""
    sizes = (history.USER_CONVERSATIONS, words.conversations)
    with folder() as place:
        for size in sizes:
            await history.make(place / f"{size}.db", size)
        async with AsyncExitStack() as stack:
            stores = {
                size: await stack.enter_async_context(opened(SqliteDatabase(place / f"{size}.db"))) for size in sizes
            }
            for number in range(words.rounds * 10):
                for size, store in stores.items():
                    turn = await history.measure(store, history.user_of(0))
                    if number:
                        rows.setdefault((f"{size:,}",), []).append(astuple(turn))


PARTS: Mapping[str, tuple[Part, str, str]] = {
    "append": (append, "engine | way", "durable events/s | to one transaction each"),
    "latency": (latency, "engine | load", "p50 ms | p99 ms"),
    "restart": (restart, "engine | left", "serving after s | all going on after s"),
    "watchers": (watch, "watchers", "KiB a watcher | events/s delivered | server's CPU us/event"),
    "history": (
        remember,
        "conversations",
        "turn ms | turn's CPU ms | GetRun ms | ListRuns ms | ListMessages ms",
    ),
}


def print_rows(labels: str, columns: str, rows: Rows) -> None:
    """Print a table, medians over the rounds."""
    heads = [*labels.split(" | "), *columns.split(" | ")]
    print(f"\n| {' | '.join(heads)} |")
    print("| --- " * len(heads) + "|")
    for label, measured in rows.items():
        medians = [statistics.median(column) for column in zip(*measured, strict=True)]
        print(f"| {' | '.join([*label, *map(_cell, medians)])} |")


def _cell(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=1_000, help="that a restart finds")
    parser.add_argument("--watchers", type=int, default=1_000)
    parser.add_argument("--conversations", type=int, default=20_000, help="of the database with a history")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts")
    words = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("sqlalchemy", "asyncpg", "uvloop", "parley-server"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {words.rounds} rounds; Python {platform.python_version()}, {versions}")
    with running_postgres() as postgres:
        for name in words.only:
            print(name, file=sys.stderr)
            measure, labels, columns = PARTS[name]
            rows: Rows = {}
            uvloop.run(measure(words, postgres, rows))
            print_rows(labels, columns, rows)


if __name__ == "__main__":
    main()
