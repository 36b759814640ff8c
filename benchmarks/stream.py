"""A streamed answer through Parley, beside a bare grpc.aio stream of equal messages and beside FastAPI + openai SDK.

    python benchmarks/stream.py [rounds] [streams held open for the memory]        about three minutes; Linux, two cores

Parley is the whole chain: API key, policy, validation, SQLite with synchronous=FULL, run log. The bare stream has no
model behind it: it is what the transport alone costs. The upstream and the clients share one core, the server under
test has the other to itself. The systems take turns; compare within one run only. CPU is the server's, user and
system, requests included, and its smallest value over the rounds the least disturbed. `first` is the time from a
request to its first chunk, `added` what it is above the same request straight to the upstream; `chunk` is how old a
chunk is when it arrives. FastAPI + SDK authenticates nobody and keeps nothing.

FastAPI is installed into .venv-bench on the first run; peers.py has more systems.
"""

import platform
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version

from streaming.loads import Load, Row, held_kib, measure
from streaming.peers import CANDIDATES, FASTAPI
from streaming.script import Script
from streaming.systems import System, start_upstream, url

DIRECT = "upstream itself"
BARE = "bare grpc.aio"
DEFAULTS = ("3", "1000")
SYSTEMS = {CANDIDATES[name].title: CANDIDATES[name].start for name in ("parley", "bare", "fastapi")}


LOADS = (
    Load("one after the other", Script(2), 1, turns=60),
    Load("burst, 1 stream", Script(4000), 1),
    Load("burst, 50 streams", Script(150), 50),
    Load("20 ms, 50 streams", Script(100, gap_ms=20), 50, spread_s=1),
    Load("20 ms, 200 streams", Script(100, gap_ms=20), 200, spread_s=1),
)


def measure_all(upstream: System, rounds: int) -> dict[tuple[str, str], list[Row]]:
    """Let the systems take turns; a list of rows per load and system."""
    rows: dict[tuple[str, str], list[Row]] = {}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(start(url(upstream))) for name, start in SYSTEMS.items()}
        systems = {DIRECT: upstream, **servers}
        for system in servers.values():
            measure(system, Load("warm-up", Script(20), 20, turns=3))
        for number in range(rounds):
            for load in LOADS:
                for name, system in systems.items():
                    rows.setdefault((load.name, name), []).append(measure(system, load))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return rows


def measure_memory(upstream: System, streams: int) -> Iterator[tuple[str, float]]:
    """Measure open streams, each kind on a server of its own."""
    kinds = (
        ("Parley, watching one silent run", "Parley", "watch"),
        ("Parley, a run each, waiting for the model", "Parley", "grpc"),
        ("bare grpc.aio, silent", "bare grpc.aio", "grpc"),
        ("FastAPI + openai SDK, waiting for the model", "FastAPI + openai SDK", "sse"),
    )
    for label, name, kind in kinds:
        with SYSTEMS[name](url(upstream)) as system:
            yield label, held_kib(system, kind, streams)


def print_loads(rows: Mapping[tuple[str, str], list[Row]]) -> None:
    """Print a table, medians over the rounds."""
    print("| load | server | chunks/s | CPU us/chunk (least) | x bare | messages/chunk ", end="")
    print("| first p50 / p99 ms | added p50 / p99 ms | chunk p50 / p99 ms |")
    print("| --- " * 9 + "|")
    for (load, name), measured in rows.items():
        first = [_median(measured, column) for column in ("first_p50", "first_p99")]
        direct = [_median(rows[load, DIRECT], column) for column in ("first_p50", "first_p99")]
        cells = [
            load,
            name,
            f"{statistics.median(row.seen.chunks / row.seen.seconds for row in measured):,.0f}",
            *(("-", "-") if name == DIRECT else _cpu(measured, rows[load, BARE])),
            f"{statistics.median(row.seen.messages / row.seen.chunks for row in measured):.2f}",
            f"{first[0]:.1f} / {first[1]:.1f}",
            # The bare server has no upstream to compare with.
            "-" if name in {DIRECT, BARE} else f"{first[0] - direct[0]:.1f} / {first[1] - direct[1]:.1f}",
            f"{_median(measured, 'age_p50'):.1f} / {_median(measured, 'age_p99'):.1f}",
        ]
        print(f"| {' | '.join(cells)} |")


def _cpu(measured: list[Row], bare: list[Row]) -> tuple[str, str]:
    cpu = statistics.median(row.cpu_us for row in measured)
    ratio = cpu / statistics.median(row.cpu_us for row in bare)
    return f"{cpu:.0f} ({min(row.cpu_us for row in measured):.0f})", f"{ratio:.2f}"


def print_memory(memory: Mapping[str, float]) -> None:
    """Print a table."""
    print("| open stream | KiB of the server's memory |\n| --- | --- |")
    for label, kib in memory.items():
        print(f"| {label} | {kib:.0f} |")


def main() -> None:
    """Measure and print."""
    rounds, held = (int(word) for word in [*sys.argv[1:], *DEFAULTS[len(sys.argv) - 1 :]][:2])
    FASTAPI.ensure()
    with start_upstream() as upstream:
        rows = measure_all(upstream, rounds)
        memory = dict(measure_memory(upstream, held))
    names = ("grpcio", "protobuf", "uvloop", "parley-server")
    versions = {name: version(name) for name in names} | FASTAPI.versions()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {rounds} rounds, {held} streams held; Python {platform.python_version()}, ",
        end="",
    )
    print(", ".join(f"{name} {number}" for name, number in versions.items()), end="\n\n")
    print_loads(rows)
    print()
    print_memory(memory)


def _median(rows: list[Row], name: str) -> float:
    values: list[float] = [getattr(row.seen, name) for row in rows]
    return statistics.median(values)


if __name__ == "__main__":
    main()
