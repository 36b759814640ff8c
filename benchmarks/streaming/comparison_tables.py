"""What a comparison says, as Markdown."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from streaming.comparison import DIRECT, Comparison, Loads
from streaming.loads import Load
from streaming.peers import CANDIDATES

Cell = Callable[[str], str]


@dataclass(frozen=True)
class Aim:
    """What Parley aims at: a figure of one run, at least or at most so large."""

    text: str
    limit: float
    figure: float | None
    unit: str = ""
    at_least: bool = False

    def row(self) -> str:
        """Return the table's row."""
        bound = f"{'at least' if self.at_least else 'at most'} {self.limit:g}{self.unit}"
        if self.figure is None:
            return f"| {self.text} | {bound} | - | - |"
        met = self.figure >= self.limit if self.at_least else self.figure <= self.limit
        return f"| {self.text} | {bound} | {self.figure:.2f}{self.unit} | {'yes' if met else '**no**'} |"


def aims(found: Comparison, chosen: Loads) -> list[Aim]:
    """Return the aims with what was measured."""
    burst = chosen.bursts[50]
    parley, litellm, fastapi = (found.per_s(burst, name) for name in ("parley", "litellm", "fastapi"))
    first = _added(found, chosen.open_streams, "parley", 99)
    rss = found.rss_mib.get("parley")
    return [
        Aim("chunks/s in a burst of 50 streams, to LiteLLM's", 20, _ratio(parley, litellm), at_least=True),
        Aim("chunks/s in a burst of 50 streams, to those of FastAPI + SDK", 6, _ratio(parley, fastapi), at_least=True),
        *_aims_of_cpu(found, chosen),
        Aim("first chunk above direct, p99, 200 open streams", 25, first, " ms"),
        Aim("memory at the start", 130, rss and rss[0], " MiB"),
    ]


def _aims_of_cpu(found: Comparison, chosen: Loads) -> list[Aim]:
    def to(name: str, load: Load) -> float | None:
        return _ratio(found.cpu_us(load, "parley"), found.cpu_us(load, name))

    alone, long = (found.cpu_us(chosen.histories[count], "parley") for count in (0, 200))
    more_us = _minus(long, alone)
    more_ms = None if more_us is None else more_us / 1000
    return [
        Aim(
            "CPU a chunk, 200 streams of 5 chunks/s, to that of FastAPI + SDK", 0.5, to("fastapi", chosen.open_streams)
        ),
        Aim("CPU a chunk, 200 streams of 50 chunks/s, to a bare message's", 2.5, to("bare", chosen.paced[200])),
        Aim("CPU of a turn with 200 messages before it, above one with none", 1.5, more_ms, " ms"),
    ]


def text(found: Comparison, chosen: Loads, names: Sequence[str]) -> str:
    """Return all tables and the notes under them."""
    return "\n\n".join(
        [
            "\n".join(_aims(found, chosen)),
            _by_load("chunks/s", found, chosen, [DIRECT, *names], found.per_s),
            _by_load("server's CPU ms per 1,000 chunks", found, chosen, names, found.cpu_us),
            "\n".join(_others(found, chosen, names)),
            "\n".join(_modes(found, names)),
        ]
    )


def _aims(found: Comparison, chosen: Loads) -> Iterator[str]:
    yield "| Parley's aim | bound | measured | met |"
    yield "| --- | --- | --- | --- |"
    for aim in aims(found, chosen):
        yield aim.row()


def _by_load(
    title: str,
    found: Comparison,
    chosen: Loads,
    names: Sequence[str],
    figure: Callable[[Load, str], float | None],
) -> str:
    columns = {
        **{f"burst, {count}": load for count, load in chosen.bursts.items()},
        **{f"20 ms, {count}": load for count, load in chosen.paced.items()},
        "200 ms, 200": chosen.open_streams,
    }
    lines = [f"| {title} | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for name in names:
        cells = [_number(figure(load, name), found, load, name) for load in columns.values()]
        lines.append(_row(found, name, cells))
    return "\n".join(lines)


def _others(found: Comparison, chosen: Loads, names: Sequence[str]) -> Iterator[str]:
    """Yield a table of the first chunk, the turn by its history, and the memory."""
    turns = [f"+{count:,}" if count else "turn's CPU ms, alone" for count in chosen.histories]
    yield f"| | first chunk p50 / p99 ms | above direct | {' | '.join(turns)} | MiB at start -> end |"
    yield "| --- " * (4 + len(turns)) + "|"
    opened = chosen.open_streams
    for name in (DIRECT, *names):
        cells = [
            _pair(*(found.first_ms(opened, name, percentile) for percentile in (50, 99))),
            # The bare server has no upstream to compare with.
            "-" if name in {DIRECT, "bare"} else _pair(*(_added(found, opened, name, each) for each in (50, 99))),
            *(_turn(found, load, name) for load in chosen.histories.values()),
            " -> ".join(f"{mib:.0f}" for mib in found.rss_mib.get(name, ())) or "-",
        ]
        yield _row(found, name, cells)


def _row(found: Comparison, name: str, cells: Sequence[str]) -> str:
    """Return a row; of a system that is not there it says why, and nothing else."""
    if name in found.absent:
        cells = [found.absent[name], *[""] * (len(cells) - 1)]
    return f"| {_title(name)} | {' | '.join(cells)} |"


def _modes(found: Comparison, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        versions = ", ".join(f"{package} {number}" for package, number in found.versions.get(name, {}).items())
        told = [CANDIDATES[name].mode, *([versions] if versions else []), *_failures(found, name)]
        yield f"- **{_title(name)}**: {'; '.join(told)}."


def _failures(found: Comparison, name: str) -> Iterator[str]:
    yield from sorted({why for (_, failed), why in found.failures.items() if failed == name})


def _turn(found: Comparison, load: Load, name: str) -> str:
    cpu_us = found.cpu_us(load, name)
    return _number(None if cpu_us is None else cpu_us / 1000, found, load, name, ".1f")


def _number(figure: float | None, found: Comparison, load: Load, name: str, form: str = ",.0f") -> str:
    if figure is None:
        return "failed" if (load.name, name) in found.failures else "-"
    return f"{figure:{form}}"


def _pair(first: float | None, second: float | None) -> str:
    return "-" if first is None or second is None else f"{first:.1f} / {second:.1f}"


def _added(found: Comparison, load: Load, name: str, percentile: int) -> float | None:
    return _minus(found.first_ms(load, name, percentile), found.first_ms(load, DIRECT, percentile))


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _ratio(first: float | None, second: float | None) -> float | None:
    return first / second if first is not None and second else None


def _title(name: str) -> str:
    return "upstream itself" if name == DIRECT else CANDIDATES[name].title
