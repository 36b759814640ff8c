"""The figures of a campaign, for the terminal and for docs/chaos.md."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.campaign import Round
from chaos.history import Outcome
from parley.v1.tool_pb2 import ToolCallStatus

BEGIN, END = "<!-- made by `make chaos` -->", "<!-- until here -->"
HEADINGS = (
    "store",
    "kills",
    "operations",
    "runs",
    "events",
    "effects",
    "unknown",
    "writes lost",
    "restart p50 / max",
    "violations",
)


@dataclass
class Figures:
    """What the rounds of one part came to."""

    name: str
    kills: Counter[str] = field(default_factory=Counter)
    operations: Counter[Outcome] = field(default_factory=Counter)
    runs: int = 0
    events: int = 0
    effects: int = 0
    unknown_outcomes: int = 0
    lost_writes: int = 0
    restart_s: list[float] = field(default_factory=list)
    violations: int = 0

    def add(self, played: Round) -> None:
        """Count a round."""
        self.kills.update(point for point, _ in played.history.kills)
        self.operations.update(operation.outcome for operation in played.history.operations)
        self.runs += len(played.aftermath.runs)
        events = [event for final in played.aftermath.runs.values() for event in final.events]
        self.events += len(events)
        self.effects += len(played.effects)
        unknown = ToolCallStatus.TOOL_CALL_STATUS_UNKNOWN_OUTCOME
        self.unknown_outcomes += sum(event.tool_call_finished.status == unknown for event in events)
        self.lost_writes += played.lost_writes
        # The first start of a round makes the database.
        self.restart_s += played.start_s[1:]
        self.violations += len(played.violations)

    def row(self) -> list[str]:
        """Return the figures as cells."""
        total = self.operations.total()
        share = f"{total:,}, {self.operations[Outcome.OK] / max(total, 1):.0%} answered"
        numbers = (self.runs, self.events, self.effects, self.unknown_outcomes, self.lost_writes)
        counts = [f"{number:,}" for number in numbers]
        restart = "-"
        if self.restart_s:
            restart = f"{statistics.median(self.restart_s):.2f} s / {max(self.restart_s):.2f} s"
        return [self.name, f"{self.kills.total():,}", share, *counts, restart, str(self.violations)]


def table(parts: Sequence[Figures], seed: str, minutes: float) -> str:
    """Write the figures as Markdown, and below them where the kills hit."""
    rows = [HEADINGS, ["---"] * len(HEADINGS), *(part.row() for part in parts)]
    hits = sum((part.kills for part in parts), Counter[str]())
    told = ", ".join(f"{point} {count:,}" for point, count in hits.most_common())
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", f"Seed {seed}, {minutes:.0f} minutes. Where the kills hit: {told}."])


def write_into(document: Path, text: str) -> None:
    """Put the figures between the markers of a document."""
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
