"""What the clients of one window saw, as they tell it to the benchmark: one line of JSON."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Seen:
    """So many calls in so many seconds; their times in ms, 50th and 99th percentile; the size of every answer."""

    calls: int
    seconds: float
    p50_ms: float
    p99_ms: float
    answer_bytes: int

    def to_json(self) -> str:
        """Return the line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Seen":
        """Read a line."""
        return cls(**json.loads(line))
