"""Many systems under the same loads in one run, taking turns."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from statistics import median

from streaming.environments import NotInstalledError
from streaming.loads import Load, LoadError, Row, measure
from streaming.peers import CANDIDATES
from streaming.processes import rss_kib
from streaming.script import Script
from streaming.systems import System, start_upstream, url

DIRECT = "direct"
# What has no model that could be sent a history, and the model.
_WITHOUT_TURNS = ("bare", DIRECT)
_SETTLED_S = 3.0
_WARM_UP = Load("warm-up", Script(20), 20, turns=3)


@dataclass(frozen=True)
class Loads:
    """The loads of a run: bursts and 20 ms a chunk by the number of streams, turns by the messages before them.

    `open_streams` is what models make: 200 streams open at once, 5 chunks/s each, begun one after the other.
    """

    bursts: Mapping[int, Load]
    paced: Mapping[int, Load]
    open_streams: Load
    histories: Mapping[int, Load]

    def all(self) -> Iterator[Load]:
        """Yield them."""
        yield from (*self.bursts.values(), *self.paced.values(), self.open_streams, *self.histories.values())


def loads(*, quick: bool) -> Loads:
    """Return the loads; the quick ones are too short for more than a look."""
    # Chunks of a stream. The slowest system needs some 20 s for the longest.
    bursts = {1: 1000, 50: 30, 200: 10} if quick else {1: 4000, 50: 150, 200: 40}
    paced = {1: 25, 50: 25, 200: 15} if quick else {1: 100, 50: 50, 200: 50}
    spread_s, open_chunks = (2.0, 10) if quick else (4.0, 30)
    return Loads(
        {count: Load(f"burst {count}", Script(chunks), count) for count, chunks in bursts.items()},
        {
            count: Load(f"20 ms {count}", Script(chunks, gap_ms=20), count, spread_s=min(1.0, count - 1.0))
            for count, chunks in paced.items()
        },
        Load("200 ms 200", Script(open_chunks, gap_ms=200), 200, spread_s=spread_s),
        {
            count: Load(f"history {count}", Script(1), 4, turns=5 if quick else 15, history=count)
            for count in (0, 50, 200, 1000)
        },
    )


@dataclass
class Comparison:
    """What was measured: rows by load and system, why some are missing, MiB by system, versions by system."""

    rows: dict[tuple[str, str], list[Row]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    rss_mib: dict[str, tuple[float, float]] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    def per_s(self, load: Load, name: str) -> float | None:
        """Return the chunks in a second, median over the rounds; None where there is none."""
        return self._median(load, name, lambda row: row.seen.chunks / row.seen.seconds)

    def cpu_us(self, load: Load, name: str) -> float | None:
        """Return the server's CPU in us a chunk, median over the rounds; None where there is none."""
        return None if name == DIRECT else self._median(load, name, lambda row: row.cpu_us)

    def first_ms(self, load: Load, name: str, percentile: int) -> float | None:
        """Return how long a stream's first chunk took in ms, 50th or 99th percentile, median over the rounds."""
        if percentile == 50:
            return self._median(load, name, lambda row: row.seen.first_p50)
        return self._median(load, name, lambda row: row.seen.first_p99)

    def as_json(self) -> dict[str, object]:
        """Return everything, every round for itself."""
        rows = [
            {"load": load, "system": name, "round": number, "cpu_us": row.cpu_us, **asdict(row.seen)}
            for (load, name), measured in self.rows.items()
            for number, row in enumerate(measured, 1)
        ]
        failures = [{"load": load, "system": name, "why": why} for (load, name), why in self.failures.items()]
        return {
            "rows": rows,
            "failures": failures,
            "absent": self.absent,
            "rss_mib": self.rss_mib,
            "versions": self.versions,
        }

    def _median(self, load: Load, name: str, value: Callable[[Row], float]) -> float | None:
        measured = self.rows.get((load.name, name))
        return median(value(row) for row in measured) if measured else None


def compare(names: Sequence[str], chosen: Loads, rounds: int) -> Comparison:
    """Start the systems and let them take turns under every load, so many times."""
    found = Comparison()
    with ExitStack() as stack:
        upstream = stack.enter_context(start_upstream())
        started = {name: _started(name, upstream, stack, found) for name in names}
        time.sleep(_SETTLED_S)
        at_start = {name: _mib(system) for name, system in started.items() if system}
        everything = {DIRECT: upstream, **started}
        systems = {name: system for name, system in everything.items() if system and _warm(name, system, found)}
        for number in range(rounds):
            for load in chosen.all():
                for name, system in systems.items():
                    if load not in chosen.histories.values() or name not in _WITHOUT_TURNS:
                        _measure(load, name, system, found)
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
        found.rss_mib = {name: (at_start[name], _mib(system)) for name, system in systems.items() if name != DIRECT}
    return found


def _started(name: str, upstream: System, stack: ExitStack, found: Comparison) -> System | None:
    candidate = CANDIDATES[name]
    try:
        if candidate.environment is not None:
            candidate.environment.ensure()
            found.versions[name] = candidate.environment.versions()
        return stack.enter_context(candidate.start(url(upstream)))
    except NotInstalledError as error:
        found.absent[name] = f"not installed: {error}"
    except RuntimeError as error:
        print(f"{name}: {error}", file=sys.stderr)
        found.absent[name] = "not started"
    return None


def _warm(name: str, system: System, found: Comparison) -> bool:
    try:
        measure(system, _WARM_UP)
    except LoadError as error:
        found.absent[name] = f"does not answer: {error}"
        return False
    return True


def _measure(load: Load, name: str, system: System, found: Comparison) -> None:
    try:
        found.rows.setdefault((load.name, name), []).append(measure(system, load))
    except LoadError as error:
        print(f"{name}: {error}", file=sys.stderr)
        found.failures[load.name, name] = str(error)


def _mib(system: System) -> float:
    return rss_kib(system.pid) / 1024
