"""A unary call through Parley, beside a bare grpc.aio call with an answer of the same size; and idle streams.

    python benchmarks/chassis.py [--rounds 5] [--held 1000] [--against FOLDER]      about four minutes; Linux, two cores

The call is GetRun of a run that has ended. Parley is the whole chain as it is installed: API key (or none, from this
machine), RequestContext, policy, validation, and one indexed read from SQLite. The rows between are a server with a
constant answer behind more and more of the chain, so that the difference of two rows is what a step costs. The clients
share one core, the server under test has the other to itself; the servers take turns; compare within one run only.
CPU is the server's, user and system, all threads. `--against` adds the Parley of another source folder.
"""

import argparse
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from streaming.loads import held_kib
from streaming.systems import System, bare_grpc, start_upstream, url
from streaming.systems import parley as start_parley
from unary.measurements import Seen
from unary.systems import Subject, parley, step

BARE = "bare grpc.aio"
STEPS = {
    "trailers": "bare, the request's id in its trailers",
    "headers": "bare, the request's id in its headers",
    "guard": "the guard, the id in its headers",
    "key": "+ API key",
    "context": "+ RequestContext",
    "validation": "+ policy, validation",
}
WITH_KEY = "Parley, API key: + servicer, read"
LOCAL = "Parley, local"
LOGGING = "Parley, API key, request log"
# Clients at a time, and how many calls they make together.
LOADS = ((1, 1500), (16, 3000), (64, 3000))


@dataclass(frozen=True)
class Row:
    """One server under one load: what was seen, and its CPU in us a call."""

    seen: Seen
    cpu_us: float

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.seen.calls / self.seen.seconds


Rows = Mapping[tuple[int, str], list[Row]]


def start_all(stack: ExitStack, against: Path | None) -> dict[str, Subject]:
    """Start every server and its clients."""
    upstream = url(stack.enter_context(start_upstream()))
    system = stack.enter_context(start_parley(upstream))
    subjects = {
        WITH_KEY: stack.enter_context(parley(system, _key(system))),
        LOCAL: stack.enter_context(parley(system, None)),
    }
    logging = stack.enter_context(start_parley(upstream, log_level="info"))
    subjects[LOGGING] = stack.enter_context(parley(logging, _key(logging)))
    if against is not None:
        other = stack.enter_context(start_parley(upstream, against))
        subjects["other, API key"] = stack.enter_context(parley(other, _key(other)))
        subjects["other, local"] = stack.enter_context(parley(other, None))
    size = subjects[WITH_KEY].measure(1, 1)[0].answer_bytes
    steps = {label: stack.enter_context(step(name, size)) for name, label in STEPS.items()}
    return {BARE: stack.enter_context(step("bare", size)), **steps, **subjects}


def measure_all(rounds: int, against: Path | None) -> dict[tuple[int, str], list[Row]]:
    """Let the servers take turns; a list of rows per load and server."""
    rows: dict[tuple[int, str], list[Row]] = {}
    with ExitStack() as stack:
        subjects = start_all(stack, against)
        for subject in subjects.values():
            subject.measure(16, 1000)
        for number in range(rounds):
            for clients, calls in LOADS:
                for name, subject in subjects.items():
                    rows.setdefault((clients, name), []).append(Row(*subject.measure(clients, calls)))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return rows


def measure_memory(streams: int) -> Iterator[tuple[str, float]]:
    """Measure idle streams, each kind on a server of its own."""
    with start_upstream() as upstream:
        with start_parley(url(upstream)) as system:
            yield "Parley, WatchRun of one silent run", held_kib(system, "watch", streams)
        with bare_grpc("") as system:
            yield f"{BARE}, silent", held_kib(system, "grpc", streams)


def print_calls(rows: Rows) -> None:
    """Print a table, medians over the rounds."""
    print("| clients | server | calls/s | of bare | CPU us/call (least) | bare CPU : its | p50 / p99 ms |")
    print("| --- " * 7 + "|")
    for (clients, name), measured in rows.items():
        bare = rows[clients, BARE]
        rate, cpu_us = (_median(measured, column) for column in ("rate", "cpu_us"))
        cells = (
            str(clients),
            name,
            f"{rate:,.0f}",
            f"{rate / _median(bare, 'rate'):.2f}",
            f"{cpu_us:.0f} ({min(row.cpu_us for row in measured):.0f})",
            f"{_median(bare, 'cpu_us') / cpu_us:.2f}",
            " / ".join(f"{statistics.median(getattr(row.seen, each) for row in measured):.2f}" for each in _TIMES),
        )
        print(f"| {' | '.join(cells)} |")


def print_memory(memory: Mapping[str, float]) -> None:
    """Print a table."""
    print("| idle stream | KiB of the server's memory |\n| --- | --- |")
    for label, kib in memory.items():
        print(f"| {label} | {kib:.0f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--held", type=int, default=1000, help="idle streams held open for the memory; 0 for none")
    parser.add_argument("--against", type=Path, help="another folder with a parley_server")
    words = parser.parse_args()
    rows = measure_all(words.rounds, words.against)
    memory = dict(measure_memory(words.held)) if words.held else {}
    versions = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "protobuf", "uvloop", "parley-server"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {words.rounds} rounds, {words.held} streams held; ", end="")
    print(f"Python {platform.python_version()}, {versions}\n")
    print_calls(rows)
    if memory:
        print()
        print_memory(memory)


_TIMES = ("p50_ms", "p99_ms")


def _key(system: System) -> str:
    return system.environment["PARLEY_API_KEY"]


def _median(rows: list[Row], name: str) -> float:
    return statistics.median(float(getattr(row, name)) for row in rows)


if __name__ == "__main__":
    main()
