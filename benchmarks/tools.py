"""Tool calls: what the manager adds to each, and how long calls that go on at once take together.

    python benchmarks/tools.py [--rounds 5] [--calls 300]

Half a minute; Linux. In this process, with a tool that does nothing, or waits: its own time is known, so all else is
the manager's. The journal of effects is SQLite's with synchronous=FULL; a call is told and dispatched by one commit and
its answer is another, so two bare transactions of the driver are what no manager that keeps that promise can do
without. What is compared takes turns in one run; compare nothing else.
"""

import argparse
import asyncio
import platform
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import uvloop
from durability.appending import PAYLOAD
from durability.stores import accepted, context_of, folder, opened
from parley_server.domain.context import RequestContext
from parley_server.domain.run_event import EventBody, EventSink, ItemEvent, RunStarted
from parley_server.domain.tool import CallRecord, ToolCall, ToolCallStatus, ToolEffect
from parley_server.runs.execution import RecordingSink
from parley_server.runs.transcript import RunTranscript
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict
from streaming.measurements import percentile

BARE = "two transactions of the driver alone"
LENGTHS_MS = tuple(range(30, 110, 10))


@dataclass(frozen=True)
class Round:
    """Of one way a call goes: milliseconds that each took, and CPU of the whole process for one of them."""

    took_ms: Sequence[float]
    cpu_ms: float

    @property
    def p50_ms(self) -> float:
        """The median."""
        return percentile(self.took_ms, 0.5)


Rows = dict[str, list[Round]]
Play = Callable[[Sequence[float]], Awaitable[float]]


class Wait(BaseModel):
    """For how long."""

    model_config = ConfigDict(extra="forbid")

    number: int
    milliseconds: float = 0.0


@tool(effect=ToolEffect.WRITE, per_user_concurrency=8)
async def wait(context: ToolContext, arguments: Wait) -> Wait:  # noqa: ARG001
    """Wait, or do nothing."""
    if arguments.milliseconds:
        await asyncio.sleep(arguments.milliseconds / 1000)
    return arguments


class Unkept:
    """Implements `EventSink` where nothing is kept."""

    async def emit(self, body: EventBody, item_id: str = "") -> None:
        """Take one event."""

    async def emit_all(self, events: Sequence[ItemEvent], calls: Sequence[CallRecord] = ()) -> None:
        """Take events."""

    async def dispatched(self, call_ids: Sequence[str]) -> None:
        """Take note."""

    async def withdrawn(self, call_ids: Sequence[str]) -> None:
        """Take note."""

    async def flush(self) -> None:
        """Wait for nothing."""


class Turns:
    """Turns of calls of one user, through one manager into one sink."""

    def __init__(self, run_id: str, sink: EventSink) -> None:
        self._context: RequestContext = context_of("ann")
        self._run_id = run_id
        self._sink = sink
        self._manager = ToolCallManager(ToolRegistry([wait]))
        self._made = 0

    async def turn_ms(self, lengths_ms: Sequence[float]) -> float:
        """Play one turn; return how long it took until every answer was kept."""
        calls = [self._call(length) for length in lengths_ms]
        began = time.perf_counter()
        plan = self._manager.plan(self._context, self._run_id, calls, ["wait"])
        results = await self._manager.run(self._context, plan, self._sink)
        took_ms = (time.perf_counter() - began) * 1000
        assert all(result.status is ToolCallStatus.OK for result in results)
        return took_ms

    def _call(self, length_ms: float) -> ToolCall:
        self._made += 1
        arguments = Wait(number=self._made, milliseconds=length_ms)
        return ToolCall(f"call_{self._made}", "wait", arguments.model_dump_json())


@asynccontextmanager
async def journaled(path: Path) -> AsyncIterator[Turns]:
    """Open a store and yield turns of a run of it."""
    async with opened(SqliteDatabase(path)) as store:
        run, pen = await accepted(store, context_of("ann"))
        await pen.begin(RunStarted("none"))
        yield Turns(run.run_id, RecordingSink(pen, RunTranscript()))


async def overhead(rounds: int, calls: int) -> Rows:
    """Measure milliseconds a call by the way it goes; the ways take turns."""
    rows: Rows = {}
    with folder() as place:
        async with journaled(place / "parley.db") as kept:
            unkept = Turns("run_none", Unkept())
            turns: dict[str, tuple[Play, int]] = {
                "the manager, nothing kept, 1 call a turn": (unkept.turn_ms, 1),
                "the manager, journal on SQLite, 1 call a turn": (kept.turn_ms, 1),
                "the manager, journal on SQLite, 8 calls a turn": (kept.turn_ms, 8),
            }
            for number in range(rounds):
                bare = place / f"bare{number}.db"
                async with SqliteDatabase(bare):
                    pass
                rows.setdefault("the tool alone", []).append(await _measured(_alone_ms(calls), calls))
                for label, (play, size) in turns.items():
                    rows.setdefault(label, []).append(await _measured(_played_ms(play, size, calls), calls))
                rows.setdefault(BARE, []).append(await _measured(_bare_ms(bare, calls), calls))
    return rows


async def _measured(work: Awaitable[Sequence[float]], calls: int) -> Round:
    began = time.process_time()
    took_ms = await work
    return Round(took_ms, (time.process_time() - began) * 1000 / calls)


async def _played_ms(play: Play, size: int, calls: int) -> list[float]:
    return [await play([0] * size) / size for _ in range(calls // size)]


async def _alone_ms(calls: int) -> list[float]:
    context = ToolContext(context_of("ann"), "run", "call", "key", asyncio.get_running_loop().time() + 60)
    took: list[float] = []
    for number in range(calls):
        began = time.perf_counter()
        await wait.call(context, {"number": number})
        took.append((time.perf_counter() - began) * 1000)
    return took


async def _bare_ms(database: Path, calls: int) -> list[float]:
    """Make two transactions for each call, as its journal needs."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        return [_insert_ms(connection) + _insert_ms(connection) for _ in range(calls)]


def _insert_ms(connection: sqlite3.Connection) -> float:
    began = time.perf_counter()
    connection.execute("INSERT INTO run_journal (run_id, first_seq, frames) VALUES (?, ?, ?)", ("none", 1, PAYLOAD))
    return (time.perf_counter() - began) * 1000


async def together(rounds: int) -> list[float]:
    """Return how long 8 calls of different length took together, to the slowest of them."""
    with folder() as place:
        async with journaled(place / "parley.db") as kept:
            return [await kept.turn_ms(LENGTHS_MS) / max(LENGTHS_MS) for _ in range(rounds * 4)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300, help="of each way in each round")
    words = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("uvloop", "pydantic", "parley-server"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {words.rounds} rounds; Python {platform.python_version()}, {versions}")
    rows = uvloop.run(overhead(words.rounds, words.calls))
    bare_ms = statistics.median(each.p50_ms for each in rows[BARE])
    print("\n| way | p50 ms a call (least) | p99 ms | CPU ms (least) | p50 to two transactions |")
    print("| --- | --- | --- | --- | --- |")
    for label, took in rows.items():
        p50s = [each.p50_ms for each in took]
        cpus = [each.cpu_ms for each in took]
        p50, cpu = statistics.median(p50s), statistics.median(cpus)
        p99 = statistics.median(percentile(each.took_ms, 0.99) for each in took)
        times = f"{p50:.3f} ({min(p50s):.3f}) | {p99:.2f} | {cpu:.3f} ({min(cpus):.3f})"
        print(f"| {label} | {times} | {p50 / bare_ms:.2f} |")
    ratios = uvloop.run(together(words.rounds))
    print(f"\n8 calls of {LENGTHS_MS[0]} to {LENGTHS_MS[-1]} ms at once, to the slowest: ", end="")
    print(f"median {statistics.median(ratios):.3f}, least {min(ratios):.3f}, most {max(ratios):.3f} of {len(ratios)}")


if __name__ == "__main__":
    main()
